"""Networks that tests name by import path: small ones, and some with a mistake."""

import torch
from torch import nn


class Tiny(nn.Module):
    """A few thousand weights, so that a sweep takes seconds."""

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(4), nn.Flatten())
        self.out = nn.Linear(4 * 8 * 8, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.body(x))


class Dense(nn.Module):
    """A few hundred weights without a convolution, for many short trainings."""

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.AvgPool2d(8), nn.Flatten(), nn.Linear(48, 8), nn.ReLU())
        self.out = nn.Linear(8, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.body(x))


class Noisy(Tiny):
    """Draws random numbers while it trains and keeps running statistics."""

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__(num_classes)
        self.body.append(nn.BatchNorm1d(4 * 8 * 8))
        self.body.append(nn.Dropout(0.5))


class FiveClasses(Tiny):
    def __init__(self) -> None:
        super().__init__(5)


class RaisesInTraining(Tiny):
    """Works in evaluation."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            raise RuntimeError("no training today")
        return super().forward(x)


class RaisesLater(Tiny):
    """Works for longer than the check before training lasts."""

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__(num_classes)
        self.register_buffer("steps", torch.tensor(0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.steps += self.training
        if self.steps > 20:
            raise RuntimeError("no training today")
        return super().forward(x)


class NeedsArgument(Tiny):
    def __init__(self, width: int) -> None:
        super().__init__(width)


def not_a_class() -> None:
    """Found by import path, but no network."""


class Normalized(Tiny):
    """Keeps running statistics, but draws no random numbers."""

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__(num_classes)
        self.body.append(nn.BatchNorm1d(4 * 8 * 8))


class Convolutions(nn.Module):
    """Has no dense layer."""

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        self.body = nn.Conv2d(3, num_classes, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(x).mean((2, 3))


class Centred(Tiny):
    """Subtracts a running mean that it does not save."""

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__(num_classes)
        self.register_buffer("mean", torch.zeros(4 * 8 * 8), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.body(x)
        if self.training:
            self.mean.lerp_(h.detach().mean(0), 0.1)
        return self.out(h - self.mean)


class Merges(nn.Module):
    """Its weight is changed for evaluation and back for training, as adapters of low rank are merged into theirs."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(num_classes, 48) / 7)
        self.shift = nn.Parameter(torch.randn(num_classes, 48) / 7)
        self.merged = False

    def train(self, mode: bool = True) -> "Merges":
        super().train(mode)
        if self.merged is mode:
            with torch.no_grad():
                self.weight.add_(self.shift, alpha=-1.0 if mode else 1.0)
            self.merged = not mode
        return self

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight = self.weight if self.merged else self.weight + self.shift
        return nn.functional.adaptive_avg_pool2d(x, 4).flatten(1) @ weight.T


class FreezesInTraining(Tiny):
    """Its convolution is not trained, which it says by train()."""

    def train(self, mode: bool = True) -> "FreezesInTraining":
        super().train(mode)
        self.body.requires_grad_(not mode)
        return self


class Branches(Tiny):
    """What it computes depends on the numbers in a batch, which no graph can have."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) if x.sum() > 0 else super().forward(-x)
