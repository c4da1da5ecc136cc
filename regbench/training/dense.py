"""What a regularizer does to the inputs of a network's dense layers."""

import inspect
from collections.abc import Callable

import torch
from torch import Tensor, nn

from regbench import networks
from regbench.data.images import Images
from regbench.errors import UserError
from regbench.training.device_data import pixels
from regbench.training.randomness import initial_model, seeded
from regbench.trial import Recipe


def attach(model: nn.Module, act: Callable[[Tensor], Tensor]) -> None:
    """Have every dense layer (torch.nn.Linear) of `model` take `act` of its input [N, ...] while it trains."""

    def change(layer: nn.Module, args: tuple, named: dict[str, object]):
        if not layer.training:
            return None
        if args:
            return (act(args[0]), *args[1:]), named
        name = next(iter(inspect.signature(layer.forward).parameters))
        return args, named | {name: act(named[name])}

    for layer in layers(model):
        layer.register_forward_pre_hook(change, with_kwargs=True)


def across(act: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """Return `act`, a function of [K, N, ...], as one to be called by each of K networks under torch.func.vmap."""
    return lambda h: _Across.apply(h, act)


def layers(model: nn.Module) -> list[nn.Linear]:
    """Return the dense layers of a network."""
    return [layer for layer in model.modules() if isinstance(layer, nn.Linear)]


def check(recipe: Recipe, data: Images, regularizer: str) -> None:
    """Raise UserError unless the recipe's network calls a dense layer, for a regularizer that acts on their inputs."""
    model = initial_model(recipe.model, len(data.classes), 0)
    called: list[Tensor] = []
    attach(model, lambda h: called.append(h) or h)
    networks.set_mode(model, True)
    with torch.no_grad(), seeded(0):
        model(pixels(torch.from_numpy(data.train_images[: recipe.batch_size])))
    if not called:
        calls = "does not call its" if layers(model) else "has no"
        raise UserError(
            f"model={recipe.model!r} {calls} dense layer (torch.nn.Linear), on the input of which reg={regularizer!r} "
            "could act; take another model, or leave this regularizer out"
        )


class _Across(torch.autograd.Function):
    """The way out of vmap: its rule sees the inputs of all networks, and what it does is differentiated as usual."""

    @staticmethod
    def forward(h: Tensor, act: Callable[[Tensor], Tensor]) -> Tensor:
        raise RuntimeError("to be called under torch.func.vmap")

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        """Keep nothing: the rule below records what it needs."""

    @staticmethod
    def vmap(info, in_dims, h: Tensor, act: Callable[[Tensor], Tensor]) -> tuple[Tensor, int]:
        return act(h.movedim(in_dims[0], 0)), 0
