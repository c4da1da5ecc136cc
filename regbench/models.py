"""The networks that are trained: the notebook's CNN, or a user's own by import path."""

import inspect
from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.parameter import is_lazy

from regbench import importing
from regbench.data.images import SIDE
from regbench.errors import UserError
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
        wrap = "; what a function makes goes into a class of your own" if inspect.isroutine(found) else ""
        raise UserError(f"model={spec!r} is not a subclass of torch.nn.Module; {accepted}{wrap}")
    return found


def build(spec: str, num_classes: int) -> nn.Module:
    """Return a new model with weights from torch's current random state.

    `num_classes` is passed to a constructor that takes an argument of this name, or hands it on. Modules that find out
    their sizes by themselves (torch.nn.LazyLinear) have done so. Raises UserError as `find` does.
    """
    model_class = find(spec)
    kind = _takes_classes(model_class)
    with importing.settings_kept():
        if kind == inspect.Parameter.POSITIONAL_ONLY:
            model = model_class(num_classes)
        else:
            model = model_class(num_classes=num_classes) if kind is not None else model_class()
    if any(is_lazy(tensor) for tensor in (*model.parameters(), *model.buffers())):
        training = model.training
        # in evaluation, so that no running statistics begin with these images
        set_mode(model, False)
        with torch.no_grad():
            model(torch.zeros(2, 3, SIDE, SIDE))
        set_mode(model, training)
    return model


def set_mode(model: nn.Module, training: bool) -> None:
    """Put a model in training or evaluation mode, by its own methods, whatever they return."""
    model.train() if training else model.eval()


def place(model: nn.Module, device: torch.device, dtype: torch.dtype) -> None:
    """Move a model to a device, and its real numbers to float32 or float64."""
    model.to(device)
    # `to` with a type would also drop the imaginary parts of complex numbers
    model.double() if dtype == torch.float64 else model.float()


def saved(model: nn.Module) -> dict[str, torch.Tensor]:
    """Return the tensors of a model's state_dict: what it takes to load it back.

    What a module saves by get_extra_state, and is no tensor, is left out.
    """
    return {name: w.detach() for name, w in model.state_dict().items() if isinstance(w, torch.Tensor)}


def _takes_classes(model_class: type) -> object:
    """Return how a constructor takes num_classes, a kind of inspect.Parameter; None if it does not."""
    for base in model_class.__mro__:
        if "__init__" not in vars(base):
            continue
        parameters = inspect.signature(base.__init__).parameters
        if "num_classes" in parameters:
            return parameters["num_classes"].kind
        if not any(parameter.kind == inspect.Parameter.VAR_KEYWORD for parameter in parameters.values()):
            return None
        if base is nn.Module:
            return None
    return None
