"""Measures of a finished training: logits -> loss and accuracy; weights -> sparsity and norms."""

import math
from collections.abc import Mapping

import torch
from torch.nn import functional as F

# absolute thresholds measure scale as much as sparsity, so they are shown beside exact zeros and beside `none`
THRESHOLDS = (1e-2, 1e-3, 1e-4, 1e-5)
# logits that vary less than this over all images no longer depend on the image
COLLAPSE_SPREAD = 1e-6


def prefixed(prefix: str, values: Mapping[str, float]) -> dict[str, float]:
    """Return `values` under "prefix/name"."""
    return {f"{prefix}/{name}": value for name, value in values.items()}


def classification(logits: torch.Tensor, labels: torch.Tensor) -> dict[str, float]:
    """Return mean cross-entropy "loss" (nats) and "accuracy" (fraction) of logits [N, C] for labels int64 [N]."""
    # summed in float64: at 10,000 images float32 would lose the fifth digit
    loss = F.cross_entropy(logits, labels, reduction="none").double().mean()
    return {"loss": loss.item(), "accuracy": (logits.argmax(1) == labels).double().mean().item()}


def collapsed(logits: torch.Tensor) -> bool:
    """Tell whether the finite logits [N, C] are the same for every image: the weights have been shrunk to nothing."""
    return bool(torch.isfinite(logits).all() and (logits.amax(0) - logits.amin(0)).max() < COLLAPSE_SPREAD)


def regularized(weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the tensors that sparsity is counted on: floating point with ndim >= 2, so no biases and no scales."""
    return {name: w for name, w in weights.items() if w.is_floating_point() and w.ndim >= 2}


def layers(weights: Mapping[str, torch.Tensor]) -> list[dict[str, object]]:
    """Return a row per weight tensor with its name, shape and the measures of `tensor_measures`."""
    return [
        {"layer": name, "shape": "x".join(map(str, w.shape)), "weights": w.numel(), **tensor_measures([w])}
        for name, w in regularized(weights).items()
    ]


def summary(weights: Mapping[str, torch.Tensor]) -> dict[str, float]:
    """Return the measures over all weight tensors together, and `compression_ratio`.

    `weights` are the trainable parameters. compression_ratio is their number, biases included, over that of nonzero ones
    (Blalock et al., What is the State of Neural Network Pruning?, MLSys 2020); NaN if all are zero.
    """
    floating = [w for w in weights.values() if w.is_floating_point()]
    size, nonzero = sum(w.numel() for w in floating), sum(int(w.count_nonzero()) for w in floating)
    ratio = size / nonzero if nonzero else math.nan
    return tensor_measures(list(regularized(weights).values())) | {"compression_ratio": ratio}


def tensor_measures(tensors: list[torch.Tensor]) -> dict[str, float]:
    """Return sparsity and norms of the elements of `tensors` taken together.

    sparsity/exact: share equal to 0; sparsity/abs_t: share with |w| < t; norm/l1, norm/l2, norm/max in float64.
    """
    size = sum(w.numel() for w in tensors)
    if size == 0:
        return {}
    below = {f"sparsity/abs_{t:.0e}".replace("e-0", "e-"): t for t in THRESHOLDS}
    absolute = [w.detach().abs() for w in tensors]
    return {
        "sparsity/exact": sum(int((a == 0).sum()) for a in absolute) / size,
        **{name: sum(int((a < t).sum()) for a in absolute) / size for name, t in below.items()},
        "norm/l1": sum(a.sum(dtype=torch.float64).item() for a in absolute),
        "norm/l2": math.sqrt(sum(a.double().square().sum().item() for a in absolute)),
        "norm/max": max(a.max().item() for a in absolute),
    }


def final(
    weights: Mapping[str, torch.Tensor],
    train: tuple[torch.Tensor, torch.Tensor],
    test: tuple[torch.Tensor, torch.Tensor],
) -> dict[str, float]:
    """Return all measures of a trained model; `train` and `test` are (logits [N, C], labels [N]).

    gap/accuracy is training minus test accuracy, gap/loss test minus training loss, both of the final weights in
    evaluation mode: positive where the model does better on what it was trained on.
    """
    fit, held_out = classification(*train), classification(*test)
    return {
        **prefixed("fit", fit),
        **prefixed("test", held_out),
        "gap/accuracy": fit["accuracy"] - held_out["accuracy"],
        "gap/loss": held_out["loss"] - fit["loss"],
        **summary(weights),
    }
