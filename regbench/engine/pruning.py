"""Accuracy after the smallest weights are zeroed, without training again; imports no torch before it is used."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

# shares of the weights that are zeroed
SHARES = (0.0, 0.5, 0.8, 0.9, 0.95, 0.98, 0.99)


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
    import torch

    rows = (logits, *weights.values())
    finite = torch.stack([x.isfinite().reshape(len(x), x[0].numel()).all(1) for x in rows]).all(0).tolist()
    # a leading axis of K, so that a matrix has three
    matrices = {name: w.detach() for name, w in weights.items() if w.is_floating_point() and w.ndim >= 3}
    if not any(finite) or not matrices:
        return [{} for _ in finite]
    cuts = _cuts(matrices)
    accuracies = [(logits.argmax(2) == labels).double().mean(1)]
    kept = {name: w.clone() for name, w in matrices.items()}
    try:
        for place in range(1, len(SHARES)):
            for w in matrices.values():
                w.masked_fill_(w.abs() <= cuts[:, place].view(-1, *[1] * (w.ndim - 1)), 0)
            accuracies.append((predict().argmax(2) == labels).double().mean(1))
    finally:
        for name, w in matrices.items():
            w.copy_(kept[name])
    columns = torch.stack(accuracies, dim=1).tolist()
    return [dict(zip(SHARES, row, strict=True)) if ok else {} for row, ok in zip(columns, finite, strict=True)]


def _cuts(matrices: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Return for each network and share the largest |w| to be zeroed [K, len(SHARES)]; -1 where there is none."""
    import torch

    from regbench.sparsity import ascending

    rows = []
    for row in range(len(next(iter(matrices.values())))):
        # row by row: sorting all at once would take as much memory as training
        sizes = ascending(torch.cat([w[row].flatten() for w in matrices.values()]))
        counts = [round(share * len(sizes)) for share in SHARES]
        rows.append(torch.stack([sizes[count - 1] if count else sizes.new_tensor(-1.0) for count in counts]))
    return torch.stack(rows)
