"""The readable reference: one trial after the other, data resident on the device, no data loader."""

import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn

from regbench import metrics, regularizers
from regbench.data.images import Images
from regbench.data.split import split
from regbench.engine.events import Epoch, Event, Failed, Started, Trained
from regbench.engine.randomness import batches, initial_model, noise
from regbench.engine.step import Update, pixels, train_step
from regbench.errors import UserError, one_line
from regbench.sweep import Trial

NAME = "sequential"
EVALUATION_BATCH = 1000


class Resident:
    """The data set as tensors on the device: images uint8 [N, 3, 32, 32], labels int64 [N]."""

    def __init__(self, data: Images, device: torch.device) -> None:
        self.device = device
        self.num_classes = len(data.classes)
        self.labels = data.train_labels
        self.train_images, self.train_labels, self.test_images, self.test_labels = (
            torch.from_numpy(np.ascontiguousarray(array)).to(device)
            for array in (data.train_images, data.train_labels, data.test_images, data.test_labels)
        )

    def index(self, positions: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(positions).to(self.device)


def train(trials: Iterable[Trial], data: Images, device: torch.device) -> Iterator[Event]:
    """Train `trials` one by one: Started, an Epoch each, then Trained; or Failed where a trial raises.

    The same trial gives the same weights, bit for bit, on the same machine and number of threads.
    """
    try:
        resident = Resident(data, device)
    except RuntimeError as error:
        raise UserError(
            f"device={str(device)!r} cannot take the data ({one_line(error)}); free it or take device=cpu"
        ) from error
    for trial in trials:
        yield Started(trial)
        try:
            yield from _train_one(trial, resident)
        except Exception as error:  # one trial's failure is a result of the sweep, not its end
            yield Failed(trial, f"{type(error).__name__}: {one_line(error)}")


def seconds_per_image(trial: Trial, data: Images, device: torch.device, budget: float = 0.5) -> float:
    """Return the seconds that training takes per image, measured on some steps of `trial` within about `budget` s."""
    size = trial.recipe.batch_size
    with deterministic(device), noise(trial.seed, 0, device):
        model, update = _prepare(trial, len(data.classes), device)
        images = torch.from_numpy(data.train_images[:size].copy()).to(device)
        labels = torch.from_numpy(data.train_labels[:size].copy()).to(device)
        times: list[float] = []
        begin = time.perf_counter()
        while len(times) < 3 or time.perf_counter() - begin < budget:
            start = time.perf_counter()
            loss, _, _ = train_step(model, update, images, labels)
            loss.item()  # waits for the device
            times.append(time.perf_counter() - start)
    return float(np.median(times[1:])) / len(images)


def _prepare(trial: Trial, num_classes: int, device: torch.device) -> tuple[nn.Module, Update]:
    recipe = trial.recipe
    model = initial_model(recipe.model, num_classes, trial.seed).to(device).train()
    regularizer = regularizers.find(trial.regularizer)()
    return model, Update(model, regularizer, trial.lam, trial.scope, recipe.lr, recipe.momentum)


def _train_one(trial: Trial, data: Resident) -> Iterator[Event]:
    recipe, begin = trial.recipe, time.perf_counter()
    train_part, val_part = (
        data.index(part) for part in split(data.labels, recipe.train_size, recipe.val_size, trial.seed)
    )
    model, update = _prepare(trial, data.num_classes, data.device)
    diverged = ""
    for epoch in range(1, recipe.epochs + 1):
        with deterministic(data.device):
            results = _train_epoch(trial, epoch, data, train_part, model, update)
            if len(val_part):
                logits = predict(model, data.train_images, val_part)
                results |= metrics.prefixed("val", metrics.classification(logits, data.train_labels[val_part]))
        yield Epoch(trial, epoch, results)
        if not np.isfinite(results["train/loss"]):
            diverged = f"the training loss is {results['train/loss']} in epoch {epoch}"
            break
    with deterministic(data.device):
        train_logits = predict(model, data.train_images, train_part).cpu()
        test_logits = predict(model, data.test_images).cpu()
    yield Trained(
        trial,
        weights={name: tensor.detach().to("cpu", copy=True) for name, tensor in model.state_dict().items()},
        parameters=tuple(name for name, parameter in model.named_parameters() if parameter.requires_grad),
        train_logits=train_logits,
        train_labels=data.train_labels[train_part].cpu(),
        test_logits=test_logits,
        test_labels=data.test_labels.cpu(),
        seconds=time.perf_counter() - begin,
        diverged=diverged,
    )


def _train_epoch(
    trial: Trial, epoch: int, data: Resident, train_part: torch.Tensor, model: nn.Module, update: Update
) -> dict[str, float]:
    start = time.perf_counter()
    model.train()
    # sums stay on the device and are read once: waiting for it at each step would idle a GPU
    loss_sum, penalty_sum = (torch.zeros((), dtype=torch.float64, device=data.device) for _ in range(2))
    correct = torch.zeros((), dtype=torch.int64, device=data.device)
    steps = batches(len(train_part), trial.recipe.batch_size, trial.seed, epoch)
    with noise(trial.seed, epoch, data.device):
        for positions in steps:
            chosen = train_part[data.index(positions)]
            labels = data.train_labels[chosen]
            loss, logits, penalty = train_step(model, update, data.train_images[chosen], labels)
            loss_sum += loss.double() * len(positions)
            penalty_sum += penalty.double() * len(positions)
            correct += (logits.argmax(1) == labels).sum()
    loss, penalty = loss_sum.item() / len(train_part), penalty_sum.item() / len(train_part)
    return {
        "train/loss": loss,
        "train/accuracy": correct.item() / len(train_part),
        "train/objective": loss + penalty,
        "time/epoch": time.perf_counter() - start,
    }


def predict(model: nn.Module, images: torch.Tensor, positions: torch.Tensor | None = None) -> torch.Tensor:
    """Return logits [N, C] of `images` uint8 (or of those at `positions`) in evaluation mode."""
    model.eval()
    positions = torch.arange(len(images), device=images.device) if positions is None else positions
    with torch.inference_mode():
        return torch.cat([model(pixels(images[part])) for part in positions.split(EVALUATION_BATCH)])


@contextmanager
def deterministic(device: torch.device) -> Iterator[None]:
    """Have a GPU take deterministic algorithms, convolutions in full float32, for the block; put the settings back.

    On a CPU there is nothing to choose, and the call would import torch's compiler, which takes seconds.
    """
    if device.type != "cuda":
        yield
        return
    # cuBLAS reads it when the first handle is made; the documented value for determinism
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
            yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
