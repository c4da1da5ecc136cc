"""What a training step does to the weights: the regularizer's gradient, the update rule's step, the after-step.

Weights and gradients have a leading axis of K trials; an engine that trains one alone has K = 1.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from regbench.training import groups, masks, schedule, update_rules
from regbench.training.groups import Group
from regbench.training.update_rules import Product
from regbench.trial import Trial

# weights that a CPU takes at once: they, their gradient and their momentum stay in its cache between the operations
CHUNK = 1 << 18


@dataclass(frozen=True)
class Term:
    """A group's part in a piece: its rows there, lam as [k, 1, ...], and the mask of its weights, if it prunes."""

    group: Group
    rows: slice
    lam: Tensor
    mask: Tensor | None


@dataclass(frozen=True)
class Piece:
    """A part of one weight tensor that is updated in one go."""

    index: tuple[slice, ...]
    terms: tuple[Term, ...]


class Optimizer:
    """The update rule of K trials' weights and the regularizers that act on them, and on what their networks compute.

    `weights` are [K, ...] each and changed in place; `trials` are K of one recipe. `covered` says for each of their scopes
    which of the weights it has (see scope.py); without it "weights" means tensors with ndim >= 2, "all" every one.
    """

    def __init__(
        self, weights: Sequence[Tensor], trials: Sequence[Trial], covered: Mapping[str, Sequence[bool]] | None = None
    ) -> None:
        self.recipe = trials[0].recipe
        self.lr = schedule.lr(self.recipe, 1)
        # a scalar parameter [K] is to hooks as a bias of one number, [K, 1]
        self.weights = [_with_axis(w) for w in weights]
        self.rule = update_rules.begin(self.recipe, self.weights)
        covered = covered or {"weights": [w.ndim > 2 for w in weights], "all": [True for _ in weights]}
        self.groups = list(groups.of(trials, weights[0], covered))
        self.noise = groups.noise(trials, weights[0])
        for group in self.groups:
            group.masks = masks.all_true(group, self.weights)
        self.pieces = [list(self._pieces(index)) for index in range(len(self.weights))]

    @property
    def failed(self) -> list[Group]:
        """The groups whose regularizer raised."""
        return [group for group in self.groups if group.reason]

    @property
    def changes_dense_inputs(self) -> bool:
        """Return whether a regularizer changes the inputs of dense layers."""
        return any(group.acts("dense_input") for group in self.groups)

    @property
    def state(self) -> dict[str, Tensor]:
        """What a step changes beside the weights, by name."""
        state = dict(self.rule.state)
        for number, group in enumerate(self.groups):
            state |= {f"mask.{number}.{index}": mask for index, mask in enumerate(group.masks) if mask is not None}
        return state

    def begin_epoch(self, epoch: int) -> None:
        """Set the learning rate of an epoch and seed its random numbers: those of a trial depend on its seed and the epoch.

        Before the first one, the weights are zeroed that a regularizer prunes at initialization. Nothing of it depends on
        the epochs before, so that a training that was cut off can go on at any.
        """
        self.lr = schedule.lr(self.recipe, epoch)
        for group in (*self.noise, *self.groups):
            group.begin_epoch(epoch)
        if epoch == 1:
            self._prune(0)

    def augment(self, images: Tensor, labels: Tensor, classes: int) -> tuple[Tensor, Tensor | None]:
        """Return what K networks get in training instead of images [K, N, 3, S, S], pixels in [0, 1], changed in place.

        With it come the shares of the classes [K, N, C] that they are to answer in place of labels [K, N], None for the
        labels themselves.
        """
        acting = [group for group in (*self.noise, *self.groups) if group.acts("augment")]
        if not acting:
            return images, None
        targets, changed = F.one_hot(labels, classes).to(images), False
        with torch.no_grad():
            for group in acting:
                pixels, shares = images[group.rows], targets[group.rows]
                uniform = group.streams["augment"].uniform(pixels.shape)
                found = group.call(group.regularizer.augment, pixels, shares, group.column(pixels), uniform)
                if found is not None:
                    changed = changed or found[1] is not shares
                    images[group.rows], targets[group.rows] = found
        return images, targets if changed else None

    def dense_input(self, h: Tensor) -> Tensor:
        """Return what the dense layers of K networks get in training instead of their input h [K, N, ...]."""
        parts = []
        # not sliced, whose gradient would be written into zeros once more
        sizes = [group.rows.stop - group.rows.start for group in self.groups]
        for group, part in zip(self.groups, h.split(sizes) if len(sizes) > 1 else [h], strict=True):
            if group.acts("dense_input"):
                uniform = group.streams["dense_input"].uniform(part.shape)
                found = group.call(group.regularizer.dense_input, part, group.column(part), uniform)
                part = part if found is None else found.to(h)
            parts.append(part)
        return torch.cat(parts) if len(parts) > 1 else parts[0]

    def added_loss(self, logits: Tensor, labels: Tensor, targets: Tensor | None = None) -> Tensor | None:
        """Return what [K] is added to the cross-entropies of logits [K, N, C] and labels [K, N]; None for nothing.

        With targets [K, N, C] in place of labels, by `augment`, that is the difference to the cross-entropies of these too.
        """
        if targets is None and not any(group.acts("add_loss") for group in self.groups):
            return None
        parts = []
        for group in self.groups:
            part = logits[group.rows]
            # made on the device: a copy from the host would be waited for, and cannot be recorded
            total = part.new_zeros(len(part))
            if group.acts("add_loss"):
                value = group.call(group.regularizer.add_loss, part, labels[group.rows], group.column(part))
                total = total if value is None else total + _like(value, part)
            if targets is not None and group.acts("augment"):
                excess = F.one_hot(labels[group.rows], part.shape[2]) - targets[group.rows]
                total = total + (excess * part.log_softmax(2)).sum(2).mean(1)
            parts.append(total)
        return torch.cat(parts)

    def step(self, gradients: Sequence[Tensor | Product]) -> Tensor:
        """Move the weights along their gradients (which are overwritten); return the penalties [K] before the step."""
        penalties = torch.zeros(len(self.weights[0]), dtype=self.weights[0].dtype, device=self.weights[0].device)
        with torch.no_grad():
            self.rule.begin_step()
            gradients = self._to_be_changed(gradients)
            for index, (weight, gradient, pieces) in enumerate(zip(self.weights, gradients, self.pieces, strict=True)):
                if isinstance(gradient, Product):
                    gradient = self.rule.gradient(index, gradient)
                for piece in pieces:
                    w, g = weight[piece.index], gradient[piece.index]
                    for term in piece.terms:
                        self._regularize(term, w, g, penalties[piece.index[0]])
                    tau = self.rule.move(index, piece.index, w, g, self.lr)
                    for term in piece.terms:
                        self._after_step(term, w, tau)
        return penalties

    def end_epoch(self, epoch: int) -> None:
        """Zero the weights that a regularizer prunes after this epoch, and their momentum."""
        self._prune(epoch)

    def _prune(self, epoch: int) -> None:
        with torch.no_grad():
            for group in self.groups:
                if group.acts("target_sparsity"):
                    masks.prune(group, self.weights, self.rule.momenta, epoch, self.recipe.epochs)

    def _to_be_changed(self, gradients: Sequence[Tensor | Product]) -> Iterator[Tensor | Product]:
        """Give the gradients, those that hooks add to as tensors of their own, [K, ...] in plain order.

        Autograd may give one tensor for two weights that are added up, or one that is expanded or in channels-last order.
        """
        owners = Counter(gradient.data_ptr() for gradient in gradients if isinstance(gradient, Tensor))
        for gradient, pieces in zip(gradients, self.pieces, strict=True):
            if isinstance(gradient, Product):
                yield gradient
                continue
            changed = any(piece.terms for piece in pieces)
            own = gradient.is_contiguous() and owners[gradient.data_ptr()] == 1
            yield _with_axis(gradient.clone(memory_format=torch.contiguous_format) if changed and not own else gradient)

    def _regularize(self, term: Term, w: Tensor, g: Tensor, penalties: Tensor) -> None:
        group, rows = term.group, term.rows
        value = group.call(group.regularizer.value, w[rows], term.lam)
        if value is not None:
            penalties[rows] += _like(value, penalties)
        group.call(group.regularizer.add_grad, w[rows], g[rows], term.lam)
        if term.mask is not None:  # the weight is 0 already, and stays so without gradients
            g[rows].mul_(term.mask)
        if self.rule.per_weight:
            group.call(group.regularizer.before_step, w[rows], term.lam, self.lr)

    def _after_step(self, term: Term, w: Tensor, tau: float | Tensor) -> None:
        group, rows = term.group, term.rows
        if not self.rule.per_weight:
            group.call(group.regularizer.after_step, w[rows], term.lam, tau)
        elif group.regularizer.acts_after_adam():
            group.call(group.regularizer.after_step, w[rows], term.lam, tau[rows])
        if term.mask is not None and (group.acts("after_step") or group.acts("before_step")):
            w[rows].mul_(term.mask)

    def _pieces(self, index: int) -> Iterator[Piece]:
        """Split a weight so that no regularizer notices: a CPU takes rows of it one after the other, a GPU all at once.

        A regularizer that is not elementwise gets the whole tensor.
        """
        weight = self.weights[index]
        if not weight.numel():
            return
        if weight.device.type != "cpu":
            covering = [group for group in self.groups if group.covers(index)]
            terms = [Term(group, group.rows, group.column(weight), group.masks[index]) for group in covering]
            yield Piece((slice(None),), tuple(terms))
            return
        for group in self.groups:
            covered, mask = group.covers(index), group.masks[index]
            count = group.rows.stop - group.rows.start
            whole = weight.ndim < 2 or (covered and not group.regularizer.elementwise)
            step = weight[0].numel() if whole else max(1, CHUNK // max(1, count * weight[0, :1].numel()))
            for first in range(0, 1 if whole else weight.shape[1], step):
                part = () if whole else (slice(first, first + step),)
                here = None if mask is None else mask[(slice(None), *part)]
                terms = (Term(group, slice(None), group.column(weight), here),) if covered else ()
                yield Piece((group.rows, *part), terms)


def _with_axis(x: Tensor) -> Tensor:
    return x if x.ndim > 1 else x[:, None]


def _like(value: Tensor | float, other: Tensor) -> Tensor | float:
    return value.to(other) if isinstance(value, Tensor) else value
