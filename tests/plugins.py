"""Regularizers that tests name by import path: some that work, and one for each rule that can be broken."""

import abc
import functools
import os
import signal
import time
from pathlib import Path
from typing import ClassVar

import numpy as np
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


class Held(L1):
    """Waits in each training after the second of three epochs: makes a file, and goes on once another one exists.

    A test can so act in mid-training, however fast the machine is. Both files, waits-<lam> and goes-<lam>, are in the
    folder HELD_IN; without it nothing waits.
    """

    def target_sparsity(self, lam, done):
        if "HELD_IN" in os.environ and round(3 * done, 6) == 2:
            folder, text = Path(os.environ["HELD_IN"]), f"{lam.max().item():g}"
            (folder / f"waits-{text}").touch()
            deadline = time.monotonic() + 120
            while not (folder / f"goes-{text}").exists():
                assert time.monotonic() < deadline
                time.sleep(0.02)
        return lam.clamp(max=1) * (done == 1)  # a hook has to do something


class KillsStacks(L1):
    """Has its process killed where it has trained with others for two epochs, after the first of which all are kept."""

    def target_sparsity(self, lam, done):
        if len(lam) > 1 and done == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return 0.0


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
    def target_sparsity(self, lam, done):
        return 1.5


class TooManyEarly(OneShot):
    """More than there is in mid-training, and lam at the end."""

    lams = (0.4, 0.6, 0.8)

    def target_sparsity(self, lam, done):
        return lam if done > 0.5 else 2 * lam * (lam > 0.5)


class ColumnLoss(Regularizer):
    """Leaves lam as the column that it is given."""

    def add_loss(self, logits, labels, lam):
        return lam * logits.square().mean((1, 2), keepdim=True)


class RemembersScores(OneShot):
    """By the first weights that it sees."""

    first = None

    def importance(self, p, uniform):
        self.first = p.abs() if self.first is None else self.first
        return self.first


class NormValue(L1):
    """The value is the norm of the whole."""

    def value(self, p, lam):
        return lam.flatten() * p.flatten(1).norm(dim=1)


class PrunesAtZero(Regularizer):
    def target_sparsity(self, lam, done):
        return 0.5


class OtherShape(Regularizer):
    def dense_input(self, h, lam, uniform):
        return h.sum(-1)


class ChangesHidden(Regularizer):
    def dense_input(self, h, lam, uniform):
        return h.mul_(1 - lam)


class CutOff(Regularizer):
    def dense_input(self, h, lam, uniform):
        return h.detach() * (1 - lam)


class DropsAtZero(Regularizer):
    def dense_input(self, h, lam, uniform):
        return h * (uniform > 0.5)


class ImagesAlone(Regularizer):
    def augment(self, images, targets, lam, uniform):
        return images + lam * uniform


class OtherTargets(Regularizer):
    def augment(self, images, targets, lam, uniform):
        return images + lam * uniform, targets.argmax(2)


class BrightensInPlace(Regularizer):
    def augment(self, images, targets, lam, uniform):
        return images.mul_(1 + lam), targets


class LeavesImages(Regularizer):
    def augment(self, images, targets, lam, uniform):
        return images.clone(), targets


class FlipsAtZero(Regularizer):
    def augment(self, images, targets, lam, uniform):
        return images.flip(-1), targets


class MixesTrials(Regularizer):
    """Mixes with images of other trials."""

    def augment(self, images, targets, lam, uniform):
        return images + lam * images.roll(1, 0), targets


class DrawsImages(Regularizer):
    def augment(self, images, targets, lam, uniform):
        return images + lam * images.new_empty(images.shape).normal_(), targets


class Erasing(Regularizer):
    """Hides the right half of the images, as a plug-in with the hook of `cutout`."""

    lams = (0.2, 0.5, 0.9)
    lam_upper_bound = 1.0

    def augment(self, images, targets, lam, uniform):
        hidden = uniform[:, :, :1, :1, :1] < lam
        half = torch.arange(images.shape[-1], device=images.device) >= images.shape[-1] // 2
        return images.masked_fill(hidden & half, 0), targets


class PrunesAndMoves(OneShot):
    """Its after-step moves weights that are 0 too."""

    def after_step(self, p, lam, tau):
        p.add_(tau * lam)


class PenaltyAlone(Regularizer):
    """As one writes it for autograd."""

    def value(self, p, lam):
        return lam.flatten() * p.abs().flatten(1).sum(1)


class SumOfSizes(Regularizer):
    """l1 as most people write it."""

    lams = L1.lams

    def penalty(self, w):
        return w.abs().sum()


