"""Which networks there are: a packaged one, a module each of this package with its class as NETWORK, or a user's own.

torch is imported where a function needs it, since it takes seconds and a plan needs only the names.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from regbench import importing
from regbench.data.images import SIDE
from regbench.errors import UserError

if TYPE_CHECKING:
    import torch
    from torch import nn

PACKAGED = tuple(
    module.name for module in pkgutil.iter_modules([str(Path(__file__).parent)]) if module.name != "lookup"
)


def find(spec: str) -> Callable[..., nn.Module]:
    """Return the class of a packaged network, or of an import path `pkg.module:Class`.

    Raises UserError if it cannot be imported or is not a torch.nn.Module.
    """
    if spec in PACKAGED:
        return importlib.import_module(f"{__package__}.{spec}").NETWORK
    accepted = f"accepted: {', '.join(PACKAGED)}, or an import path pkg.module:Class"
    found = importing.by_path("model", spec, accepted)
    from torch import nn

    if not (inspect.isclass(found) and issubclass(found, nn.Module)):
        wrap = "; what a function makes goes into a class of your own" if inspect.isroutine(found) else ""
        raise UserError(f"model={spec!r} is not a subclass of torch.nn.Module; {accepted}{wrap}")
    return found


def build(spec: str, num_classes: int) -> nn.Module:
    """Return a new model with weights from torch's current random state.

    `num_classes` is passed to a constructor that takes an argument of this name, or hands it on. Modules that find out
    their sizes by themselves (torch.nn.LazyLinear) have done so. Raises UserError as `find` does.
    """
    import torch
    from torch.nn.parameter import is_lazy

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


def move(model: nn.Module, device: torch.device, dtype: torch.dtype) -> None:
    """Move a model to a device, and its real numbers to float32 or float64."""
    import torch

    model.to(device)
    # `to` with a type would also drop the imaginary parts of complex numbers
    model.double() if dtype == torch.float64 else model.float()


def saved(model: nn.Module) -> dict[str, torch.Tensor]:
    """Return the tensors of a model's state_dict: what it takes to load it back.

    What a module saves by get_extra_state, and is not a tensor, is left out.
    """
    import torch

    return {name: w.detach() for name, w in model.state_dict().items() if isinstance(w, torch.Tensor)}


def _takes_classes(model_class: type) -> object:
    """Return how a constructor takes num_classes, a kind of inspect.Parameter; None if it does not."""
    from torch import nn

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
