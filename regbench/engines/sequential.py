"""The readable reference: one trial after the other."""

import time
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch

from regbench.data.images import Images
from regbench.data.split import split
from regbench.engines.base import Engine
from regbench.errors import one_line
from regbench.measures.logits import classification, prefixed
from regbench.measures.pruned import curves
from regbench.training import checkpoint, precision
from regbench.training.checkpoint import Checkpoint, Checkpointer
from regbench.training.device_data import DeviceData
from regbench.training.events import Epoch, Event, Failed, Started, Trained
from regbench.training.groups import HookRaised
from regbench.training.single import Training, seconds_per_step, train_epoch
from regbench.trial import Trial

ENGINE = "sequential"


def start(engine: Engine, trials: Sequence[Trial], data: Images, resume: bool) -> Iterator[Event]:
    return train(trials, DeviceData(data, torch.device(engine.device)), resume)


def measure(engine: Engine, trials: Sequence[Trial], data: Images) -> float:
    before = torch.get_num_threads()
    torch.set_num_threads(engine.threads or before)
    try:
        return seconds_per_step(trials[-1], data, torch.device(engine.device)) / trials[-1].recipe.batch_size
    finally:
        torch.set_num_threads(before)


def train(trials: Iterable[Trial], data: DeviceData, resume: bool = True) -> Iterator[Event]:
    """Train `trials` one by one: Started, an Epoch each, then Trained; or Failed where a trial raises.

    The same trial gives the same weights, bit for bit, on the same machine and number of threads. One that was cut off
    in an earlier process goes on, or with `resume` False begins again.
    """
    for trial in trials:
        if not resume:
            checkpoint.forget(ENGINE, [trial], data.device)
        yield Started(trial)
        try:
            yield from _train_one(trial, data)
        except HookRaised as error:
            yield Failed(trial, str(error))
        except Exception as error:  # one trial's failure is a result of the sweep, not its end
            yield Failed(trial, f"{type(error).__name__}: {one_line(error)}")


def _train_one(trial: Trial, data: DeviceData) -> Iterator[Event]:
    recipe, begin = trial.recipe, time.perf_counter()
    train_part, val_part = (
        data.index(part) for part in split(data.labels, recipe.train_size, recipe.val_size, trial.seed)
    )
    training = Training(trial, data.num_classes, data.device)
    diverged, history, checkpointer = "", [], Checkpointer(ENGINE, [trial], data.device)
    saved = checkpointer.read()
    if saved and checkpoint.restore(training.state, saved):
        history, begin = list(saved.history[0]), begin - saved.seconds
        for epoch, results in enumerate(history, 1):
            yield Epoch(trial, epoch, results)
    del saved  # as large as the training
    for epoch in range(len(history) + 1, recipe.epochs + 1):
        with precision.settings(recipe.precision, data.device):
            results = train_epoch(training, epoch, data, train_part)
            if len(val_part):
                with training.evaluated():
                    found = classification(training.predict(data.train_images, val_part), data.train_labels[val_part])
                    training.keep_best(epoch, found["accuracy"] if np.isfinite(results["train/loss"]) else np.nan)
                results |= prefixed("val", found)
        history.append(results)
        yield Epoch(trial, epoch, results)
        if not np.isfinite(results["train/loss"]):
            diverged = f"the training loss is {results['train/loss']} in epoch {epoch}"
            break
        if epoch < recipe.epochs:
            seconds = time.perf_counter() - begin
            checkpointer.save_if_due(Checkpoint((trial,), epoch, seconds, (history,), training.state))
    with precision.settings(recipe.precision, data.device), training.evaluated():
        train_logits = training.predict(data.train_images, train_part)
        test_logits = training.predict(data.test_images)
        (curve,) = [{}] if diverged else curves(
            {name: p.detach()[None] for name, p in training.parameters.items()},
            test_logits[None],
            lambda: training.predict(data.test_images)[None],
            data.test_labels,
        )  # fmt: skip
        weights = training.weights
    best_epoch, best_logits = int(training.best.epochs) if training.best else 0, test_logits
    if 0 < best_epoch < recipe.epochs:
        with precision.settings(recipe.precision, data.device), training.at_best():
            best_logits = training.predict(data.test_images)
    yield Trained(
        trial,
        weights=weights,
        parameters=tuple(training.parameters),
        train_logits=train_logits,
        train_labels=data.train_labels[train_part],
        test_logits=test_logits,
        test_labels=data.test_labels,
        seconds=time.perf_counter() - begin,
        diverged=diverged,
        pruned=curve,
        best_epoch=best_epoch,
        best_logits=best_logits if best_epoch else None,
    )
    checkpointer.remove()
