"""One training step: gradient of the cross-entropy, the regularizer's own, SGD with momentum, the after-step."""

import torch
from torch import nn
from torch.nn import functional as F

from regbench.regularizers import Regularizer


def pixels(images: torch.Tensor) -> torch.Tensor:
    """Return uint8 images as float32 in [0, 1]."""
    return images.to(torch.float32).div_(255)


class Update:
    """The model's weights, their momentum and the regularizer that acts on those in scope.

    scope "weights" takes tensors with ndim >= 2, "all" takes every trainable one.
    """

    def __init__(
        self, model: nn.Module, regularizer: Regularizer, lam: float, scope: str, lr: float, momentum: float
    ) -> None:
        parameters = [p for p in model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.SGD(parameters, lr=lr, momentum=momentum)
        self.regularizer = regularizer
        self.tau = lr / (1 - momentum)
        # a lam of 0 is no regularization, whatever the method would do at 0
        self.scope = [p for p in parameters if lam != 0 and (scope == "all" or p.ndim >= 2)]
        self.lams = [torch.full((1,) * (p.ndim + 1), lam, dtype=p.dtype, device=p.device) for p in self.scope]

    def penalty(self) -> torch.Tensor:
        """Return what the method adds to the loss at the present weights, a scalar."""
        with torch.no_grad():
            values = (self.regularizer.value(p[None], lam) for p, lam in zip(self.scope, self.lams, strict=True))
            return torch.as_tensor(sum(values, start=0.0)).sum()

    def __call__(self) -> None:
        """Move the weights along their gradients."""
        with torch.no_grad():
            for p, lam in zip(self.scope, self.lams, strict=True):
                if p.grad is None:  # a weight that this loss did not touch is still regularized
                    p.grad = torch.zeros_like(p)
                self.regularizer.add_grad(p[None], p.grad[None], lam)
            self.optimizer.step()
            for p, lam in zip(self.scope, self.lams, strict=True):
                self.regularizer.after_step(p[None], lam, self.tau)


def train_step(
    model: nn.Module, update: Update, images: torch.Tensor, labels: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Train on one batch, images uint8 [N, 3, 32, 32]; return its mean cross-entropy, logits [N, C] and the penalty.

    All three are from before the update; nothing is read back from the device.
    """
    update.optimizer.zero_grad()
    logits = model(pixels(images))
    loss = F.cross_entropy(logits, labels)
    loss.backward()
    penalty = update.penalty()
    update()
    return loss.detach(), logits.detach(), penalty