class NuclearPenalty(Regularizer):
    """The sum of singular values; what torch.linalg raises for a trial that has diverged is to fail that one alone."""

    one_by_one = True

    def penalty(self, w):
        return torch.linalg.svdvals(w.flatten(1)).sum() if w.ndim > 1 and w.any() else 0.0


class Orthogonal(Regularizer):
    """Rows are to be orthogonal and of length 1."""

    def penalty(self, w):
        rows = w.flatten(1) if w.ndim > 1 else w[:, None]
        return (rows @ rows.T - torch.eye(len(rows), dtype=w.dtype, device=w.device)).square().sum()


class MatricesAlone(Regularizer):
    """Leaves biases out by returning a plain 0."""

    def penalty(self, w):
        return w.square().sum() if w.ndim > 1 else 0


class UnsummedPenalty(Regularizer):
    def penalty(self, w):
        return w.abs()


class ConstantPenalty(Regularizer):
    def penalty(self, w):
        return w.detach().abs().sum()


class NormOfRoot(Regularizer):
    """A norm by its definition, whose slope at 0 autograd takes for 0 / 0."""

    def penalty(self, w):
        return w.square().sum().sqrt()


class OtherGradient(Regularizer):
    """Writes out another gradient than that of its penalty."""

    def penalty(self, w):
        return w.abs().sum()

    def add_grad(self, p, g, lam):
        g.add_(lam * p)


class Misspelt(Regularizer):
    def add_gradient(self, p, g, lam):
        g.add_(lam * p)


class AssignsData(Regularizer):
    def after_step(self, p, lam, tau):
        p.data = p.data * (1 - lam)


class SetsStorage(Regularizer):
    def after_step(self, p, lam, tau):
        p.set_(p * (1 - lam))


class AssignsGradient(L1):
    """Another hook acts, but this one does not."""

    def add_grad(self, p, g, lam):
        g = g + lam * p

    def after_step(self, p, lam, tau):
        p.mul_(1 - tau * lam)


class ReturnsData(Regularizer):
    def add_grad(self, p, g, lam):
        g.data = g + lam * p
        return g.sum()


class Asynchronous(Regularizer):
    async def add_grad(self, p, g, lam):
        g.add_(lam * p)


class Yields(Regularizer):
    def add_grad(self, p, g, lam):
        yield g.add_(lam * p)


class OldName(L1):
    """Has a hook by the name of an earlier version."""

    def hidden(self, h, lam, uniform):
        return h * (1 - lam)


class HookOfInstance(Regularizer):
    def __init__(self):
        self.dense_input = lambda h, lam, uniform: h * (1 - lam)


class Abstract(Regularizer, abc.ABC):
    @abc.abstractmethod
    def force(self, p): ...


class KeywordOnly(Regularizer):
    def add_grad(self, p, g, *, lam):
        g.add_(lam * p)


class FloatOfLam(Regularizer):
    lams = (1e-4, 1e-3)

    def add_grad(self, p, g, lam):
        g.add_(p, alpha=float(lam))


class ConditionOnLam(Regularizer):
    def add_grad(self, p, g, lam):
        if lam > 0:
            g.add_(lam * p)


class ItemOfLam(Regularizer):
    def add_grad(self, p, g, lam):
        g.add_(p, alpha=lam.item())


class WithoutEnabling(PenaltyAlone):
    def add_grad(self, p, g, lam):
        q = p.detach().requires_grad_()
        g.add_(torch.autograd.grad(self.value(q, lam).sum(), q)[0])


class DoubleOnly(Regularizer):
    def add_grad(self, p, g, lam):
        g.add_(lam * (p.flatten(1) @ torch.eye(p[0].numel(), dtype=torch.float64)).view_as(p))


class Elsewhere(Regularizer):
    """Makes a tensor where torch makes them by default, and not where p is."""

    lams = (1e-3,)

    def add_grad(self, p, g, lam):
        g.add_(lam * p + torch.zeros(p.shape, dtype=p.dtype))


class Exits(Regularizer):
    def add_grad(self, p, g, lam):
        raise SystemExit(3)


class SetsSeed(Regularizer):
    def add_grad(self, p, g, lam):
        torch.manual_seed(0)
        g.add_(lam * torch.rand(p.shape[1:], dtype=p.dtype))


class ChangesLam(Regularizer):
    def add_grad(self, p, g, lam):
        g.add_(p * lam.mul_(2))


