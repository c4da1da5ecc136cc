"""Weight averaging: what is evaluated and saved is a moving average of what the steps of a training leave."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

from regbench.trial import Recipe

# per step: half of the average is of the last 34 steps, and 1 / (1 - 0.98) = 50 steps are its mean age; at a batch of 100
# a tenth of an epoch of CIFAR-10, and two and a half of 2,000 images
EMA_DECAY = 0.98
_ema = get_ema_multi_avg_fn(EMA_DECAY)


class Average:
    """The exponential moving average of a network's real numbers, weights and buffers, over the steps of its training.

    average = EMA_DECAY * average + (1 - EMA_DECAY) * now, from what the first step leaves (Polyak and Juditsky, SIAM J.
    Control and Optimization 1992; as torch.optim.swa_utils.AveragedModel). `tensors` are those of the network, by name,
    with or without a leading axis of K trials; training does not see their averages, which are `values`. What is no real
    number, as a count, has none.
    """

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self.values = {name: w.detach().clone() for name, w in tensors.items() if w.is_floating_point()}
        # on the host, since each step asks for it, and a tensor, since it is a part of the state
        self.begun = torch.tensor(False)

    @property
    def state(self) -> dict[str, Tensor]:
        """What a step changes, by name."""
        return {f"average.values.{name}": w for name, w in self.values.items()} | {"average.begun": self.begun}

    @torch.no_grad()
    def update(self, tensors: Mapping[str, Tensor]) -> None:
        """Take in what a step has left. Nothing is read back from the device."""
        now = [tensors[name].detach() for name in self.values]
        if self.begun:
            _ema(list(self.values.values()), now, None)
            return
        for average, w in zip(self.values.values(), now, strict=True):
            average.copy_(w)
        self.begun.fill_(True)

    @torch.no_grad()
    def take_zeros(self, tensors: Mapping[str, Tensor]) -> None:
        """Make zero in the average what is exactly zero now, at the end of an epoch: what is pruned, or shrunk to nothing.

        Else it would come near to zero only, by 2 % a step, and no measure would see the zeros of the weights.
        """
        for name, average in self.values.items():
            average.masked_fill_(tensors[name] == 0, 0)


def begin(recipe: Recipe, tensors: Mapping[str, Tensor]) -> Average | None:
    """Return the average that a recipe asks for, of the tensors of a new network; None for none."""
    return Average(tensors) if recipe.average == "ema" else None
