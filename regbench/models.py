"""The networks that are trained: the notebook's CNN, or a user's own by import path."""

import inspect
from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F

from regbench import importing
from regbench.data.images import SIDE
from regbench.errors import UserError, one_line
from regbench.sweep import NOTEBOOK


class NotebookCNN(nn.Module):
    """The lecture notebook's network: two convolutions, three dense layers, no normalization; 3,163,114 parameters.

    Input float [N, 3, 32, 32] in [0, 1], output logits [N, num_classes]. Pooling goes before bias and ReLU, which is
    the same function, gradient included, at a quarter of the work.
    """

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, kernel_size=3, padding=1)
        self.conv2 = nn.Conv2d(16, 32, kernel_size=3, padding=1)
        self.l1 = nn.Linear(32 * 8 * 8, 1024)
        self.l2 = nn.Linear(1024, 1024)
        self.l3 = nn.Linear(1024, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.device.type == "cpu":  # its convolutions and its pooling are a quarter faster with channels last
            x = x.contiguous(memory_format=torch.channels_last)
        x = F.relu(_convolve_and_pool(x, self.conv1))
        x = F.relu(_convolve_and_pool(x, self.conv2))
        x = F.relu(self.l1(x.flatten(1)))
        x = F.relu(self.l2(x))
        return self.l3(x)


def _convolve_and_pool(x: torch.Tensor, layer: nn.Conv2d) -> torch.Tensor:
    return F.max_pool2d(F.conv2d(x, layer.weight, padding=1), 2) + layer.bias[:, None, None]


def find(spec: str) -> Callable[..., nn.Module]:
    """Return the class for `notebook` or for an import path `pkg.module:Class`.

    Raises UserError if it cannot be imported or is no torch.nn.Module.
    """
    if spec == NOTEBOOK:
        return NotebookCNN
    accepted = f"accepted: {NOTEBOOK}, or an import path pkg.module:Class"
    found = importing.by_path("model", spec, accepted)
    if not (inspect.isclass(found) and issubclass(found, nn.Module)):
        raise UserError(f"model={spec!r} is not a subclass of torch.nn.Module; {accepted}")
    return found


def build(spec: str, num_classes: int) -> nn.Module:
    """Return a new model with weights from torch's current random state.

    `num_classes` is passed to a constructor that takes an argument of this name. Raises UserError as `find` does.
    """
    model_class = find(spec)
    parameters = inspect.signature(model_class).parameters
    return model_class(num_classes=num_classes) if "num_classes" in parameters else model_class()


def check(spec: str, num_classes: int) -> None:
    """Raise UserError unless the model maps two images [2, 3, 32, 32] to finite logits [2, num_classes]."""
    try:
        with torch.random.fork_rng(devices=[]), torch.inference_mode():
            model = build(spec, num_classes).eval()
            logits = model(torch.zeros(2, 3, SIDE, SIDE))
            shape, finite = tuple(logits.shape), bool(logits.isfinite().all())
    except UserError:
        raise
    except (Exception, SystemExit) as error:  # the user's own code: anything can come out of it
        raise UserError(
            f"model={spec!r} does not run on images [2, 3, {SIDE}, {SIDE}] ({one_line(error)}): its constructor must "
            "take no argument, or num_classes; its forward must take the images and return logits"
        ) from error
    if shape != (2, num_classes):
        raise UserError(
            f"model={spec!r} returns shape {shape} for two images, expected {(2, num_classes)}: logits for "
            f"{num_classes} classes"
        )
    if not finite:
        raise UserError(f"model={spec!r} returns NaN or infinity for two black images; make its first logits finite")
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise UserError(f"model={spec!r} has no trainable parameter; give it some torch.nn.Parameter")
