"""The convolutions of the notebook's CNN for K networks at once, and which of them a device computes fastest."""

import time
from functools import cache
from importlib.metadata import version

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from regbench.training import measurement_cache, precision
from regbench.trial import Recipe


def grouped(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Convolve, pool and rectify x [K, N, C, H, W] to [K, N, O, H/2, W/2] as one grouped convolution."""
    stacked = x.transpose(0, 1).flatten(1, 2)
    y = F.conv2d(stacked, weight.flatten(0, 1), padding=1, groups=len(weight))
    # the bias after pooling, as in the network alone
    return F.relu(F.max_pool2d(y, 2) + bias.flatten()[:, None, None]).unflatten(1, bias.shape).transpose(0, 1)


def unfolded(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """As `grouped`, by a batched product with the unfolded patches."""
    count, size = x.shape[0], x.shape[-2:]
    # as one image: of several each would be a kernel of its own
    patches = F.unfold(x.reshape(1, -1, *size), 3, padding=1).view(*x.shape[:2], -1, size.numel())
    y = weight.flatten(2)[:, None] @ patches
    pooled = F.max_pool2d(y.flatten(0, 1).unflatten(2, size), 2).unflatten(0, (count, -1))
    return F.relu(pooled + bias[:, None, :, None, None])


CONVOLUTIONS = {"grouped": grouped, "unfolded": unfolded}


def fastest_convolution(recipe: Recipe, count: int, device: torch.device) -> str:
    """Return the name of the convolution that this device computes fastest for a stack of `count`.

    It is measured on a GPU, once: a stack that goes on in a later process is rounded as before. On a CPU it is fixed,
    so that the same trial is rounded in the same way in every run.
    """
    return "grouped" if device.type == "cpu" else _measured(recipe.precision, recipe.batch_size, count, device)


@cache
def _measured(kind: str, batch: int, count: int, device: torch.device) -> str:
    circumstances = {
        "precision": kind,
        "batch_size": batch,
        "count": count,
        "device": torch.cuda.get_device_name(device),
        "torch": version("torch"),
        "cudnn": torch.backends.cudnn.version(),
    }
    known = measurement_cache.get("convolution", **circumstances)
    if isinstance(known, str) and known in CONVOLUTIONS:
        return known
    seconds: dict[str, float] = {}
    for name, convolution in CONVOLUTIONS.items():
        layers = [(3, 16, 32), (16, 32, 16)]
        try:
            with precision.settings(kind, device):
                seconds[name] = sum(_seconds(convolution, *layer, kind, batch, count, device) for layer in layers)
        except RuntimeError:  # too large for the device, or not there for this precision
            continue
    fastest = min(seconds, key=seconds.__getitem__, default="grouped")
    measurement_cache.put("convolution", fastest, **circumstances)
    return fastest


def _seconds(convolution, channels, out, side, kind, batch, count, device, repetitions: int = 5) -> float:
    dtype = precision.dtype(kind)
    x = torch.rand(count, batch, channels, side, side, device=device, dtype=dtype, requires_grad=channels > 3)
    weight = torch.rand(count, out, channels, 3, 3, device=device, dtype=dtype, requires_grad=True)
    bias = torch.rand(count, out, device=device, dtype=dtype)
    times = []
    for _ in range(repetitions):
        torch.cuda.synchronize(device)
        start = time.perf_counter()
        with precision.autocast(kind, device):
            y = convolution(x, weight, bias)
        torch.autograd.grad(y.sum(), [weight, x] if channels > 3 else [weight])
        torch.cuda.synchronize(device)
        times.append(time.perf_counter() - start)
    return float(np.median(times[1:]))
