"""Whether a CPU has instructions for bf16; without importing torch where that is known from an earlier time."""

from functools import partial
from time import thread_time
from timeit import timeit

from regbench.training import measurement_cache

SIDE = 256  # of the matrices by which that is told
# with the instructions a product takes half of float32's time and less, without them several times as much
MOST_SLOWDOWN = 1.5


def slowdown() -> float:
    """Return how many times as long as in float32 a product in bf16 takes on this CPU.

    It is measured in some milliseconds, once for each model of processor.
    """
    return measurement_cache.of_processor("bf16", _measure)


def _measure() -> float:
    import torch

    pairs = [[torch.rand(SIDE, SIDE).to(kind) for _ in range(2)] for kind in (torch.float32, torch.bfloat16)]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # whose processor time is the same on a busy machine
    try:
        rounds = [[timeit(partial(torch.mm, *pair), number=1, timer=thread_time) for pair in pairs] for _ in range(5)]
    finally:
        torch.set_num_threads(threads)
    plain, rounded = (min(times) for times in zip(*rounds, strict=True))
    return rounded / plain
