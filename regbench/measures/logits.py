"""Measures of logits: loss, accuracy, calibration, and whether they still depend on the image."""

import math
from collections.abc import Mapping

import torch
from torch.nn import functional as F

# logits that vary less than this over all images no longer depend on the image
COLLAPSE_SPREAD = 1e-6
# of the expected calibration error
BINS = 15


def prefixed(prefix: str, values: Mapping[str, float]) -> dict[str, float]:
    """Return `values` under "prefix/name"."""
    return {f"{prefix}/{name}": value for name, value in values.items()}


def classification(logits: torch.Tensor, labels: torch.Tensor) -> dict[str, float]:
    """Return mean cross-entropy "loss" (nats) and "accuracy" (fraction) of logits [N, C] for labels int64 [N]."""
    # summed in float64: at 10,000 images float32 would lose the fifth digit
    loss = F.cross_entropy(logits, labels, reduction="none").double().mean()
    return {"loss": loss.item(), "accuracy": (logits.argmax(1) == labels).double().mean().item()}


def collapsed(logits: torch.Tensor) -> bool:
    """Return whether the finite logits [N, C] are the same for every image: the weights have been shrunk to nothing."""
    return bool(torch.isfinite(logits).all() and (logits.amax(0) - logits.amin(0)).max() < COLLAPSE_SPREAD)


def calibration(logits: torch.Tensor, labels: torch.Tensor) -> dict[str, float]:
    """Return "ece" and "brier" of logits [N, C] for labels int64 [N]: how well the probabilities are those of being right.

    ece: sum_b (n_b/N) |accuracy_b - confidence_b| over BINS bins of equal width of the largest probability, each without
    its lower and with its upper edge (Guo et al., On Calibration of Modern Neural Networks, ICML 2017).
    brier: mean over images of sum_c (p_c - [c = label])^2, in [0, 2] (Brier, Monthly Weather Review 1950).
    Both are NaN if a logit is not finite.
    """
    # off the device: few numbers, and a GPU adds into bins in no fixed order
    logits, labels = logits.double().cpu(), labels.cpu()
    if not torch.isfinite(logits).all():
        return {"ece": math.nan, "brier": math.nan}
    probabilities = logits.softmax(1)
    confidence, predicted = probabilities.max(1)
    bins = (confidence * BINS).ceil().long().clamp(1, BINS) - 1
    # n_b times the difference of the means is the difference of the sums
    excess = torch.bincount(bins, (predicted == labels).double() - confidence, minlength=BINS)
    squares = (probabilities - F.one_hot(labels, logits.shape[1])).square().sum(1)
    return {"ece": excess.abs().sum().item() / len(labels), "brier": squares.mean().item()}
