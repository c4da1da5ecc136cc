"""A trial's training without tracking, for measurements that need its accuracies alone."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
from joblib import Parallel, delayed

from benchmarks import pages
from regbench.data.images import Images
from regbench.data.split import split
from regbench.measures.logits import classification
from regbench.training.device_data import DeviceData
from regbench.training.single import Training, train_epoch
from regbench.trial import Trial


@dataclass(frozen=True)
class Accuracies:
    """How a training ended, as `regbench.stages` asks for it."""

    metrics: dict[str, float]
    status: str = "ok"


def train(trial: Trial, images: DeviceData) -> Accuracies:
    """Train a trial; return its accuracies on its validation images, if it holds any out, and on the test images."""
    recipe = trial.recipe
    train_part, val_part = map(images.index, split(images.labels, recipe.train_size, recipe.val_size, trial.seed))
    training = Training(trial, images.num_classes, images.device)
    for epoch in range(1, recipe.epochs + 1):
        train_epoch(training, epoch, images, train_part)
    metrics = {}
    with training.evaluated():
        if recipe.val_size:
            found = classification(training.predict(images.train_images, val_part), images.train_labels[val_part])
            metrics["val/accuracy"] = found["accuracy"]
        found = classification(training.predict(images.test_images), images.test_labels)
    return Accuracies(metrics | {"test/accuracy": found["accuracy"]})


def test_accuracies(
    trials: Sequence[Trial],
    columns: Sequence[str],
    cell: Callable[[Trial], tuple],
    images: Images,
    place: Path,
    jobs: int,
) -> pd.DataFrame:
    """Return a row per trial: what names it, its `cell` in `columns`, and its test accuracy.

    What an earlier run has left in `place` is not trained again; the others are on the CPU, `jobs` side by side.
    """
    known = pages.known(place, columns)
    missing = [trial for trial in trials if cell(trial) not in known]
    on_device = DeviceData(images, torch.device("cpu"))
    found = Parallel(jobs, verbose=5)(delayed(test_accuracy)(trial, on_device) for trial in missing)
    known |= dict(zip(map(cell, missing), found, strict=True))
    return pd.DataFrame([(*cell(trial), known[cell(trial)]) for trial in trials], columns=[*columns, "accuracy"])


def test_accuracy(trial: Trial, images: DeviceData) -> float:
    """Return a trial's test accuracy, trained on one thread."""
    torch.set_num_threads(1)
    return train(trial, images).metrics["test/accuracy"]
