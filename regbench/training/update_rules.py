"""How weights move along their gradients: SGD with momentum, Nesterov's, and Adam, each with the state that it keeps.

Weights are [K, ...] each, and are moved a part of a tensor at a time. Of the numbers on the host a step takes only lr and
constants, so that it can be recorded. A weight without momentum stays, bit for bit, where it is while its gradient is 0:
so does what is pruned.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from regbench.trial import Recipe

BETA2, EPS = 0.999, 1e-8  # of Adam: torch's defaults, which are those of the paper

Part = tuple[slice, ...]


@dataclass(frozen=True)
class Product:
    """A gradient [K, O, I] that is not formed yet: left [K, B, O], transposed, times right [K, B, I]."""

    left: Tensor
    right: Tensor

    def formed(self) -> Tensor:
        """Return the gradient as a tensor of its own."""
        return torch.bmm(self.left.mT, self.right)


class Rule:
    """Base of all: owns the momentum, of which `momentum` is left at each step."""

    # tau is a tensor: the steps differ from weight to weight
    per_weight: ClassVar[bool] = False
    # tensors as large as the weights that a step keeps or makes: the momentum, and a temporary of a hook
    copies: ClassVar[int] = 2

    def __init__(self, weights: Sequence[Tensor], momentum: float) -> None:
        self.momentum = momentum
        self.momenta = [torch.zeros_like(w) for w in weights]

    @property
    def state(self) -> dict[str, Tensor]:
        """What a step changes beside the weights, by name."""
        return {f"momentum.{index}": m for index, m in enumerate(self.momenta)}

    def begin_step(self) -> None:
        """Do what a step does once, before its parts."""

    def gradient(self, index: int, product: Product) -> Tensor:
        """Return the gradient of weight `index` for `move`; what hooks add to it may be added in place."""
        return product.formed()

    def move(self, index: int, part: Part, w: Tensor, g: Tensor, lr: float) -> float | Tensor:
        """Move w, a part of weight `index`, by its gradient g; return the effective step tau.

        That is the factor by which a constant gradient moves the weight in the long run: a number, or a tensor as w.
        """
        raise NotImplementedError


class SGD(Rule):
    """m = momentum * m + g, w -= lr * m: bit for bit torch.optim.SGD.

    A constant g makes m = g / (1 - momentum): tau is lr / (1 - momentum). Source: Sutskever et al., On the Importance of
    Initialization and Momentum in Deep Learning, ICML 2013.
    """

    def gradient(self, index: int, product: Product) -> Tensor:
        # the momentum itself: hooks only ever add to a gradient, so that they may as well add to its sum
        return self.momenta[index].baddbmm_(product.left.mT, product.right, beta=self.momentum)

    def move(self, index: int, part: Part, w: Tensor, g: Tensor, lr: float) -> float:
        m = self.momenta[index][part]
        if not g.is_set_to(m):
            m.mul_(self.momentum).add_(g)
        w.add_(m, alpha=-lr)
        return lr / (1 - self.momentum)


class Nesterov(Rule):
    """m = momentum * m + g, w -= lr * (g + momentum * m), as torch.optim.SGD(nesterov=True).

    A constant g makes m = g / (1 - momentum), which is g + momentum * m: tau is that of SGD. Source: Sutskever et al.,
    ICML 2013.
    """

    def move(self, index: int, part: Part, w: Tensor, g: Tensor, lr: float) -> float:
        m = self.momenta[index][part]
        m.mul_(self.momentum).add_(g)
        w.add_(g, alpha=-lr).add_(m, alpha=-lr * self.momentum)
        return lr / (1 - self.momentum)


class Adam(Rule):
    """w -= lr * m / (sqrt(v) + 1e-8), as torch.optim.Adam: m, v are moving averages of g and of g * g.

    They are by `momentum`, beta1, and by 0.999, and corrected: divided by 1 - beta^t after t steps, so that the weights of
    the averaged gradients add up to 1. A constant g makes m = g: tau is lr / (sqrt(v) + 1e-8), a step of its own for each
    weight, in which beta1 has no part. Sources: Kingma and Ba, Adam, ICLR 2015; of tau, the step of a proximal operator in
    the metric of sqrt(v) + 1e-8, Yun, Lozano and Yang, Adaptive Proximal Gradient Methods, NeurIPS 2021.
    """

    per_weight = True
    copies = 5  # v, tau, and the step too

    def __init__(self, weights: Sequence[Tensor], momentum: float) -> None:
        super().__init__(weights, momentum)
        self.squares = [torch.zeros_like(w) for w in weights]
        # on the device, where a recorded step counts it too
        self.steps = torch.zeros((), dtype=torch.float64, device=weights[0].device)

    @property
    def state(self) -> dict[str, Tensor]:
        return super().state | {f"square.{index}": v for index, v in enumerate(self.squares)} | {"steps": self.steps}

    def begin_step(self) -> None:
        self.steps += 1
        self.correction = 1 / (1 - self.momentum**self.steps)
        self.root = (1 - BETA2**self.steps).sqrt()

    def move(self, index: int, part: Part, w: Tensor, g: Tensor, lr: float) -> Tensor:
        m, v = self.momenta[index][part], self.squares[index][part]
        m.lerp_(g, 1 - self.momentum)
        v.mul_(BETA2).addcmul_(g, g, value=1 - BETA2)
        tau = v.sqrt().div_(self.root).add_(EPS).reciprocal_().mul_(lr)
        w.addcmul_(m * self.correction, tau, value=-1)
        return tau


RULES: dict[str, type[Rule]] = {"sgd": SGD, "nesterov": Nesterov, "adam": Adam}


def begin(recipe: Recipe, weights: Sequence[Tensor]) -> Rule:
    """Return the rule that a recipe asks for, of new weights."""
    return RULES[recipe.optimizer](weights, recipe.momentum)
