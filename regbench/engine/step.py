"""What a training step does to the weights: the regularizer's gradient, SGD with momentum, the after-step.

Weights, gradients and momentum have a leading axis of K trials; an engine that trains one alone has K = 1.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby

import torch
from torch import Tensor

from regbench import regularizers
from regbench.errors import one_line
from regbench.regularizers import Regularizer
from regbench.sweep import Trial

# weights that a CPU takes at once: they, their gradient and their momentum stay in its cache between the operations
CHUNK = 1 << 18


@dataclass(frozen=True)
class Product:
    """A gradient [K, O, I] that is never formed by itself: left [K, B, O], transposed, times right [K, B, I]."""

    left: Tensor
    right: Tensor


@dataclass
class Group:
    """Neighbouring trials of one regularizer; `reason` is filled when a hook raises, and the hooks are not called again.

    lam is [k].
    """

    rows: slice
    regularizer: Regularizer
    lam: Tensor
    scope: str
    reason: str = ""

    @cached_property
    def idle(self) -> bool:
        """A lam of 0 is no regularization, whatever the method would do at 0."""
        return not self.lam.any().item()

    def covers(self, weight: Tensor) -> bool:
        """Tell whether the group's regularizer acts on this weight [K, ...]."""
        return not self.idle and (self.scope == "all" or weight.ndim > 2)


@dataclass(frozen=True)
class Term:
    """A group's part in a piece: its rows there, lam as [k, 1, ...]."""

    group: Group
    rows: slice
    lam: Tensor


@dataclass(frozen=True)
class Piece:
    """A part of one weight tensor that is updated in one go."""

    index: tuple[slice, ...]
    terms: tuple[Term, ...]


class Update:
    """The momentum of K trials' weights and the regularizers that act on them.

    `weights` are [K, ...] each and changed in place; `trials` are K of one recipe. A trial's `scope` "weights" means
    tensors with ndim >= 2, "all" every one.
    """

    def __init__(self, weights: Sequence[Tensor], trials: Sequence[Trial]) -> None:
        recipe = trials[0].recipe
        self.weights = list(weights)
        self.momenta = [torch.zeros_like(w) for w in weights]
        self.lr, self.momentum = recipe.lr, recipe.momentum
        self.tau = recipe.lr / (1 - recipe.momentum)
        self.groups = list(_groups(trials, weights[0]))
        self.pieces = [list(self._pieces(w)) for w in weights]

    @property
    def failed(self) -> list[Group]:
        """The groups whose regularizer raised."""
        return [group for group in self.groups if group.reason]

    def __call__(self, gradients: Sequence[Tensor | Product]) -> Tensor:
        """Move the weights along their gradients (which are overwritten); return the penalties [K] before the step."""
        penalties = torch.zeros(len(self.weights[0]), dtype=self.weights[0].dtype, device=self.weights[0].device)
        with torch.no_grad():
            for weight, momentum, gradient, pieces in zip(
                self.weights, self.momenta, gradients, self.pieces, strict=True
            ):
                if isinstance(gradient, Product):
                    momentum.baddbmm_(gradient.left.mT, gradient.right, beta=self.momentum)
                for piece in pieces:
                    w, m = weight[piece.index], momentum[piece.index]
                    # a regularizer only ever adds to the gradient, so that it may as well add to the momentum
                    g = m if isinstance(gradient, Product) else gradient[piece.index]
                    for term in piece.terms:
                        self._regularize(term, w, g, penalties[piece.index[0]])
                    if g is not m:
                        m.mul_(self.momentum).add_(g)
                    w.add_(m, alpha=-self.lr)
                    for term in piece.terms:
                        self._call(term, term.group.regularizer.after_step, w[term.rows], term.lam, self.tau)
        return penalties

    def _regularize(self, term: Term, w: Tensor, g: Tensor, penalties: Tensor) -> None:
        regularizer, rows = term.group.regularizer, term.rows
        value = self._call(term, regularizer.value, w[rows], term.lam)
        if value is not None:
            penalties[rows] += value
        self._call(term, regularizer.add_grad, w[rows], g[rows], term.lam)

    def _call(self, term: Term, hook, *args: object):
        """Call a regularizer's hook; what it raises fails its own trials and leaves the others alone."""
        if term.group.reason:
            return None
        try:
            return hook(*args)
        except torch.OutOfMemoryError:  # of the stack, not of this regularizer
            raise
        except Exception as error:
            term.group.reason = f"{type(error).__name__}: {one_line(error)}"
            return None

    def _pieces(self, weight: Tensor) -> Iterator[Piece]:
        """Split a weight so that no regularizer notices: a CPU takes rows of it one after the other, a GPU all at once.

        A regularizer that is not elementwise gets the whole tensor.
        """
        if weight.device.type != "cpu":
            terms = [
                Term(group, group.rows, _column(group.lam, weight)) for group in self.groups if group.covers(weight)
            ]
            yield Piece((slice(None),), tuple(terms))
            return
        for group in self.groups:
            covered = group.covers(weight)
            count = group.rows.stop - group.rows.start
            terms = (Term(group, slice(None), _column(group.lam, weight)),) if covered else ()
            if weight.ndim < 2 or (covered and not group.regularizer.elementwise):
                yield Piece((group.rows,), terms)
                continue
            step = max(1, CHUNK // max(1, count * weight[0, :1].numel()))
            for first in range(0, weight.shape[1], step):
                yield Piece((group.rows, slice(first, first + step)), terms)


def _groups(trials: Sequence[Trial], like: Tensor) -> Iterator[Group]:
    first = 0
    for (name, scope), members in groupby(trials, key=lambda trial: (trial.regularizer, trial.scope)):
        lams = [trial.lam for trial in members]
        lam = torch.tensor(lams, dtype=like.dtype, device=like.device)
        yield Group(slice(first, first + len(lams)), regularizers.find(name)(), lam, scope)
        first += len(lams)


def _column(lam: Tensor, weight: Tensor) -> Tensor:
    return lam.view(-1, *(1,) * (weight.ndim - 1))
