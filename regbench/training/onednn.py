"""Whether oneDNN's matrix products, which a CPU with AVX-512 computes fastest, are products of float32 numbers."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import torch

from regbench.training import measurement_cache

# of a product's relative error: float32 has 1e-7 to 1e-6, tf32 3e-4 and bf16 2e-3
MOST_ERROR = 1e-5
log = logging.getLogger(__name__)


@contextmanager
def products() -> Iterator[None]:
    """Have a CPU take oneDNN's products of float32 for the block, if they are as exact as float32 is.

    torch takes them only where factors of bf16 would do ("medium"), and oneDNN then rounds the factors on CPUs that gain by
    it, as those with AMX do: so it goes by the error that is measured.
    """
    try:
        before = torch.get_float32_matmul_precision()
    except RuntimeError:  # the user's code has set it by torch.backends, and has its way
        yield
        return
    torch.set_float32_matmul_precision("medium" if error() < MOST_ERROR else "highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


@cache
def error() -> float:
    """Return the relative error of oneDNN's products here, the largest of the three that a dense layer takes.

    It is measured once for each model of processor.
    """
    return measurement_cache.of_processor("onednn", _measure)


def _measure() -> float:
    generator = torch.Generator().manual_seed(0)
    x, weight, slope = (
        torch.randn(shape, generator=generator, dtype=torch.float32, device="cpu")
        for shape in ((100, 2048), (1024, 2048), (100, 1024))
    )
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        found = max(_error(*pair) for pair in ((x, weight.mT), (slope, weight), (slope.mT, x)))
    finally:
        torch.set_float32_matmul_precision(before)
    log.debug("oneDNN's products are off by %.1e", found)
    return found


def _error(left: torch.Tensor, right: torch.Tensor) -> float:
    exact = left.double() @ right.double()
    return float((left @ right - exact).norm() / exact.norm())
