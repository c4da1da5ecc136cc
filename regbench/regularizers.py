"""Regularizers: what each does to gradients and weights in a training step.

A parameter comes with a leading model axis, p [K, ...]; `lam` is broadcast to it, [K, 1, ...]. Every hook works in
place and must leave a row whose lam is 0 bitwise as it was. `tau` is the effective step lr / (1 - momentum): what is
done after a heavy-ball step is not amplified by momentum, so it takes tau where a gradient takes lr.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from regbench.errors import UserError

if TYPE_CHECKING:  # torch takes seconds to import, and a plan needs only names and grids
    from torch import Tensor


class Regularizer:
    """Base of all: does nothing. A subclass overrides what it needs and names its grid of lams."""

    name: ClassVar[str]
    lams: ClassVar[tuple[float, ...]]
    # each weight is treated by itself, so that the hooks may be called with any part of p
    elementwise: ClassVar[bool] = False

    def add_grad(self, p: Tensor, g: Tensor, lam: Tensor) -> None:
        """Add the penalty's gradient at p [K, ...] to g [K, ...], in place, before the optimizer's step."""

    def after_step(self, p: Tensor, lam: Tensor, tau: float) -> None:
        """Change p [K, ...] in place after the optimizer's step."""

    def value(self, p: Tensor, lam: Tensor) -> Tensor | float:
        """Return the penalty [K] that the method adds to the loss, for logging; 0 if it is not written as one."""
        return 0.0


class Unregularized(Regularizer):
    """No regularization: the baseline of every comparison."""

    name = "none"
    lams = (0.0,)
    elementwise = True


class L1(Regularizer):
    """Penalty lam * sum |w| by its subgradient lam * sign(w), sign(0) = 0.

    Small weights end up in a band around zero, not at zero. Source: Tibshirani, J. R. Stat. Soc. B 58, 1996.
    """

    name = "l1"
    lams = (1e-6, 3e-6, 1e-5, 3e-5, 1e-4, 3e-4, 1e-3)
    elementwise = True

    def add_grad(self, p: Tensor, g: Tensor, lam: Tensor) -> None:
        g.addcmul_(p.sign(), lam)

    def value(self, p: Tensor, lam: Tensor) -> Tensor:
        return p.abs().flatten(1).sum(1) * lam.flatten()


class L2(Regularizer):
    """Penalty lam * sum w^2 by its gradient 2 * lam * w; but for rounding the same as `weight_decay` at 2 * lam.

    Source: Goodfellow et al., Deep Learning, 2016, section 7.1.1, whose alpha is 2 * lam.
    """

    name = "l2"
    lams = (1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2)
    elementwise = True

    def add_grad(self, p: Tensor, g: Tensor, lam: Tensor) -> None:
        # product, then sum, each rounded as autograd does for lam * (w ** 2).sum(): bitwise the notebook's path
        g.add_(p * (2 * lam))

    def value(self, p: Tensor, lam: Tensor) -> Tensor:
        return p.square().flatten(1).sum(1) * lam.flatten()


class WeightDecay(Regularizer):
    """The `weight_decay` of torch.optim.SGD: lam * w is added to the gradient, nothing to the loss.

    Source: Krogh and Hertz, A Simple Weight Decay Can Improve Generalization, NIPS 1991.
    """

    name = "weight_decay"
    lams = (1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2)
    elementwise = True

    def add_grad(self, p: Tensor, g: Tensor, lam: Tensor) -> None:
        # multiplied and added in one rounding, as torch.optim.SGD does: bitwise its trajectory
        g.addcmul_(p, lam)


REGISTRY: dict[str, type[Regularizer]] = {cls.name: cls for cls in (Unregularized, L1, L2, WeightDecay)}


def find(name: str) -> type[Regularizer]:
    """Return the regularizer called `name`; raises UserError if there is none."""
    if name not in REGISTRY:
        raise UserError(f"reg={name!r} is unknown; accepted: {', '.join(REGISTRY)}")
    return REGISTRY[name]
