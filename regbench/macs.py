"""Multiplications of a network: its name -> multiply-accumulate operations per image, layer by layer."""

import logging
from collections.abc import Mapping
from functools import cache

import torch
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from regbench import models
from regbench.data.images import SIDE
from regbench.errors import one_line

log = logging.getLogger(__name__)
TRANSPOSED = {F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d}
LAYERS = {F.linear, F.conv1d, F.conv2d, F.conv3d} | TRANSPOSED


class _Counter(TorchFunctionMode):
    """Adds up, for each of the named weights, the multiplications of the convolutions and dense layers that take it.

    Functions are watched and modules are not hooked: a network may use a module's weight without calling the module, as
    the notebook's CNN does here. (A dispatch mode would see products of other kinds too, and imports torch's compiler.)
    """

    def __init__(self, weights: Mapping[str, torch.Tensor]) -> None:
        super().__init__()
        self.names = {id(w): name for name, w in weights.items()}
        self.macs: dict[str, int] = {}

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        out = function(*args, **kwargs)
        if function in LAYERS:
            x, weight = (kwargs[name] if name in kwargs else args[i] for i, name in enumerate(("input", "weight")))
            name = self.names.get(id(weight))
            if name is not None:
                # each number that comes out is made with one w[i]; transposed, each that goes in is used with one
                elements = x.numel() if function in TRANSPOSED else out.numel()
                self.macs[name] = self.macs.get(name, 0) + elements * weight[0].numel()
        return out


@cache
def per_image(spec: str, num_classes: int) -> Mapping[str, int]:
    """Return the multiply-accumulate operations per image of each weight tensor of convolutions and dense layers.

    Counted on a forward pass of a new model in evaluation mode, so with the true sizes of outputs; biases are not
    counted. A weight that is computed from others before it is used, or that enters a product other than a convolution
    or dense layer of torch.nn, is left out; all are, where the network does not run by itself on the CPU. See
    `models.build` for `spec`.
    """
    try:
        return _counted(spec, num_classes)
    except Exception as error:  # the user's own code, which must not end the sweep over a number
        log.warning("the multiplications of model=%r are not counted: %s", spec, one_line(error))
        return {}


def _counted(spec: str, num_classes: int) -> Mapping[str, int]:
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        model = models.build(spec, num_classes).eval()
        weights = {name: w for name, w in model.named_parameters() if w.ndim >= 2}
        # two images, for which every model has been checked
        with _Counter(weights) as counter:
            model(torch.zeros(2, 3, SIDE, SIDE))
    return {name: counter.macs[name] // 2 for name in weights if name in counter.macs}
