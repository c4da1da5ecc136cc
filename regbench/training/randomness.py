"""What a seed decides: initial weights and batch order, the same on every engine and device; a model's own noise.

Where torch's random state is seeded for a network, so are Python's and NumPy's: a user's network may draw from them.
"""

import math
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn

from regbench import networks

# of SplitMix64, as the signed numbers that have these bits
GAMMA, *MIX = (number - 2**64 for number in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))
# numbers that are made at once on a CPU, of 64 bits
PART = 1 << 15
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


class Stream:
    """The random numbers of one kind (DENSE_INPUT, PRUNING, ...) of K trials, of an epoch after the other.

    Which number comes at a place is a function of seed, kind, epoch and place: the same on every device, in a stack of any
    size, and in a recorded step, since what counts the places is on the device. It is SplitMix64, with Stafford's
    constants: Steele, Lea and Flood, Fast Splittable Pseudorandom Number Generators, OOPSLA 2014, figure 16.
    """

    def __init__(self, seeds: Sequence[int], kind: int, device: torch.device) -> None:
        self.seeds, self.kind = tuple(seeds), kind
        self._start = torch.zeros(len(seeds), 1, dtype=torch.int64, device=device)
        self._places = torch.zeros((), dtype=torch.int64, device=device)
        self._steps = torch.zeros(0, dtype=torch.int64, device=device)  # multiples of GAMMA

    def begin_epoch(self, epoch: int) -> None:
        """Go to the first number of an epoch; nothing of it depends on the epochs before."""
        starts = [[_state(seed, self.kind, epoch)] for seed in self.seeds]
        # in place: a recorded step reads them where they were
        self._start.copy_(torch.tensor(starts), non_blocking=True)
        self._places.zero_()

    def uniform(self, shape: Sequence[int]) -> torch.Tensor:
        """Return the next numbers in [0, 1), multiples of 2^-24, float32 [K, ...]; each row is a trial's own."""
        count, device = math.prod(shape[1:]), self._start.device
        places = -(-count // 2)  # two numbers of 32 bits in each
        found = torch.empty(len(self.seeds), 2 * places, device=device)
        # parts that stay in a CPU's cache, in which that is twice as fast as torch.rand
        step = max(1, places if device.type != "cpu" else PART // len(self.seeds))
        if len(self._steps) < min(step, places):
            self._steps = torch.arange(min(step, places), device=device).mul_(GAMMA)
        for first in range(0, places, step):
            last = min(first + step, places)
            begin = self._start + (self._places + first) * GAMMA
            bits = _mixed(begin + self._steps[: last - first]).view(torch.int32)
            found[:, 2 * first : 2 * last] = bits.bitwise_right_shift_(8)
        self._places += places
        return found.mul_(2**-24).add_(0.5)[:, :count].reshape(shape)


def _mixed(z: torch.Tensor) -> torch.Tensor:
    """Return z int64, changed in place, as SplitMix64 mixes it: every bit depends on all."""
    spare = torch.empty_like(z)
    for shift, factor in ((30, MIX[0]), (27, MIX[1]), (31, None)):
        # a shift of signed numbers brings in ones
        torch.bitwise_right_shift(z, shift, out=spare)
        z.bitwise_xor_(spare.bitwise_and_((1 << (64 - shift)) - 1))
        if factor is not None:
            z.mul_(factor)
    return z


def _state(seed: int, stream: int, epoch: int) -> int:
    return int(np.random.SeedSequence([seed, stream, epoch]).generate_state(1, np.uint64)[0] >> 1)
