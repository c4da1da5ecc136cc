"""Regularizers that tests name by import path: some that work, and one for each rule that can be broken."""

import torch

from regbench.regularizers import L1, OneShot, Regularizer


class Log(Regularizer):
    """Penalty lam * sum of log(1 + |w|), as an outsider would write it."""

    lams = (1e-5, 1e-4, 1e-3)

    def add_grad(self, p, g, lam):
        g.add_(lam * p.sign() / (1 + p.abs()))

    def value(self, p, lam):
        return lam.flatten() * p.abs().log1p().flatten(1).sum(1)


class WithoutLams(L1):
    lams = None


class BadLams(L1):
    lams = (1e-3, -1.0)


class RaisesLate(L1):
    """Works in the checks and fails in mid-training, at a step of its second epoch."""

    lams = (1e-3,)
    calls = 0

    def add_grad(self, p, g, lam):
        self.calls += 1
        if self.calls > 70:
            raise ValueError("no more of this")
        super().add_grad(p, g, lam)


class NeedsArgument(L1):
    def __init__(self, alpha):
        self.alpha = alpha


class WrongHook(L1):
    def after_step(self, p, lam):
        pass


class Raises(L1):
    def add_grad(self, p, g, lam):
        raise ValueError("never")


class MatricesOnly(L1):
    def add_grad(self, p, g, lam):
        _k, _rows, _columns = p.shape
        super().add_grad(p, g, lam)


class NotInPlace(Regularizer):
    def after_step(self, p, lam, tau):
        p = p * (1 - tau * lam)


class Returns(Regularizer):
    def after_step(self, p, lam, tau):
        return p * (1 - tau * lam)


class ChangesWeightsEarly(Regularizer):
    def add_grad(self, p, g, lam):
        p.mul_(1 - lam)


class Overwrites(Regularizer):
    def add_grad(self, p, g, lam):
        g.copy_(lam * p)


class SumOfAll(L1):
    def value(self, p, lam):
        return (lam * p.abs()).sum()


class MovesAtZero(Regularizer):
    def after_step(self, p, lam, tau):
        p.mul_(0.9)


class NanAtZero(Regularizer):
    """Divides by the norm of a row; 0 / 0 at a lam of 0 too."""

    def after_step(self, p, lam, tau):
        p.mul_((1 - tau * lam / p.flatten(1).norm(dim=1).view(lam.shape)).clamp(min=0))


class Mixes(Regularizer):
    """Its strength depends on all trials of the stack."""

    def add_grad(self, p, g, lam):
        g.add_(lam * p * p.abs().mean())


class Counts(Regularizer):
    """The more trials, the stronger."""

    def add_grad(self, p, g, lam):
        g.add_(lam * p * len(p))


class NotFiniteAtZero(Regularizer):
    def add_grad(self, p, g, lam):
        g.add_(torch.where(lam > 0, lam / p.abs(), 0))


class Draws(Regularizer):
    def add_grad(self, p, g, lam):
        g.add_(lam * torch.randn(p.shape[1:], dtype=p.dtype))


class SaysElementwise(Regularizer):
    elementwise = True

    def add_grad(self, p, g, lam):
        g.add_(lam * p / p.flatten(1).norm(dim=1).view(lam.shape).clamp(min=1e-9))


class OneLoss(Regularizer):
    def add_loss(self, logits, labels, lam):
        return (lam * logits.square()).mean()


class MixesLogits(Regularizer):
    """Its loss depends on all trials of the stack."""

    def add_loss(self, logits, labels, lam):
        return lam.flatten() * logits.square().mean()


class SmoothsAtZero(Regularizer):
    def add_loss(self, logits, labels, lam):
        return logits.square().mean((1, 2))


class TooMany(Regularizer):
    def share(self, lam, done):
        return 1.5


class TooManyEarly(OneShot):
    """More than there is in mid-training, and lam at the end."""

    lams = (0.4, 0.6, 0.8)

    def share(self, lam, done):
        return lam if done > 0.5 else 2 * lam * (lam > 0.5)


class ColumnLoss(Regularizer):
    """Leaves lam as the column that it is given."""

    def add_loss(self, logits, labels, lam):
        return lam * logits.square().mean((1, 2), keepdim=True)


class RemembersScores(OneShot):
    """By the first weights that it sees."""

    first = None

    def score(self, p, uniform):
        self.first = p.abs() if self.first is None else self.first
        return self.first


class NormValue(L1):
    """The value is the norm of the whole."""

    def value(self, p, lam):
        return lam.flatten() * p.flatten(1).norm(dim=1)


class PrunesAtZero(Regularizer):
    def share(self, lam, done):
        return 0.5


class OtherShape(Regularizer):
    def hidden(self, h, lam, uniform):
        return h.sum(-1)


class ChangesHidden(Regularizer):
    def hidden(self, h, lam, uniform):
        return h.mul_(1 - lam)


class CutOff(Regularizer):
    def hidden(self, h, lam, uniform):
        return h.detach() * (1 - lam)


class DropsAtZero(Regularizer):
    def hidden(self, h, lam, uniform):
        return h * (uniform > 0.5)


class PrunesAndMoves(OneShot):
    """Its after-step moves weights that are 0 too."""

    def after_step(self, p, lam, tau):
        p.add_(tau * lam)


def not_a_class():
    """Found by import path, but no regularizer."""
