"""What a regularizer is: hooks on the gradients and weights of a training step, and on what the network computes.

Everything comes with a leading model axis, p [K, ...]; `lam` is broadcast to the first argument, [K, 1, ...], and is [K]
where there is no other. A row whose lam is 0 must come out bitwise as it was. `tau` is the effective step, by which a
constant gradient moves a weight in the long run. With SGD that is lr / (1 - momentum): what is done after a heavy-ball
step is not amplified by momentum, so it takes tau where a gradient takes lr. With Adam each weight has its own, and tau is
a tensor as p. Random numbers are given, never drawn, so that a seed means the same in a stack of any size.
"""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from torch import Tensor
else:  # torch takes seconds to import, and a plan needs only names and grids
    Tensor = "torch.Tensor"


class Regularizer:
    """Base of all: does nothing. A subclass overrides what it needs and names its grid of lams."""

    name: ClassVar[str]
    lams: ClassVar[tuple[float, ...]]
    # every lam must be less: 1 for shares and probabilities
    lam_upper_bound: ClassVar[float] = math.inf
    # each weight is treated by itself, so that add_grad, after_step and value may be called with any part of p
    elementwise: ClassVar[bool] = False
    # augment returns other targets, which a part of a combination that adds to the loss of the labels would not see
    changes_targets: ClassVar[bool] = False
    # after_step is a projection, which does not go by tau: so it goes with Adam too where it is not elementwise
    projection: ClassVar[bool] = False
    # the hooks are called for one trial at a time, K = 1: for what cannot be done to several at once
    one_by_one: ClassVar[bool] = False

    @classmethod
    def has(cls, hook: str) -> bool:
        """Return whether the class has a hook of this name of its own."""
        return getattr(cls, hook) is not getattr(Regularizer, hook)

    @classmethod
    def acts_on_weights(cls) -> bool:
        """Return whether the class acts on weights, so that a scope matters, and not on what the network computes alone."""
        return any(map(cls.has, ("penalty", "add_grad", "before_step", "after_step", "value", "target_sparsity")))

    @classmethod
    def acts_after_adam(cls) -> bool:
        """Return whether after_step is called with Adam too: it is not where before_step stands in for it."""
        return cls.has("after_step") and not cls.has("before_step")

    @classmethod
    def goes_with_adam(cls) -> bool:
        """Return whether the class goes with an optimizer that has another step for each weight.

        What treats several weights as one and goes by tau has no closed form there: see Yun, Lozano and Yang, NeurIPS 2021.
        """
        return cls.elementwise or cls.projection or not cls.acts_after_adam()

    def penalty(self, w: Tensor) -> Tensor | float:
        """Return the penalty of one network's tensor w, a number. Its gradient is autograd's; lam multiplies both.

        The plain way to write a regularizer: add_grad and value do the same by hand, for K networks at once, and faster.
        """
        return 0.0

    def add_grad(self, p: Tensor, g: Tensor, lam: Tensor) -> None:
        """Add the penalty's gradient at p [K, ...] to g [K, ...], in place, before the optimizer's step."""
        if self.has("penalty"):
            # at lam 0 not even what is not finite
            g.addcmul_(_slopes(self, p).where(lam != 0, 0), lam)

    def before_step(self, p: Tensor, lam: Tensor, lr: float) -> None:
        """Change p [K, ...] in place before Adam's step, in place of after_step; it is not called with other optimizers."""

    def after_step(self, p: Tensor, lam: Tensor, tau: float | Tensor) -> None:
        """Change p [K, ...] in place after the optimizer's step; tau is a number, or with Adam [K, ...]."""

    def value(self, p: Tensor, lam: Tensor) -> Tensor | float:
        """Return the penalty [K] that the method adds to the loss, for logging; 0 if it is not written as one."""
        if self.has("penalty"):
            return _penalties(self, p) * lam.flatten()
        return 0.0

    def add_loss(self, logits: Tensor, labels: Tensor, lam: Tensor) -> Tensor | float:
        """Return what [K] is added to the mean cross-entropy of logits [K, N, C] and labels [K, N]; differentiated."""
        return 0.0

    def dense_input(self, h: Tensor, lam: Tensor, uniform: Tensor) -> Tensor:
        """Return what a dense layer gets in training instead of its input h [K, N, ...]; differentiated.

        `uniform` are random numbers in [0, 1), as many as h.
        """
        return h

    def augment(self, images: Tensor, targets: Tensor, lam: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
        """Return what a network gets in training instead of images [K, N, 3, S, S], and is to answer instead of targets.

        Images are pixels in [0, 1], targets [K, N, C] one-hot labels, for which shares of the classes may come back.
        `uniform` are random numbers in [0, 1), as many as the images. What is not changed is returned as it is.
        """
        return images, targets

    def target_sparsity(self, lam: Tensor, done: float) -> Tensor | float:
        """Return the share [K] of the weights in scope that is zero for good once `done` of the epochs are over, <= 1.

        It is asked before the first step, where `done` is 0, and after each epoch.
        """
        return 0.0

    def importance(self, p: Tensor, uniform: Tensor) -> Tensor:
        """Return the importance of each weight p [K, ...]: those with the least of all layers together are zeroed first.

        `uniform` are random numbers in [0, 1), as many as p.
        """
        return p.abs()


def _slopes(method: Regularizer, p: Tensor) -> Tensor:
    """Return the gradients of a penalty at p [K, ...], as many."""
    import torch

    if not method.one_by_one:
        return torch.func.vmap(torch.func.grad(partial(_number, method)))(p)
    with torch.enable_grad():
        q = p.detach().requires_grad_()
        total = sum(_number(method, w) for w in q)
        return torch.autograd.grad(total, q)[0] if total.requires_grad else torch.zeros_like(p)


def _penalties(method: Regularizer, p: Tensor) -> Tensor:
    """Return the penalties [K] at p [K, ...]."""
    import torch

    if not method.one_by_one:
        return torch.func.vmap(partial(_number, method))(p)
    return torch.stack([_number(method, w) for w in p])


def _number(method: Regularizer, w: Tensor) -> Tensor:
    # a penalty may leave a tensor out by returning 0
    return method.penalty(w) + w.new_zeros(())
