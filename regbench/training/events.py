"""What an engine reports of its trials while they run."""

from dataclasses import dataclass, field

import torch

from regbench.trial import Trial


@dataclass(frozen=True)
class Started:
    trial: Trial


@dataclass(frozen=True)
class Epoch:
    """The end of an epoch, counted from 1.

    `metrics`: train/loss (cross-entropy, nats), train/objective (with the penalty) and train/accuracy, as seen during
    the epoch; val/loss and val/accuracy after it, if there is a validation part, of the averaged weights if the recipe
    averages them; lr/effective of networks with normalized weights (see normalization.py); time/epoch (seconds).
    """

    trial: Trial
    epoch: int
    metrics: dict[str, float]


@dataclass(frozen=True, eq=False)
class Trained:
    """A training that ended, well or diverged: weights, and logits of the images in the data set's order, on its device.

    `weights` holds buffers too; `parameters` names those that were trained. They and the logits are of the averages if the
    recipe averages weights.

    `diverged` is empty, or says where the loss stopped being finite. `seconds` is its wall time, in a stack its
    share of it. `pruned` is the accuracy on the test images after zeroing a share of the weights (see pruning.curves),
    empty if the weights or what they predict are not finite. `node` is the machine of a cluster that trained it.
    `best_epoch` is that of the best validation accuracy, and `best_logits` what the network of then makes of the test
    images; 0 and None without a validation part. `together` is how many trials were trained as one stack with it.
    """

    trial: Trial
    weights: dict[str, torch.Tensor]
    parameters: tuple[str, ...]
    train_logits: torch.Tensor
    train_labels: torch.Tensor
    test_logits: torch.Tensor
    test_labels: torch.Tensor
    seconds: float
    diverged: str = ""
    pruned: dict[float, float] = field(default_factory=dict)
    node: str = ""
    best_epoch: int = 0
    best_logits: torch.Tensor | None = None
    together: int = 1


@dataclass(frozen=True)
class Failed:
    """A training that raised; `reason` is one line."""

    trial: Trial
    reason: str


Event = Started | Epoch | Trained | Failed
