"""What a regularizer does to the inputs of a network's dense layers."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from regbench import models
from regbench.errors import UserError


def attach(model: nn.Module, act: Callable[[Tensor], Tensor]) -> None:
    """Have every dense layer (torch.nn.Linear) of `model` take `act` of its input [N, ...] while it trains."""

    def change(layer: nn.Module, args: tuple[Tensor, ...], named: dict[str, Tensor]):
        h = args[0] if args else named["input"]
        return ((act(h),), {}) if layer.training else None

    for layer in layers(model):
        layer.register_forward_pre_hook(change, with_kwargs=True)


def across(act: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """Return `act`, a function of [K, N, ...], as one to be called by each of K networks under torch.func.vmap."""
    return lambda h: _Across.apply(h, act)


def layers(model: nn.Module) -> list[nn.Linear]:
    """Return the dense layers of a network."""
    return [layer for layer in model.modules() if isinstance(layer, nn.Linear)]


def check(spec: str, num_classes: int, regularizer: str) -> None:
    """Raise UserError unless the model has a dense layer for a regularizer that acts on the inputs of such."""
    with torch.random.fork_rng(devices=[]):
        model = models.build(spec, num_classes)
    if not layers(model):
        raise UserError(
            f"model={spec!r} has no dense layer (torch.nn.Linear) on which reg={regularizer!r} could act; "
            "take another model, or leave this regularizer out"
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
