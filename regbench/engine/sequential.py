"""The readable reference: one trial after the other."""

import time
from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch.nn import functional as F

from regbench import metrics, models
from regbench.data.images import Images
from regbench.data.split import split
from regbench.engine import checkpoint, dense, precision, pruning
from regbench.engine.checkpoint import Checkpoint, Keeper
from regbench.engine.events import Epoch, Event, Failed, Started, Trained
from regbench.engine.groups import HookRaised
from regbench.engine.randomness import batches, initial_model, noise
from regbench.engine.resident import Resident, pixels
from regbench.engine.step import Update
from regbench.errors import one_line
from regbench.sweep import Trial

ENGINE = "sequential"


class Training:
    """A trial's network and its update. `step` trains on one batch."""

    def __init__(self, trial: Trial, num_classes: int, device: torch.device) -> None:
        self.trial, self.device = trial, device
        self.dtype = precision.dtype(trial.recipe.precision)
        self.model = initial_model(trial.recipe.model, num_classes, trial.seed)
        models.place(self.model, device, self.dtype)
        models.set_mode(self.model, True)
        self.parameters = {name: p for name, p in self.model.named_parameters() if p.requires_grad}
        self.memory = [p.detach() for p in self.parameters.values()]
        self.update = Update([w[None] for w in self.memory], [trial])
        if self.update.hides:
            dense.attach(self.model, lambda h: self.update.hide(h[None])[0])

    def logits(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits [N, C] of images uint8 [N, 3, 32, 32]."""
        with precision.autocast(self.trial.recipe.precision, self.device):
            logits = self.model(pixels(images, self.dtype))
        self._settle()
        return logits.to(self.dtype)

    def _settle(self) -> None:
        """Take back what the network has given other memory in its forward (`w.data = ...`): the update has the old."""
        for p, w in zip(self.parameters.values(), self.memory, strict=True):
            if p.data_ptr() != w.data_ptr():
                w.copy_(p.data)
                p.data = w

    def step(self, images: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Train on one batch; return its mean cross-entropy, its logits [N, C] and the penalty, all before the update.

        Nothing is read back from the device.
        """
        logits = self.logits(images)
        loss = F.cross_entropy(logits, labels)
        added = self.update.added_loss(logits[None], labels[None])
        objective = loss if added is None else loss + added[0]
        gradients = torch.autograd.grad(objective, list(self.parameters.values()), materialize_grads=True)
        # of torch.nn.Embedding(sparse=True)
        gradients = [gradient.to_dense() if gradient.is_sparse else gradient for gradient in gradients]
        (penalty,) = self.update([gradient[None] for gradient in gradients])
        self.check()
        return loss.detach(), logits.detach(), penalty if added is None else penalty + added.detach()[0]

    @property
    def state(self) -> dict[str, torch.Tensor]:
        """All that a step changes, by name."""
        # a state_dict would leave out the buffers that a network does not save
        state = {f"weights.{name}": p.detach() for name, p in self.model.named_parameters()}
        return state | {f"buffers.{name}": b for name, b in self.model.named_buffers()} | self.update.state

    def check(self) -> None:
        """Raise HookRaised if the regularizer has raised."""
        if self.update.failed:
            raise HookRaised(self.update.failed[0].reason)

    def predict(self, images: torch.Tensor, positions: torch.Tensor | None = None) -> torch.Tensor:
        """Return logits [N, C] of `images` (or of those at `positions`) in evaluation mode, a batch at a time."""
        models.set_mode(self.model, False)
        positions = torch.arange(len(images), device=images.device) if positions is None else positions
        # not inference_mode: what a network computes here and keeps could not be used in training
        with torch.no_grad():
            return torch.cat([self.logits(images[part]) for part in positions.split(self.trial.recipe.batch_size)])


def train(trials: Iterable[Trial], resident: Resident, resume: bool = True) -> Iterator[Event]:
    """Train `trials` one by one: Started, an Epoch each, then Trained; or Failed where a trial raises.

    The same trial gives the same weights, bit for bit, on the same machine and number of threads. One that was cut off
    in an earlier process goes on, or with `resume` False begins again.
    """
    for trial in trials:
        if not resume:
            checkpoint.forget(ENGINE, [trial], resident.device)
        yield Started(trial)
        try:
            yield from _train_one(trial, resident)
        except HookRaised as error:
            yield Failed(trial, str(error))
        except Exception as error:  # one trial's failure is a result of the sweep, not its end
            yield Failed(trial, f"{type(error).__name__}: {one_line(error)}")


def seconds_per_step(trial: Trial, data: Images, device: torch.device, budget: float = 0.5) -> float:
    """Return the seconds that a training step of `trial` takes, measured within about `budget` s."""
    size = trial.recipe.batch_size
    with precision.settings(trial.recipe.precision, device), noise(trial.seed, 0, device):
        training = Training(trial, len(data.classes), device)
        training.update.begin(1)
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


def _train_one(trial: Trial, data: Resident) -> Iterator[Event]:
    recipe, begin = trial.recipe, time.perf_counter()
    train_part, val_part = (
        data.index(part) for part in split(data.labels, recipe.train_size, recipe.val_size, trial.seed)
    )
    training = Training(trial, data.num_classes, data.device)
    diverged, history, keeper = "", [], Keeper(ENGINE, [trial], data.device)
    kept = keeper.read()
    if kept and checkpoint.restore(training.state, kept):
        history, begin = list(kept.history[0]), begin - kept.seconds
        for epoch, results in enumerate(history, 1):
            yield Epoch(trial, epoch, results)
    del kept  # as large as the training
    for epoch in range(len(history) + 1, recipe.epochs + 1):
        with precision.settings(recipe.precision, data.device):
            results = train_epoch(training, epoch, data, train_part)
            if len(val_part):
                logits = training.predict(data.train_images, val_part)
                results |= metrics.prefixed("val", metrics.classification(logits, data.train_labels[val_part]))
        history.append(results)
        yield Epoch(trial, epoch, results)
        if not np.isfinite(results["train/loss"]):
            diverged = f"the training loss is {results['train/loss']} in epoch {epoch}"
            break
        if epoch < recipe.epochs:
            seconds = time.perf_counter() - begin
            keeper.offer(Checkpoint((trial,), epoch, seconds, (history,), training.state))
    with precision.settings(recipe.precision, data.device):
        train_logits = training.predict(data.train_images, train_part)
        test_logits = training.predict(data.test_images)
        (pruned,) = [{}] if diverged else pruning.curves(
            {name: p.detach()[None] for name, p in training.parameters.items()},
            test_logits[None],
            lambda: training.predict(data.test_images)[None],
            data.test_labels,
        )  # fmt: skip
    yield Trained(
        trial,
        weights=models.saved(training.model),
        parameters=tuple(training.parameters),
        train_logits=train_logits,
        train_labels=data.train_labels[train_part],
        test_logits=test_logits,
        test_labels=data.test_labels,
        seconds=time.perf_counter() - begin,
        diverged=diverged,
        pruned=pruned,
    )
    keeper.remove()


def train_epoch(training: Training, epoch: int, data: Resident, train_part: torch.Tensor) -> dict[str, float]:
    """Train on the images at `train_part` once; return the metrics of the epoch."""
    start = time.perf_counter()
    trial = training.trial
    models.set_mode(training.model, True)
    training.update.begin(epoch)
    # sums stay on the device and are read once: waiting for it at each step would idle a GPU
    loss_sum, penalty_sum = (torch.zeros((), dtype=torch.float64, device=data.device) for _ in range(2))
    correct = torch.zeros((), dtype=torch.int64, device=data.device)
    with noise(trial.seed, epoch, data.device):
        for positions in batches(len(train_part), trial.recipe.batch_size, trial.seed, epoch):
            chosen = train_part[data.index(positions)]
            labels = data.train_labels[chosen]
            loss, logits, penalty = training.step(data.train_images[chosen], labels)
            loss_sum += loss.double() * len(positions)
            penalty_sum += penalty.double() * len(positions)
            correct += (logits.argmax(1) == labels).sum()
    training.update.end(epoch)
    training.check()
    loss, penalty = loss_sum.item() / len(train_part), penalty_sum.item() / len(train_part)
    return {
        "train/loss": loss,
        "train/accuracy": correct.item() / len(train_part),
        "train/objective": loss + penalty,
        "time/epoch": time.perf_counter() - start,
    }
