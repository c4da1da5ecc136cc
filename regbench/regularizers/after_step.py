"""Regularizers that act on the weights after the optimizer's step: shrinkage, decay, and a bound on norms.

`tau` is the effective step in all of them, so that a lam means the same problem as in the method that acts through the
gradient: lr / (1 - momentum) with SGD, whatever the momentum, where with lr in its place it would be the problem of
(1 - momentum) * lam; and with Adam the step of each weight, by which its gradient, the penalty's included, would move it.
A float32 weight does not notice a change below half its last digit, 3e-8 to 6e-8 of it: what is
smaller is lost in a step, and would not add up over steps.
"""

from __future__ import annotations

from regbench.regularizers.base import Regularizer, Tensor
from regbench.regularizers.gradient import L1, WeightDecay


class L1Prox(Regularizer):
    """Penalty lam * sum |w| by its proximal step: w moves towards 0 by tau * lam and stops there, exactly.

    The momentum is that of the cross-entropy alone and is not reset where a weight is 0. Sources: Duchi and Singer,
    JMLR 10, 2009 (forward-backward splitting); Yun, Lozano and Yang, Adaptive Proximal Gradient Methods, NeurIPS 2021.
    """

    name = "l1_prox"
    lams = L1.lams
    elementwise = True

    def after_step(self, p: Tensor, lam: Tensor, tau: float | Tensor) -> None:
        threshold = tau * lam
        p.sub_(p.clamp(-threshold, threshold))  # torch's softshrink takes one threshold for all

    def value(self, p: Tensor, lam: Tensor) -> Tensor:
        return p.abs().flatten(1).sum(1) * lam.flatten()


class DecoupledWeightDecay(Regularizer):
    """Weight decay after the step: w is divided by 1 + tau * lam, nothing is added to gradient or loss.

    Published is the factor 1 - lr * lam on the weights before the step. Dividing is the same to first order and, after
    the step, ends exactly where `weight_decay` at the same lam does; multiplying there would end at that of
    lam / (1 - tau * lam). Published lams are 1 / (1 - momentum) times ours.

    With Adam it is the published one, torch.optim.AdamW: a factor 1 - lr * lam on the weights before the step. That is
    another problem than `weight_decay`: it keeps |w| <= 1 / lam and nothing else. Sources: Loshchilov and Hutter, Decoupled
    Weight Decay Regularization, ICLR 2019; Xie and Li, Implicit Bias of AdamW, ICML 2024.
    """

    name = "decoupled_wd"
    lams = WeightDecay.lams
    elementwise = True

    def before_step(self, p: Tensor, lam: Tensor, lr: float) -> None:
        p.addcmul_(p, lam, value=-lr)

    def after_step(self, p: Tensor, lam: Tensor, tau: float | Tensor) -> None:
        decay = tau * lam
        # w / (1 + decay), without rounding 1 + decay first, by which every weight would be off in the same direction
        p.addcmul_(p, decay / (1 + decay), value=-1)


class ElasticNet(L1Prox):
    """Penalty lam * (alpha * sum |w| + (1 - alpha) / 2 * sum w^2) by its proximal step.

    That is w = soft(w, tau * lam * alpha) / (1 + tau * lam * (1 - alpha)), where soft is the step of `l1_prox`; with
    alpha = 0 it is `decoupled_wd`.
    Source: Zou and Hastie, J. R. Stat. Soc. B 67, 2005; lam and alpha are those of glmnet and scikit-learn's l1_ratio.
    """

    name = "elastic_net"
    alpha = 0.5

    def after_step(self, p: Tensor, lam: Tensor, tau: float | Tensor) -> None:
        super().after_step(p, lam * self.alpha, tau)
        decay = tau * lam * (1 - self.alpha)
        p.addcmul_(p, decay / (1 + decay), value=-1)

    def value(self, p: Tensor, lam: Tensor) -> Tensor:
        weights = p.flatten(1)
        return lam.flatten() * (self.alpha * weights.abs().sum(1) + (1 - self.alpha) / 2 * weights.square().sum(1))


class OutputRows(Regularizer):
    """Base of what treats an output row as one: a convolution's filter, a dense neuron's incoming weights.

    The classifier's rows too, one per class. A bias is not part of its row: biases are 1-d tensors of their own, and
    with scope=all each of their numbers is a row of size 1.
    """

    def norms(self, p: Tensor) -> Tensor:
        """Return the Euclidean norm of each row of p [K, O, ...] as [K, O, 1, ...]."""
        return p.norm(2, dim=tuple(range(2, p.ndim)), keepdim=True) if p.ndim > 2 else p.abs()


class GroupLasso(OutputRows):
    """Penalty lam * sum over rows of sqrt(n) * ||row||, n weights in it, by its proximal step: whole rows become 0.

    That is row * max(0, 1 - tau * lam * sqrt(n) / ||row||). With sqrt(n) a lam acts at the pace of `l1_prox`, and on
    rows of size 1 it is `l1_prox`. The bias is not part of the group, so that a neuron whose row is 0 still gives
    relu(bias); the classifier's groups are its rows too. Sources: Yuan and Lin, J. R. Stat. Soc. B 68, 2006; Wen et
    al., Learning Structured Sparsity in Deep Neural Networks, NIPS 2016.
    """

    name = "group_lasso"
    lams = L1.lams

    def after_step(self, p: Tensor, lam: Tensor, tau: float | Tensor) -> None:
        factor = (1 - tau * lam * p[0, 0].numel() ** 0.5 / self.norms(p)).clamp_(min=0)
        p.mul_(factor.nan_to_num_(nan=1.0))  # 0 / 0: a row of zeros at lam 0, to be left as it is

    def value(self, p: Tensor, lam: Tensor) -> Tensor:
        return self.norms(p).flatten(1).sum(1) * p[0, 0].numel() ** 0.5 * lam.flatten()


class MaxNorm(OutputRows):
    """Constraint ||row|| <= c with lam = 1 / c: a longer row is divided by lam * ||row||, others are left as they are.

    The larger lam, the tighter, as with penalties; tau has no part in it, since a projection has no step size. torch's
    layers start with rows of norm 0.58 (c = 1.7): a lam below that binds only once rows have grown. Sources: Srebro,
    Rennie and Jaakkola, NIPS 2004; Srivastava et al., Dropout, JMLR 15, 2014.
    """

    name = "max_norm"
    lams = (0.33, 0.5, 0.67, 1.0, 1.33, 2.0, 3.0)
    projection = True

    def after_step(self, p: Tensor, lam: Tensor, tau: float | Tensor) -> None:
        excess = lam * self.norms(p)
        p.div_(excess.where(excess > 1, 1.0))  # not clamped, which would keep the NaN of 0 * inf
