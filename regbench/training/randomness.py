"""What a seed decides: initial weights and batch order, the same on every engine and device; a model's own noise.

Where torch's random state is seeded for a network, so are Python's and NumPy's: a user's network may draw from them.
"""

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn

from regbench import networks

# separate streams, so that a change in how much one of them draws leaves the other as it was
ORDER, NOISE, DENSE_INPUT, PRUNING, MOVES, INPUT_NOISE, AUGMENT = 1, 2, 3, 4, 5, 6, 7


def initial_model(spec: str, num_classes: int, seed: int) -> nn.Module:
    """Return the model on the CPU with the weights that torch gives it after `torch.manual_seed(seed)`."""
    with seeded(seed):
        return networks.build(spec, num_classes)


def batches(count: int, batch_size: int, seed: int, epoch: int) -> list[np.ndarray]:
    """Return an epoch's batches: positions int64 [batch_size] into `count` images, each once; the last may be short."""
    order = np.random.default_rng([seed, ORDER, epoch]).permutation(count)
    return np.split(order, range(batch_size, count, batch_size))


@contextmanager
def noise(seed: int, epoch: int, device: torch.device) -> Iterator[None]:
    """Seed the random state for one epoch of one trial (dropout and the like) and put it back afterwards."""
    with seeded(_state(seed, NOISE, epoch), device):
        yield


@contextmanager
def seeded(seed: int, device: torch.device | None = None) -> Iterator[None]:
    """Seed torch, on the CPU and on `device`, NumPy and Python for the block, and put their states back."""
    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[device] if device is not None and device.type == "cuda" else []):
        torch.manual_seed(seed)
        np.random.seed(seed % 2**32)
        random.seed(seed)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)


def generators(seeds: Sequence[int], stream: int, epoch: int, device: torch.device) -> list[torch.Generator]:
    """Return a generator for each trial's random numbers of one kind (DENSE_INPUT, PRUNING, ...) in one epoch."""
    return [torch.Generator(device).manual_seed(_state(seed, stream, epoch)) for seed in seeds]


def uniform(shape: Sequence[int], generators: Sequence[torch.Generator]) -> torch.Tensor:
    """Return random numbers in [0, 1) float32 [K, ...], each row from its own generator."""
    return torch.stack([torch.rand(shape[1:], generator=one, device=one.device) for one in generators])


def _state(seed: int, stream: int, epoch: int) -> int:
    return int(np.random.SeedSequence([seed, stream, epoch]).generate_state(1, np.uint64)[0] >> 1)
