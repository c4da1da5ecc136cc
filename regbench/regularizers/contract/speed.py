"""How long a regularizer's penalty takes by autograd, beside one whose gradient is written out."""

import time

import numpy as np
import torch

from regbench.regularizers import L1, Regularizer

SHAPE = (1024, 2048)  # of the notebook network's largest layer
REPETITIONS = 5


def compare(cls: type[Regularizer]) -> str:
    """Return a sentence on the milliseconds that the penalty takes in a step."""
    own, plain = (_milliseconds(method) for method in (cls(), L1()))
    return (
        f"autograd takes {own:.1f} ms a step for a penalty of {SHAPE[0]} x {SHAPE[1]} weights; l1, whose gradient is "
        f"written out in add_grad, takes {plain:.1f} ms"
    )


def _milliseconds(method: Regularizer) -> float:
    p, g = torch.randn(1, *SHAPE, generator=torch.Generator().manual_seed(0)), torch.zeros(1, *SHAPE)
    lam, times = torch.full((1, 1, 1), 1e-4), []
    for _ in range(REPETITIONS + 1):
        start = time.perf_counter()
        method.value(p, lam)
        method.add_grad(p, g, lam)
        times.append(1000 * (time.perf_counter() - start))
    return float(np.median(times[1:]))
