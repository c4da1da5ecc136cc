"""The arithmetic of a training: which numbers it computes with, and that a GPU computes them reproducibly."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from regbench.errors import UserError


def check(precision: str, device: torch.device) -> None:
    """Raise UserError if the device does not have this precision."""
    if precision == "tf32" and device.type != "cuda":
        raise UserError(
            f"precision='tf32' needs a CUDA GPU, this is {device.type}; accepted here: float32, bf16, float64"
        )


def dtype(precision: str) -> torch.dtype:
    """Return the type of weights, gradients, sums and logits."""
    return torch.float64 if precision == "float64" else torch.float32


def factors(precision: str) -> torch.dtype:
    """Return the type to which the factors of a product are rounded."""
    return torch.bfloat16 if precision == "bf16" else dtype(precision)


def autocast(precision: str, device: torch.device) -> torch.autocast:
    """Return a context in which a network's products are computed with factors of this precision."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16")


@contextmanager
def settings(precision: str, device: torch.device) -> Iterator[None]:
    """Have a GPU take deterministic algorithms and this precision for the block; put the settings back.

    On a CPU there is nothing to choose, and the call would import torch's compiler, which takes seconds.
    """
    if device.type != "cuda":
        yield
        return
    # cuBLAS reads it when the first handle is made; the documented value for determinism
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    products, tf32 = torch.get_float32_matmul_precision(), precision == "tf32"
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.set_float32_matmul_precision("high" if tf32 else "highest")
    try:
        with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=tf32):
            yield
    finally:
        torch.set_float32_matmul_precision(products)
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