class Cholesky(Regularizer):
    """Raises for all if one of them is not finite."""

    lams = (1e-3,)

    def add_grad(self, p, g, lam):
        if p.ndim == 3:
            factor = torch.linalg.cholesky(p @ p.mT + torch.eye(p.shape[1], dtype=p.dtype))
            g.add_(lam * torch.linalg.solve(factor, p))


class WrongSign(PenaltyAlone):
    def add_grad(self, p, g, lam):
        g.sub_(lam * p.sign())


class HalfOfIt(PenaltyAlone):
    def add_grad(self, p, g, lam):
        g.add_(lam * p.sign() / 2)


class WrongBeyondOne(Regularizer):
    """Of min(|w|, 1), without the minimum."""

    def add_grad(self, p, g, lam):
        g.add_(lam * p.sign())

    def value(self, p, lam):
        return lam.flatten() * p.abs().clamp(max=1).flatten(1).sum(1)


class WrongSignInNumpy(WrongSign):
    def value(self, p, lam):
        return torch.from_numpy((lam.numpy() * np.abs(p.numpy())).reshape(len(p), -1).sum(1))


class Flattens(Regularizer):
    """Views what it is given as [K, n]."""

    def add_grad(self, p, g, lam):
        g.view(len(p), -1).add_(lam.view(len(p), -1) * p.view(len(p), -1))


class ViewsOfParts(Regularizer):
    """Elementwise, and so called with parts of a tensor, which cannot be viewed as a vector."""

    elementwise = True

    def after_step(self, p, lam, tau):
        p.view(-1).copy_((p * (1 - tau * lam)).flatten())


class ByAutograd(PenaltyAlone):
    lams = (1e-4, 1e-3)

    def add_grad(self, p, g, lam):
        with torch.enable_grad():
            q = p.detach().requires_grad_()
            g.add_(torch.autograd.grad(self.value(q, lam).sum(), q)[0])


class InNumpy(ByAutograd):
    def add_grad(self, p, g, lam):
        g += torch.from_numpy(lam.numpy() * np.sign(p.numpy()))

    @torch.no_grad()
    def value(self, p, lam):
        return torch.from_numpy((lam.numpy() * np.abs(p.numpy())).reshape(len(p), -1).sum(1))


class Reweighted(Regularizer):
    """Its value is differentiated as if the weight of each |w| were fixed."""

    lams = (1e-4, 1e-3)

    def add_grad(self, p, g, lam):
        g.add_(lam * p.sign() / (p.abs() + 0.1))

    def value(self, p, lam):
        return lam.flatten() * (p.abs() / (p.detach().abs() + 0.1)).flatten(1).sum(1)


def _decay(p, lam, tau, power):
    p.data.mul_((1 - tau * lam) ** power)


class Chains(Regularizer):
    """Hooks that are no plain methods; one returns what it changed."""

    lams = np.array([1e-4, 1e-3], dtype=np.float32)

    @staticmethod
    def add_grad(weights, gradient, *rest):
        return gradient.add_(rest[0] * weights)

    def dense_input(self, h, lam, uniform):
        return h * (1 - lam)

    after_step = functools.partial(_decay, power=2)


class LargeOnly(Regularizer):
    def add_grad(self, p, g, lam):
        if p[0].numel() > 1000:
            g.add_(lam * p)


class Box(Regularizer):
    """Acts on no weight of usual size."""

    lams = (0.1,)

    def after_step(self, p, lam, tau):
        bound = 1 / lam.clamp(min=1e-12)
        p.copy_(p.clamp(-bound, bound))


class Nuclear(Regularizer):
    """Penalty lam * sum of singular values, of one network at a time."""

    lams = (1e-4, 1e-3)
    one_by_one = True

    def add_grad(self, p, g, lam):
        if p.ndim > 2:
            left, _, right = torch.linalg.svd(p[0].flatten(1), full_matrices=False)
            g[0].add_((left @ right).view_as(g[0]), alpha=lam.item())

    def value(self, p, lam):
        return lam.item() * torch.linalg.matrix_norm(p[0].flatten(1), "nuc") if p.ndim > 2 else 0.0


class Outer:
    class Inner(L1):
        """Named by a path with a dot behind the colon."""


class AsList(L1):
    lams: ClassVar = [1e-4, 1e-3]


class AsArray(L1):
    lams = np.array([1e-4, 1e-3], dtype=np.float32)


class AsTensor(L1):
    lams = torch.tensor([1e-4, 1e-3])


class AsTexts(L1):
    lams = ("1e-4", "1e-3")


class AsRange(L1):
    lams = range(1, 4)


class AsGenerator(L1):
    lams = (10.0**power for power in (-4, -3))


class AsText(L1):
    lams = "123"


