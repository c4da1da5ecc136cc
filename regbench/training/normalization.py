"""Normalization layers: which parameters they have, and what they make of the learning rate of the weights before them."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from regbench import importing, networks
from regbench.data.images import SIDE
from regbench.training.randomness import initial_model, seeded

# those of torch.nn that have parameters
LAYERS = (
    nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm, nn.InstanceNorm1d, nn.InstanceNorm2d,
    nn.InstanceNorm3d, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm,
)  # fmt: skip
WEIGHTED = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
METRIC = "lr/effective"


def parameters(model: nn.Module) -> set[str]:
    """Return the names of the weights and biases of a network's normalization layers."""
    own = {id(p) for layer in model.modules() if isinstance(layer, LAYERS) for p in layer.parameters()}
    return {name for name, p in model.named_parameters() if id(p) in own}


def weights_before(model: nn.Module, spec: str, num_classes: int) -> tuple[str, ...]:
    """Return the trained weights of `model` whose layer's output goes into a normalization layer, with nothing between.

    Layers are convolutions and dense ones. See `networks.build` for `spec`.
    """
    if not any(isinstance(layer, LAYERS) for layer in model.modules()):
        return ()
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    return tuple(name for name in _before(spec, num_classes) if name in trained)


@importing.cached
def _before(spec: str, num_classes: int) -> tuple[str, ...]:
    """Return what is seen on a forward pass of a new network in evaluation mode; nothing if it does not run by itself."""
    model = initial_model(spec, num_classes, 0)
    networks.move(model, torch.device("cpu"), torch.float32)
    networks.set_mode(model, False)
    # memory -> the weight by which it was computed; what is freed could be taken for what comes into its place
    made: dict[int, Tensor] = {}
    alive: list[Tensor] = []
    found: set[int] = set()

    def remember(layer: nn.Module, _: object, out: object) -> None:
        if isinstance(out, Tensor):
            alive.append(out)
            made[_memory(out)] = layer.weight

    def look(_: nn.Module, given: tuple) -> None:
        if given and isinstance(given[0], Tensor) and _memory(given[0]) in made:
            found.add(id(made[_memory(given[0])]))

    for layer in model.modules():
        if isinstance(layer, WEIGHTED):
            layer.register_forward_hook(remember)
        elif isinstance(layer, LAYERS):
            layer.register_forward_pre_hook(look)
    try:
        with torch.no_grad(), seeded(0):
            model(torch.zeros(2, 3, SIDE, SIDE))
    except Exception:  # the user's own code, which must not end a training over a metric
        return ()
    return tuple(name for name, p in model.named_parameters() if id(p) in found)


def effective_lr(lr: float, weights: Sequence[Tensor]) -> Tensor:
    """Return the mean over layers of lr / ||w||^2 for each of K trials, [K] float64; `weights` are [K, ...] each.

    A normalized layer computes the same at every scale of its weights, and a step turns them by an angle that goes with
    lr / ||w||^2: a penalty on them acts through that alone. Source: van Laarhoven, L2 Regularization versus Batch and
    Weight Normalization, 2017 (arXiv 1706.05350), section 3.
    """
    norms = [torch.linalg.vector_norm(w.detach().flatten(1), dim=1, dtype=torch.float64) for w in weights]
    return (lr / torch.stack(norms).square()).mean(0)


def _memory(tensor: Tensor) -> int:
    # that of a view is that of what it is a view of: flatten() is nothing between
    return tensor.untyped_storage()._cdata
