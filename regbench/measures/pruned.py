"""Accuracy after the smallest weights are zeroed, without training again."""

from collections.abc import Callable, Mapping

import torch

from regbench.measures import SHARES
from regbench.measures.weights import ascending

# a percentage point, with room for rounding: accuracies are whole images over their number
POINT = 0.01 + 1e-9


def curves(
    weights: Mapping[str, torch.Tensor],
    logits: torch.Tensor,
    predict: Callable[[], torch.Tensor],
    labels: torch.Tensor,
) -> list[dict[float, float]]:
    """Return for each of K networks: share of zeroed weights -> accuracy, for SHARES; empty if it is not finite.

    `weights` [K, ...] are the trained parameters that `predict` uses for its logits [K, N, C]; `logits` are those before
    pruning, `labels` [N]. Weights with the smallest |w| of all layers together are zeroed, biases and scales never
    (global magnitude pruning as in Blalock et al., MLSys 2020): at least the given share, more where several are as
    large as the last of them. The weights are changed in place and put back bit for bit.
    """
    rows = (logits, *weights.values())
    finite = torch.stack([x.isfinite().reshape(len(x), x[0].numel()).all(1) for x in rows]).all(0).tolist()
    # a leading axis of K, so that a matrix has three
    matrices = {name: w.detach() for name, w in weights.items() if w.is_floating_point() and w.ndim >= 3}
    if not any(finite) or not matrices:
        return [{} for _ in finite]
    cuts = _cuts(matrices)
    accuracies = [(logits.argmax(2) == labels).double().mean(1)]
    original = {name: w.clone() for name, w in matrices.items()}
    try:
        for index in range(1, len(SHARES)):
            for w in matrices.values():
                w.masked_fill_(w.abs() <= cuts[:, index].view(-1, *[1] * (w.ndim - 1)), 0)
            accuracies.append((predict().argmax(2) == labels).double().mean(1))
    finally:
        for name, w in matrices.items():
            w.copy_(original[name])
    columns = torch.stack(accuracies, dim=1).tolist()
    return [dict(zip(SHARES, row, strict=True)) if ok else {} for row, ok in zip(columns, finite, strict=True)]


def measures(curve: Mapping[float, float]) -> dict[str, float]:
    """Return "prune/<share>", the accuracy with that share of the weights zeroed, and "sparsity_at_1pp".

    The latter is the largest of the shares in `curve` whose accuracy is within one percentage point of that at share 0,
    so it goes in the steps of the curve. A network at chance keeps its accuracy at any share. Both are measured on the
    test images and choose nothing.
    """
    if not curve:
        return {}
    within = [share for share, accuracy in curve.items() if accuracy >= curve[0.0] - POINT]
    return {f"prune/{share:g}": accuracy for share, accuracy in curve.items()} | {"sparsity_at_1pp": max(within)}


def _cuts(matrices: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Return for each network and share the largest |w| to be zeroed [K, len(SHARES)]; -1 where there is none."""
    rows = []
    for row in range(len(next(iter(matrices.values())))):
        # row by row: sorting all at once would take as much memory as training
        sizes = ascending(torch.cat([w[row].flatten() for w in matrices.values()]))
        counts = [round(share * len(sizes)) for share in SHARES]
        rows.append(torch.stack([sizes[count - 1] if count else sizes.new_tensor(-1.0) for count in counts]))
    return torch.stack(rows)
