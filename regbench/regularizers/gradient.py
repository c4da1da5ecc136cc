"""Regularizers that act through the gradient, as a penalty in the loss would; and none."""

from __future__ import annotations

from regbench.regularizers.base import Regularizer, Tensor


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


class HoyerSquare(Regularizer):
    """Penalty lam * sum over layers of (sum |w|)^2 / sum w^2, which a layer's scale does not change.

    Its gradient 2 * lam * r * sign(w) * (1 - r * |w|), r = sum |w| / sum w^2, pulls what is below 1 / r to zero and
    pushes up what is above; a layer of zeros is left alone. There are no exact zeros: published results prune and
    fine-tune afterwards. Source: Yang, Wen and Li, DeepHoyer, ICLR 2020.
    """

    name = "hoyer_square"
    lams = (1e-8, 3e-8, 1e-7, 3e-7, 1e-6, 3e-6, 1e-5)

    def add_grad(self, p: Tensor, g: Tensor, lam: Tensor) -> None:
        ratio, _ = self._ratio(p)
        ratio = ratio.view(lam.shape)
        g.addcmul_(p.sign() * (1 - ratio * p.abs()), 2 * lam * ratio)

    def value(self, p: Tensor, lam: Tensor) -> Tensor:
        ratio, total = self._ratio(p)
        return lam.flatten() * ratio * total

    def _ratio(self, p: Tensor) -> tuple[Tensor, Tensor]:
        """Return sum |w| / sum w^2, 0 for a row of zeros, and sum |w|, each [K]."""
        total, squares = p.abs().flatten(1).sum(1), p.square().flatten(1).sum(1)
        return (total / squares).where(squares != 0, 0.0), total
