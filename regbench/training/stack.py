"""K trials of one recipe, of any regularizers, lams and seeds, in training as one network: a step, an epoch, a result."""

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import reduce
from operator import or_

import numpy as np
import torch
from torch.nn import functional as F

from regbench import networks, regularizers
from regbench.data.images import Images
from regbench.data.split import split
from regbench.errors import one_line
from regbench.training import augment, average, cuda_graph, normalization, precision, scope, stacked_networks
from regbench.training.best import Best
from regbench.training.convolutions import CONVOLUTIONS, fastest_convolution
from regbench.training.device_data import DeviceData, pixels
from regbench.training.events import Trained
from regbench.training.exchange import holding
from regbench.training.optimizer import Optimizer
from regbench.training.randomness import batches
from regbench.trial import Recipe, Trial

# steps before one is recorded: the first ones set up what must not be set up while recording
WARM_UP = 3
log = logging.getLogger(__name__)


class Training:
    """K trials in training: networks, update, and the images that each is trained on and held out, [K, n] positions.

    With `record`, a GPU's steps are recorded and replayed.
    """

    def __init__(self, trials: Sequence[Trial], data: DeviceData, record: bool = False) -> None:
        recipe = trials[0].recipe
        self.trials, self.recipe, self.data = trials, recipe, data
        self.stack = stacked_networks.build(trials, data.num_classes, data.device)
        self.stack.convolve = CONVOLUTIONS[fastest_convolution(recipe, len(trials), data.device)]
        covered = scope.covered(trials, self.stack.model)
        self.optimizer = Optimizer([p.detach() for p in self.stack.parameters.values()], trials, covered)
        self.normalized = normalization.weights_before(self.stack.model, recipe.model, data.num_classes)
        self.average = average.begin(recipe, self.stack.state)
        self.best = Best(self.stack.state) if recipe.val_size else None
        if self.optimizer.changes_dense_inputs:
            self.stack.attach(self.optimizer.dense_input)
        parts = [split(data.labels, recipe.train_size, recipe.val_size, trial.seed) for trial in trials]
        self.train_part, self.val_part = (data.index(np.stack(part)) for part in zip(*parts, strict=True))
        # of losses, penalties and correct answers, kept on the device: waiting for it at each step would idle a GPU
        self.sums = torch.zeros(3, len(trials), dtype=torch.float64, device=data.device)
        self.record, self.recording, self.steps = record, None, 0

    @property
    def state(self) -> dict[str, torch.Tensor]:
        """All that a step changes, by name."""
        tensors = {f"weights.{name}": w for name, w in self.stack.state.items()}
        kept = (part.state for part in (self.average, self.best) if part)
        return reduce(or_, kept, tensors | self.optimizer.state)

    @contextmanager
    def evaluated(self) -> Iterator[None]:
        """Have the networks hold what is evaluated and saved for the block: the averages, if the recipe asks for them."""
        with holding(self.average.values, lambda: self.stack.state) if self.average else nullcontext():
            yield

    @contextmanager
    def at_best(self) -> Iterator[None]:
        """Have the networks hold for the block what was evaluated after their epochs of the best validation accuracy."""
        with holding(self.best.values, lambda: self.stack.state):
            yield

    def keep_best(self, epoch: int, accuracies: Sequence[float]) -> None:
        """Take note of the validation accuracies [K] of what is evaluated, NaN for what has diverged; in `evaluated`."""
        self.best.update(epoch, accuracies, self.stack.state)

    def step(self, images: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Train on a batch [K, N, ...]; return cross-entropies [K], logits [K, N, C], penalties [K], before the update.

        Nothing is read back from the device.
        """
        x, targets = self.optimizer.augment(pixels(images, self.stack.dtype), labels, self.data.num_classes)
        logits = self.stack.forward(x, training=True)
        losses = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none").view(labels.shape).mean(1)
        added = self.optimizer.added_loss(logits, labels, targets)
        penalties = self.optimizer.step(self.stack.gradients((losses if added is None else losses + added).sum()))
        if self.average:
            self.average.update(self.stack.state)
        return losses.detach(), logits.detach(), penalties if added is None else penalties + added.detach()

    def epoch(self, epoch: int) -> list[dict[str, float]]:
        """Train for an epoch; return each trial's metrics. The device is waited for once, at the end."""
        start, count = time.perf_counter(), self.train_part.shape[1]
        self.sums.zero_()
        lr = self.optimizer.lr
        self.optimizer.begin_epoch(epoch)
        if self.optimizer.lr != lr:
            self.recording = None  # it holds the old one
        for chosen in self.order(epoch).split(self.recipe.batch_size, dim=1):
            self.advance(chosen)
        self.optimizer.end_epoch(epoch)
        if self.average:
            self.average.take_zeros(self.stack.state)
        means, rates = (self.sums / count).T.tolist(), self.effective_lr()
        seconds = (time.perf_counter() - start) / len(self.trials)
        return [
            {
                "train/loss": loss,
                "train/accuracy": accuracy,
                "train/objective": loss + penalty,
                **rate,
                "time/epoch": seconds,
            }
            for (loss, penalty, accuracy), rate in zip(means, rates, strict=True)
        ]

    def effective_lr(self) -> list[dict[str, float]]:
        """Return each trial's metric of normalized weights, by its name; empty where there are none."""
        weights = [self.stack.parameters[name] for name in self.normalized]
        if not weights:
            return [{} for _ in self.trials]
        return [
            {normalization.METRIC: rate} for rate in normalization.effective_lr(self.optimizer.lr, weights).tolist()
        ]

    def order(self, epoch: int) -> torch.Tensor:
        """Return an epoch's images in their order, positions [K, n]; with their moves, if any, [K, n, 4]."""
        count, recipe = self.train_part.shape[1], self.recipe
        orders = [np.concatenate(batches(count, recipe.batch_size, trial.seed, epoch)) for trial in self.trials]
        positions = self.train_part.gather(1, self.data.index(np.stack(orders)))
        moves = [augment.moves(recipe, count, trial.seed, epoch) for trial in self.trials]
        if moves[0] is None:
            return positions
        moves = np.stack([some[order] for some, order in zip(moves, orders, strict=True)])
        return torch.cat([positions[:, :, None], self.data.index(moves)], 2)

    def advance(self, chosen: torch.Tensor) -> None:
        """Train on a batch of `order` and add to `sums`, by a recorded step where there is one."""
        if (
            self.record
            and self.recording is None
            and self.steps >= WARM_UP
            and chosen.shape[1] == self.recipe.batch_size
        ):
            self._begin_recording(chosen)
        work = self.recording if self.recording is not None and self.recording.fits(chosen) else self.batch
        work(chosen)
        self.steps += 1

    def _begin_recording(self, chosen: torch.Tensor) -> None:
        try:
            self.recording = cuda_graph.Recording(self.batch, chosen)
        except Exception as error:  # as for want of memory, of which a recording takes more
            self.record = False
            log.warning("steps are not recorded: %s", one_line(error))

    def batch(self, chosen: torch.Tensor) -> None:
        """Train on a batch of `order` and add to `sums`."""
        positions = chosen if chosen.ndim == 2 else chosen[..., 0]
        images, labels = self.data.train_images[positions], self.data.train_labels[positions]
        if chosen.ndim > 2:
            images = augment.flip_crop(images, chosen[..., 1:])
        losses, logits, penalties = self.step(images, labels)
        correct = (logits.argmax(2) == labels).sum(1)
        self.sums += torch.stack([losses.double() * chosen.shape[1], penalties.double() * chosen.shape[1], correct])

    def predict(self, images: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """Return logits [K, N, C] of the images at `positions` [K, N] in evaluation mode, a batch at a time."""
        with torch.no_grad():
            parts = positions.split(self.recipe.batch_size, dim=1)
            return torch.cat([self.stack.logits(images[part], training=False) for part in parts], dim=1)

    def result(
        self,
        row: int,
        logits: Sequence[torch.Tensor | None],
        pruned: dict[float, float],
        seconds: float,
        diverged: str = "",
    ) -> Trained:
        """Return a trial's result; see Trained for `pruned`.

        `logits` [n, C] are of its training images, of the test images, and of these after its best epoch.
        """
        return Trained(
            self.trials[row],
            weights=self.stack.weights(row),
            parameters=tuple(self.stack.parameters),
            train_logits=logits[0],
            train_labels=self.data.train_labels[self.train_part[row]],
            test_logits=logits[1],
            test_labels=self.data.test_labels,
            seconds=seconds / len(self.trials),
            diverged=diverged,
            pruned=pruned,
            best_epoch=int(self.best.epochs[row]) if self.best else 0,
            best_logits=logits[2],
            together=len(self.trials),
        )


def seconds_per_step(trials: Sequence[Trial], data: Images, device: torch.device, budget: float = 0.5) -> float:
    """Return the seconds that a training step takes per trial of a stack, measured within about `budget` s."""
    size, recipe = trials[0].recipe.batch_size, trials[0].recipe
    with precision.settings(recipe.precision, device):
        on_device = DeviceData(data, device)
        training = Training(trials, on_device, recordable(trials, on_device))
        training.optimizer.begin_epoch(1)
        chosen = training.order(1)[:, :size]
        times: list[float] = []
        begin = time.perf_counter()
        while len(times) < WARM_UP + 3 or time.perf_counter() - begin < budget:
            start = time.perf_counter()
            training.advance(chosen)
            training.sums.sum().item()  # waits for the device
            times.append(time.perf_counter() - start)
    return float(np.median(times[WARM_UP + 1 :])) / len(trials)


def recordable(trials: Sequence[Trial], data: DeviceData) -> bool:
    """Return whether the steps of stacks of such trials, of one recipe, are to be recorded.

    They are on a GPU where that is seen to give the same weights, but not with a network or regularizer of the user's,
    which may do on the host what a recording would not do again.
    """
    recipe = trials[0].recipe
    if data.device.type != "cuda" or recipe.model not in networks.PACKAGED:
        return False
    if any(regularizers.is_plugin(name) for name in {trial.regularizer for trial in trials}):
        return False
    with precision.settings(recipe.precision, data.device):
        return faithful(recipe, data)


def faithful(recipe: Recipe, data: DeviceData) -> bool:
    """Return whether four steps of three trials of this recipe, two of them replayed, are what they are without."""
    recipe = replace(recipe, train_size=len(data.labels), val_size=0)
    size = min(recipe.batch_size, len(data.labels) // 4)
    trials = [Trial(recipe, name, lam, 0) for name, lam in (("none", 0.0), ("l1", 1e-5), ("dropout", 0.1))]

    def make():
        training = Training(trials, data)
        return training.batch, [*training.state.values(), training.sums]

    order = Training(trials, data).order(1)[:, : 4 * size]
    return cuda_graph.faithful(make, list(order.split(size, dim=1)))
