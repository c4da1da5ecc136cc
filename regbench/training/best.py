"""Early stopping without stopping: what each trial's networks were after their best epoch on the validation part."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor


class Best:
    """The tensors of K networks after the epoch of their best validation accuracy, the first of equals.

    `values` are name -> [K, ...], `epochs` int64 [K], counted from 1, 0 before the first. Training goes on and does not
    see it, so that one training tells both what its end and what early stopping gives (Goodfellow et al., Deep Learning,
    2016, algorithm 7.1, with all epochs for its patience). The test images have no part in it.
    """

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self.values = {name: w.detach().clone() for name, w in tensors.items()}
        count = len(next(iter(self.values.values())))
        self.epochs, self.accuracies = torch.zeros(count, dtype=torch.int64), torch.zeros(count, dtype=torch.float64)

    @property
    def state(self) -> dict[str, Tensor]:
        """What an epoch changes, by name."""
        values = {f"best.values.{name}": w for name, w in self.values.items()}
        return values | {"best.epochs": self.epochs, "best.accuracies": self.accuracies}

    @torch.no_grad()
    def update(self, epoch: int, accuracies: Sequence[float], tensors: Mapping[str, Tensor]) -> None:
        """Keep the networks whose validation accuracy [K] is better than before; NaN is that of one that has diverged."""
        for row, accuracy in enumerate(accuracies):
            if accuracy > self.accuracies[row] or (self.epochs[row] == 0 and accuracy == 0):
                self.epochs[row], self.accuracies[row] = epoch, accuracy
                for name, best in self.values.items():
                    best[row].copy_(tensors[name][row])
