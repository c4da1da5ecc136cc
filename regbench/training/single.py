"""One trial in training: its network, its optimizer, a step, an epoch. The readable reference."""

import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import reduce
from operator import or_

import numpy as np
import torch
from torch.nn import functional as F

from regbench import networks
from regbench.data.images import Images
from regbench.training import augment, average, dense, normalization, precision, scope
from regbench.training.best import Best
from regbench.training.device_data import DeviceData, pixels
from regbench.training.exchange import holding
from regbench.training.groups import HookRaised
from regbench.training.optimizer import Optimizer
from regbench.training.randomness import batches, initial_model, noise
from regbench.trial import Trial


class Training:
    """A trial's network and its update. `step` trains on one batch."""

    def __init__(self, trial: Trial, num_classes: int, device: torch.device) -> None:
        self.trial, self.num_classes, self.device = trial, num_classes, device
        self.dtype = precision.dtype(trial.recipe.precision)
        self.model = initial_model(trial.recipe.model, num_classes, trial.seed)
        networks.move(self.model, device, self.dtype)
        networks.set_mode(self.model, True)
        self.parameters = {name: p for name, p in self.model.named_parameters() if p.requires_grad}
        self.storage = [p.detach() for p in self.parameters.values()]
        self.optimizer = Optimizer([w[None] for w in self.storage], [trial], scope.covered([trial], self.model))
        self.normalized = normalization.weights_before(self.model, trial.recipe.model, num_classes)
        self.average = average.begin(trial.recipe, self.tensors)
        self.best = Best({name: w[None] for name, w in self.tensors.items()}) if trial.recipe.val_size else None
        if self.optimizer.changes_dense_inputs:
            dense.attach(self.model, lambda h: self.optimizer.dense_input(h[None]).squeeze(0))

    def logits(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits [N, C] of images uint8 [N, 3, 32, 32]."""
        return self.forward(pixels(images, self.dtype))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits [N, C] of pixels in [0, 1] [N, 3, 32, 32]."""
        with precision.autocast(self.trial.recipe.precision, self.device):
            logits = self.model(x)
        self._restore_storage()
        return logits.to(self.dtype)

    def _restore_storage(self) -> None:
        """Take back what the network has given other memory in its forward (`w.data = ...`): the update has the old."""
        for p, w in zip(self.parameters.values(), self.storage, strict=True):
            if p.data_ptr() != w.data_ptr():
                w.copy_(p.data)
                p.data = w

    def step(self, images: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Train on one batch; return its mean cross-entropy, its logits [N, C] and the penalty, all before the update.

        Nothing is read back from the device.
        """
        x, targets = self.optimizer.augment(pixels(images, self.dtype)[None], labels[None], self.num_classes)
        logits = self.forward(x[0])
        loss = F.cross_entropy(logits, labels)
        added = self.optimizer.added_loss(logits[None], labels[None], targets)
        objective = loss if added is None else loss + added[0]
        gradients = torch.autograd.grad(objective, list(self.parameters.values()), materialize_grads=True)
        # of torch.nn.Embedding(sparse=True)
        gradients = [gradient.to_dense() if gradient.is_sparse else gradient for gradient in gradients]
        (penalty,) = self.optimizer.step([gradient[None] for gradient in gradients])
        self.check()
        if self.average:
            self.average.update(self.tensors)
        return loss.detach(), logits.detach(), penalty if added is None else penalty + added.detach()[0]

    @property
    def tensors(self) -> dict[str, torch.Tensor]:
        """The network's parameters and buffers, by name."""
        # a state_dict would leave out the buffers that a network does not save
        tensors = {f"weights.{name}": p.detach() for name, p in self.model.named_parameters()}
        return tensors | {f"buffers.{name}": b for name, b in self.model.named_buffers()}

    @property
    def state(self) -> dict[str, torch.Tensor]:
        """All that a step changes, by name."""
        kept = (part.state for part in (self.average, self.best) if part)
        return reduce(or_, kept, self.tensors | self.optimizer.state)

    @property
    def weights(self) -> dict[str, torch.Tensor]:
        """Copies of the tensors that the network saves."""
        return {name: w.clone() for name, w in networks.saved(self.model).items()}

    @contextmanager
    def evaluated(self) -> Iterator[None]:
        """Have the network hold what is evaluated and saved for the block: the averages, if the recipe asks for them."""
        with self._holding(self.average.values) if self.average else nullcontext():
            yield

    @contextmanager
    def at_best(self) -> Iterator[None]:
        """Have the network hold for the block what was evaluated after the epoch of the best validation accuracy."""
        networks.set_mode(self.model, True)
        with self._holding({name: w[0] for name, w in self.best.values.items()}):
            yield

    def _holding(self, values: Mapping[str, torch.Tensor]) -> AbstractContextManager:
        # what some networks do to their weights in evaluation mode is undone on the weights to which it was done
        return holding(values, lambda: self.tensors, lambda: networks.set_mode(self.model, True))

    def keep_best(self, epoch: int, accuracy: float) -> None:
        """Take note of the validation accuracy of what is evaluated, NaN if it has diverged; in `evaluated`."""
        networks.set_mode(self.model, True)  # some change their weights for evaluation
        self.best.update(epoch, [accuracy], {name: w[None] for name, w in self.tensors.items()})

    def end_epoch(self, epoch: int) -> None:
        """Prune what a regularizer wants to be pruned after this epoch."""
        self.optimizer.end_epoch(epoch)
        if self.average:
            self.average.take_zeros(self.tensors)

    def effective_lr(self) -> dict[str, float]:
        """Return the metric of normalized weights, by its name; empty where there are none."""
        weights = [self.parameters[name].detach()[None] for name in self.normalized]
        return {normalization.METRIC: normalization.effective_lr(self.optimizer.lr, weights).item()} if weights else {}

    def check(self) -> None:
        """Raise HookRaised if the regularizer has raised."""
        if self.optimizer.failed:
            raise HookRaised(self.optimizer.failed[0].reason)

    def predict(self, images: torch.Tensor, positions: torch.Tensor | None = None) -> torch.Tensor:
        """Return logits [N, C] of `images` (or of those at `positions`) in evaluation mode, a batch at a time."""
        networks.set_mode(self.model, False)
        positions = torch.arange(len(images), device=images.device) if positions is None else positions
        # not inference_mode: what a network computes here and keeps could not be used in training
        with torch.no_grad():
            return torch.cat([self.logits(images[part]) for part in positions.split(self.trial.recipe.batch_size)])


def train_epoch(training: Training, epoch: int, data: DeviceData, train_part: torch.Tensor) -> dict[str, float]:
    """Train on the images at `train_part` once; return the metrics of the epoch."""
    start = time.perf_counter()
    trial = training.trial
    networks.set_mode(training.model, True)
    training.optimizer.begin_epoch(epoch)
    # sums stay on the device and are read once: waiting for it at each step would idle a GPU
    loss_sum, penalty_sum = (torch.zeros((), dtype=torch.float64, device=data.device) for _ in range(2))
    correct = torch.zeros((), dtype=torch.int64, device=data.device)
    moves = augment.moves(trial.recipe, len(train_part), trial.seed, epoch)
    with noise(trial.seed, epoch, data.device):
        for positions in batches(len(train_part), trial.recipe.batch_size, trial.seed, epoch):
            chosen = train_part[data.index(positions)]
            images, labels = data.train_images[chosen], data.train_labels[chosen]
            if moves is not None:
                images = augment.flip_crop(images, data.index(moves[positions]))
            loss, logits, penalty = training.step(images, labels)
            loss_sum += loss.double() * len(positions)
            penalty_sum += penalty.double() * len(positions)
            correct += (logits.argmax(1) == labels).sum()
    training.end_epoch(epoch)
    training.check()
    loss, penalty = loss_sum.item() / len(train_part), penalty_sum.item() / len(train_part)
    return {
        "train/loss": loss,
        "train/accuracy": correct.item() / len(train_part),
        "train/objective": loss + penalty,
        **training.effective_lr(),
        "time/epoch": time.perf_counter() - start,
    }


def seconds_per_step(trial: Trial, data: Images, device: torch.device, budget: float = 0.5) -> float:
    """Return the seconds that a training step of `trial` takes, measured within about `budget` s."""
    size = trial.recipe.batch_size
    with precision.settings(trial.recipe.precision, device), noise(trial.seed, 0, device):
        training = Training(trial, len(data.classes), device)
        training.optimizer.begin_epoch(1)
        images = torch.from_numpy(data.train_images[:size].copy()).to(device)
        labels = torch.from_numpy(data.train_labels[:size].copy()).to(device)
        times: list[float] = []
        begin = time.perf_counter()
        while len(times) < 3 or time.perf_counter() - begin < budget:
            start = time.perf_counter()
            loss, _, _ = training.step(images, labels)
            loss.item()  # waits for the device
            times.append(time.perf_counter() - start)
    return float(np.median(times[1:])) * size / len(images)
