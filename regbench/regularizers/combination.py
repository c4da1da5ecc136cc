"""Several regularizers at once: what their classes do, one after the other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar

from regbench.regularizers.base import Regularizer, Tensor

WEIGHTS = ("add_grad", "before_step", "after_step", "value", "penalty")
# what is answered by one part alone: two would be given the same random numbers, or prune by two rules
ALONE = (("dense_input",), ("augment",), ("target_sparsity", "importance"))


class Combination(Regularizer):
    """Its `parts` in their order, each a class with its own lam, the first without one: that takes the lam of the trial.

    Gradients and losses add up, which is the sum of the penalties; what acts after the step does so in order, which is the
    proximal step of the sum only for some pairs, as `l1_prox+decoupled_wd` (the elastic net, Zou and Hastie 2005).
    """

    parts: ClassVar[tuple[tuple[type[Regularizer], float | None], ...]]

    def __init__(self) -> None:
        self._members = [(cls(), fixed) for cls, fixed in self.parts]

    @classmethod
    def has(cls, hook: str) -> bool:
        return any(part.has(hook) for part, _ in cls.parts)

    @classmethod
    def acts_after_adam(cls) -> bool:
        return any(part.acts_after_adam() for part, _ in cls.parts)

    @classmethod
    def goes_with_adam(cls) -> bool:
        return all(part.goes_with_adam() for part, _ in cls.parts)

    def add_grad(self, p: Tensor, g: Tensor, lam: Tensor) -> None:
        for member, own in self._with_lams(lam):
            member.add_grad(p, g, own)

    def before_step(self, p: Tensor, lam: Tensor, lr: float) -> None:
        for member, own in self._with_lams(lam):
            member.before_step(p, own, lr)

    def after_step(self, p: Tensor, lam: Tensor, tau: float | Tensor) -> None:
        adam = not isinstance(tau, float)
        for member, own in self._with_lams(lam):
            if not adam or member.acts_after_adam():
                member.after_step(p, own, tau)

    def value(self, p: Tensor, lam: Tensor) -> Tensor | float:
        return sum(member.value(p, own) for member, own in self._with_lams(lam))

    def add_loss(self, logits: Tensor, labels: Tensor, lam: Tensor) -> Tensor | float:
        return sum(member.add_loss(logits, labels, own) for member, own in self._with_lams(lam))

    def dense_input(self, h: Tensor, lam: Tensor, uniform: Tensor) -> Tensor:
        for member, own in self._with_lams(lam):
            h = member.dense_input(h, own, uniform)
        return h

    def augment(self, images: Tensor, targets: Tensor, lam: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
        for member, own in self._with_lams(lam):
            images, targets = member.augment(images, targets, own, uniform)
        return images, targets

    def target_sparsity(self, lam: Tensor, done: float) -> Tensor | float:
        return sum(member.target_sparsity(own, done) for member, own in self._with_lams(lam))

    def importance(self, p: Tensor, uniform: Tensor) -> Tensor:
        pruning = (member for member, _ in self._members if member.has("target_sparsity"))
        return next(pruning, self._members[0][0]).importance(p, uniform)

    def _with_lams(self, lam: Tensor) -> Iterator[tuple[Regularizer, Tensor]]:
        for member, fixed in self._members:
            # lam 0 is no regularization, whatever is fixed
            yield member, lam if fixed is None else lam.new_full((), fixed).where(lam != 0, 0)


def combine(name: str, parts: Sequence[tuple[type[Regularizer], float | None]]) -> type[Combination]:
    """Return the class of a combination; raises ValueError for one in which two parts would be at the same thing."""
    classes = [cls for cls, _ in parts]
    for hooks in ALONE:
        if len([cls for cls in classes if any(map(cls.has, hooks))]) > 1:
            raise ValueError(f"more than one of its parts has {hooks[0]}")
    if any(cls.changes_targets for cls in classes) and any(cls.has("add_loss") for cls in classes):
        raise ValueError("one of its parts changes the labels to which another adds a loss")
    swept = classes[0]
    return type(
        "Combination",
        (Combination,),
        {
            "name": name,
            "__doc__": " ".join(cls.__doc__ or "" for cls in classes),
            "parts": tuple(parts),
            "lams": getattr(swept, "lams", None),
            "lam_upper_bound": swept.lam_upper_bound,
            "elementwise": all(cls.elementwise for cls in classes if any(map(cls.has, WEIGHTS))),
            "changes_targets": any(cls.changes_targets for cls in classes),
            "one_by_one": any(cls.one_by_one for cls in classes),
        },
    )
