"""Which weights a pruning regularizer has left."""

from collections.abc import Sequence

import torch
from torch import Tensor

from regbench.engine import randomness
from regbench.engine.groups import Group


def none_pruned(group: Group, weights: Sequence[Tensor]) -> list[Tensor | None]:
    """Return a group's `kept` before anything is pruned of `weights` [K, ...]."""
    prunes = group.acts("share")
    return [torch.ones_like(w[group.rows], dtype=torch.bool) if prunes and group.covers(w) else None for w in weights]


def prune(group: Group, weights: Sequence[Tensor], momenta: Sequence[Tensor], epoch: int, epochs: int) -> None:
    """Zero what the regularizer wants to be zero after this many epochs, in `weights` and `momenta` [K, ...].

    The group's `kept` is changed in place.
    """
    share = group.call(group.regularizer.share, group.lam, epoch / epochs)
    places = [place for place, kept in enumerate(group.kept) if kept is not None]
    if share is None or not places:
        return
    size = sum(group.kept[place][0].numel() for place in places)
    shares = torch.as_tensor(share).to(group.lam).expand(len(group.lam)).tolist()
    counts = [round(part * size) for part in shares]
    left = torch.stack([group.kept[place].flatten(1).sum(1) for place in places]).sum(0).tolist()
    if all(count <= size - remaining for count, remaining in zip(counts, left, strict=True)):
        return
    # drawn on the CPU, so that a seed zeroes the same weights on every device
    generators = randomness.generators(group.seeds, randomness.PRUNING, epoch, torch.device("cpu"))
    scores = []
    for place in places:
        w = weights[place][group.rows]
        # billions in a sweep: not drawn for |w|, which takes none
        uniform = randomness.uniform(w.shape, generators).to(w) if group.acts("score") else w
        scores.append(group.call(group.regularizer.score, w, uniform))
    if group.reason:
        return
    for row, count in enumerate(counts):
        if count > size - left[row]:
            _zero([group.kept[place][row] for place in places], count, [score[row] for score in scores])
    for place in places:
        for tensor in (weights[place], momenta[place]):
            tensor[group.rows].masked_fill_(~group.kept[place], 0)


def _zero(kept: Sequence[Tensor], count: int, scores: Sequence[Tensor]) -> None:
    """Keep all but the `count` least of a trial's scores; what is pruned already counts as the least of all.

    Of equal scores the first go, and NaN last: a trial that has diverged is not to be healed.
    """
    scores = [score.masked_fill(~mask, -torch.inf) for score, mask in zip(scores, kept, strict=True)]
    order = torch.cat([score.flatten() for score in scores]).argsort(stable=True)
    left = torch.ones_like(order, dtype=torch.bool).index_fill_(0, order[:count], False)
    for mask, part in zip(kept, left.split([mask.numel() for mask in kept]), strict=True):
        mask &= part.view_as(mask)
