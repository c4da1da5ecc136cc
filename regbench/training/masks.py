"""The masks of pruning regularizers: True where a weight is left."""

from collections.abc import Sequence

import torch
from torch import Tensor

from regbench.training import randomness
from regbench.training.groups import Group
from regbench.training.randomness import Stream


def all_true(group: Group, weights: Sequence[Tensor]) -> list[Tensor | None]:
    """Return a group's masks before anything is pruned of `weights` [K, ...]."""
    prunes = group.acts("target_sparsity")
    return [
        torch.ones_like(w[group.rows], dtype=torch.bool) if prunes and group.covers(index) else None
        for index, w in enumerate(weights)
    ]


def prune(group: Group, weights: Sequence[Tensor], momenta: Sequence[Tensor], epoch: int, epochs: int) -> None:
    """Zero what the regularizer wants to be zero after this many epochs, 0 or more, in `weights` and `momenta` [K, ...].

    The group's masks are changed in place.
    """
    target = group.call(group.regularizer.target_sparsity, group.lam, epoch / epochs)
    covered = [index for index, mask in enumerate(group.masks) if mask is not None]
    if target is None or not covered:
        return
    size = sum(group.masks[index][0].numel() for index in covered)
    targets = torch.as_tensor(target).to(group.lam).expand(len(group.lam)).tolist()
    counts = [round(share * size) for share in targets]
    remaining = torch.stack([group.masks[index].flatten(1).sum(1) for index in covered]).sum(0).tolist()
    if all(count <= size - left for count, left in zip(counts, remaining, strict=True)):
        return
    stream = Stream(group.seeds, randomness.PRUNING, group.lam.device)
    stream.begin_epoch(epoch)
    importances = []
    for index in covered:
        w = weights[index][group.rows]
        # billions in a sweep: not drawn for |w|, which takes none
        uniform = stream.uniform(w.shape).to(w) if group.acts("importance") else w
        importances.append(group.call(group.regularizer.importance, w, uniform))
    if group.reason:
        return
    for row, count in enumerate(counts):
        if count > size - remaining[row]:
            masks = [group.masks[index][row] for index in covered]
            _mask_least(masks, count, [importance[row] for importance in importances])
    for index in covered:
        for tensor in (weights[index], momenta[index]):
            tensor[group.rows].masked_fill_(~group.masks[index], 0)


def _mask_least(masks: Sequence[Tensor], count: int, importances: Sequence[Tensor]) -> None:
    """Keep all but the `count` least important weights of a trial; what is pruned already counts as the least of all.

    Of equal importances the first go, and NaN last: a trial that has diverged is not to be healed.
    """
    importances = [one.masked_fill(~mask, -torch.inf) for one, mask in zip(importances, masks, strict=True)]
    order = torch.cat([one.flatten() for one in importances]).argsort(stable=True)
    left = torch.ones_like(order, dtype=torch.bool).index_fill_(0, order[:count], False)
    for mask, part in zip(masks, left.split([mask.numel() for mask in masks]), strict=True):
        mask &= part.view_as(mask)
