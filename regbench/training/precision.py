"""The arithmetic of a training: which numbers it computes with, and that a GPU computes them reproducibly."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress

import torch

from regbench.errors import UserError
from regbench.training import bf16, onednn

# of NVIDIA's GPUs, from which on they multiply with factors of tf32 and bf16: before, tf32 is float32, and bf16 emulated
LEAST_CAPABILITY = (8, 0)


def check(precision: str, device: torch.device, here: bool = True) -> None:
    """Raise UserError if the device does not have this precision, as far as that is known if it is not `here`."""
    if precision == "tf32" and device.type != "cuda":
        raise UserError(
            f"precision='tf32' needs a CUDA GPU, this is {device.type}; accepted here: float32, bf16, float64"
        )
    if not here:
        return
    if precision == "bf16" and device.type == "cpu" and (times := bf16.slowdown()) > bf16.MOST_SLOWDOWN:
        raise UserError(
            f"precision='bf16' is {times:.0f} times as slow as float32 on this CPU, which has no instructions for it; "
            "accepted here: float32, float64"
        )
    if precision in ("tf32", "bf16") and device.type == "cuda":
        found = torch.cuda.get_device_capability(device)
        if found < LEAST_CAPABILITY:
            name = f"{torch.cuda.get_device_name(device)} has {found[0]}.{found[1]}"
            raise UserError(
                f"precision={precision!r} needs a GPU of compute capability 8.0 or more, {name}; accepted here: float32, "
                "float64"
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
    """Have the device take this precision for the block, and a GPU deterministic algorithms; put the settings back."""
    if device.type != "cuda":
        with onednn.products() if precision == "float32" else nullcontext():
            yield
        return
    # cuBLAS reads it when the first handle is made; the documented value for determinism
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    cudnn, kind = torch.backends.cudnn, "tf32" if precision == "tf32" else "ieee"
    wanted = (
        (torch.backends.cuda.matmul, "fp32_precision", kind),
        (cudnn.conv, "fp32_precision", kind),
        (cudnn.rnn, "fp32_precision", kind),
        (cudnn, "enabled", True),
        (cudnn, "benchmark", False),
        (cudnn, "deterministic", True),
        # else deterministic algorithms write NaN into all memory that is allocated
        (torch.utils.deterministic, "fill_uninitialized_memory", False),
    )
    with ExitStack() as put_back:
        for owner, name, _ in wanted:
            put_back.callback(setattr, owner, name, getattr(owner, name))
        # the older names of the same: a network of the user's may read them, which raises where both disagree; here too,
        # if the user's code has left them so
        with suppress(RuntimeError):
            put_back.callback(torch.set_float32_matmul_precision, torch.get_float32_matmul_precision())
        with suppress(RuntimeError):
            put_back.callback(setattr, cudnn, "allow_tf32", cudnn.allow_tf32)
        torch.set_float32_matmul_precision("high" if kind == "tf32" else "highest")
        cudnn.allow_tf32 = kind == "tf32"
        for owner, name, value in wanted:
            setattr(owner, name, value)
        only_warned = torch.is_deterministic_algorithms_warn_only_enabled()
        put_back.callback(
            torch.use_deterministic_algorithms, torch.are_deterministic_algorithms_enabled(), warn_only=only_warned
        )
        torch.use_deterministic_algorithms(True, warn_only=True)
        yield