class AsNumber(L1):
    lams = 1e-3


class AsDict(L1):
    lams: ClassVar = {1e-3: "small"}


class AsProperty(L1):
    @property
    def lams(self):
        return (1e-3,)


class Empty(L1):
    lams = ()


class WithZero(L1):
    lams = (0, 1e-3)


class Twice(L1):
    lams = (1e-3, 0.001)


class TooSmall(L1):
    lams = (1e-3, 1e-40)


class BelowText(L1):
    lam_upper_bound = "1"


instance = AsList()


def not_a_class():
    """Found by import path, but no regularizer."""


class Root(Regularizer):
    """Its slope is infinite at 0."""

    lams = (1e-4,)

    def add_grad(self, p, g, lam):
        g.add_(lam * p.sign() / p.abs().sqrt())


class LogScores(OneShot):
    def importance(self, p, uniform):
        return (p.abs() - 0.1).log()


class WritesGrad(Regularizer):
    """As around a torch.optim optimizer."""

    lams = (1e-4,)

    def add_grad(self, p, g, lam):
        p.grad.add_(lam * p)


class RowsOfColumns(Regularizer):
    """Does not think of biases."""

    lams = (1e-4,)

    def add_grad(self, p, g, lam):
        g.add_(lam * p / p.norm(dim=2, keepdim=True).clamp(min=1e-9))


class KeepsMask(Regularizer):
    lams = (0.1,)
    mask = None

    def dense_input(self, h, lam, uniform):
        if self.mask is None:
            self.mask = uniform >= lam
        return h * self.mask if self.mask.shape == h.shape else h


class SmallOnly(Regularizer):
    lams = (1e-2,)
    elementwise = True

    def after_step(self, p, lam, tau):
        if p[0].numel() < 10_000:
            p.div_(1 + tau * lam)


class DrawsHidden(Regularizer):
    lams = (0.1,)

    def dense_input(self, h, lam, uniform):
        return h + lam * torch.randn_like(h)


class Averages(Regularizer):
    """Pulls weights to their former ones."""

    lams = (0.1,)

    def __init__(self):
        self.former = {}

    def after_step(self, p, lam, tau):
        p.lerp_(self.former.get(p.shape, p.clone()), lam)
        self.former[p.shape] = p.clone()


class LargestLam(Regularizer):
    """Prunes a share of each layer, by the largest lam."""

    lams = (0.1, 0.2)

    def after_step(self, p, lam, tau):
        count = int(lam.max() * p[0].numel())
        if count:
            least = p.abs().flatten(1).kthvalue(count, dim=1).values.view(-1, *[1] * (p.ndim - 1))
            p.masked_fill_(p.abs() <= least, 0)


class AlphaOfTau(Regularizer):
    """Goes with one tau for all weights alone."""

    lams = (1e-3,)
    elementwise = True

    def after_step(self, p, lam, tau):
        p.sub_(lam * p, alpha=tau)


class MeanTau(AlphaOfTau):
    """Takes one for all weights where each has its own."""

    def after_step(self, p, lam, tau):
        p.sub_(lam * p * torch.as_tensor(tau).mean())


class NoProjection(AlphaOfTau):
    elementwise = False
    projection = True

    def after_step(self, p, lam, tau):
        p.sub_(tau * lam * p)


class Projects(NoProjection):
    """A projection, which goes with any step."""

    lams = (0.1,)

    def after_step(self, p, lam, tau):
        bound = 1 / lam.clamp(min=1e-12)
        p.copy_(torch.minimum(torch.maximum(p, -bound), bound))


class KeepsItsFirstTau(Regularizer):
    """Would do in every epoch what is right in the first."""

    lams = (1e-3,)
    tau = None

    def after_step(self, p, lam, tau):
        self.tau = self.tau or tau
        p.sub_(self.tau * lam * p)


class WithoutAfterStep(Regularizer):
    """Would do nothing by SGD."""

    lams = (1e-3,)

    def before_step(self, p, lam, lr):
        p.sub_(lr * lam * p)


class BothSteps(WithoutAfterStep):
    """Acts on rows, and has a step for each kind of optimizer."""

    def after_step(self, p, lam, tau):
        p.sub_(tau * lam * p)


class ShrinksAtZero(BothSteps):
    def before_step(self, p, lam, lr):
        p.mul_(1 - lr)


class MixesEarly(BothSteps):
    def before_step(self, p, lam, lr):
        p.sub_(lr * lam * p.mean())


class ReturnsEarly(BothSteps):
    def before_step(self, p, lam, lr):
        return p - lr * lam * p
