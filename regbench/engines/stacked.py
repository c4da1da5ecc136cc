"""Trials in stacks, one stack after the other: the fast engine for a GPU."""

import gc
import logging
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import psutil
import torch

from regbench.data.images import Images
from regbench.engines.attempts import Attempts
from regbench.engines.base import Engine
from regbench.errors import one_line
from regbench.measures.logits import classification, prefixed
from regbench.measures.pruned import curves
from regbench.training import checkpoint, precision, stacked_networks
from regbench.training.checkpoint import Checkpoint, Checkpointer
from regbench.training.device_data import DeviceData
from regbench.training.events import Epoch, Event, Failed, Started
from regbench.training.stack import Training, recordable, seconds_per_step
from regbench.training.update_rules import RULES
from regbench.trial import Trial

# a crash loses a stack, so it is no larger than what fills the device
LARGEST = {"cuda": 128, "cpu": 8}
ENGINE = "stacked"
# of the memory: the rest is for the results, for what torch keeps for itself and for other programs
SHARE = 0.6
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Part:
    """The trials of one stack, in the order of its rows; `open` are those whose results are wanted.

    The others were over before the stack was cut off, and are there again so that the rest is rounded as before.
    """

    trials: tuple[Trial, ...]
    open: frozenset[Trial]


def start(engine: Engine, trials: Sequence[Trial], data: Images, resume: bool) -> Iterator[Event]:
    return train(trials, DeviceData(data, torch.device(engine.device)), resume=resume)


def measure(engine: Engine, trials: Sequence[Trial], data: Images) -> float:
    device = torch.device(engine.device)
    size = capacity(trials[0], DeviceData(data, device))
    return seconds_per_step(trials[:size], data, device) / trials[0].recipe.batch_size


def train(trials: Sequence[Trial], data: DeviceData, size: int | None = None, resume: bool = True) -> Iterator[Event]:
    """Train `trials` in stacks of up to `size` (None: as many as the memory takes), with the events of `sequential`.

    A trial's time is its share of the stack's. A stack that does not fit, or raises, is trained again in two halves, so
    that in the end only the trial that is to blame is Failed; no event is passed on twice. Stacks
    that were cut off in an earlier process go on first, whatever else is in them, or with `resume` False begin again.
    """
    attempts = {trial: Attempts(trial) for trial in trials}
    for recipe in dict.fromkeys(trial.recipe for trial in trials):
        members = [trial for trial in trials if trial.recipe == recipe]
        record = recordable(members, data)
        if not resume:
            checkpoint.forget(ENGINE, members, data.device)
        cut_off = _cut_off(members, data)
        resumed = {trial for part in cut_off for trial in part.open}
        left = [trial for trial in members if trial not in resumed]
        pending = deque([*cut_off, *_parts(left, size or _fitting(members[0], data))])
        while pending:
            part = pending.popleft()
            try:
                for trial in part.open:
                    attempts[trial].begin()
                yield from (event for event in _train_stack(part, data, record) if attempts[event.trial].is_new(event))
                continue
            except Exception as error:  # a failure is a result of the sweep, not its end
                reason, full = f"{type(error).__name__}: {one_line(error)}", _out_of_memory(error)
            # outside the handler, whose traceback would keep the stack's tensors alive
            gc.collect()
            if data.device.type == "cuda":
                with suppress(
                    RuntimeError
                ):  # after some errors a GPU refuses everything: what comes fails with its reason
                    torch.cuda.empty_cache()
            left = [trial for trial in part.trials if trial in part.open and not attempts[trial].ended]
            if len(left) == 1 and len(part.trials) == 1:
                yield from attempts[left[0]].fail(reason)
            elif full:  # what waits would not fit either
                half = max(1, len(part.trials) // 2)
                waiting = [trial for other in pending for trial in other.trials if trial in other.open]
                pending = deque(_parts([*left, *waiting], half))
            else:
                half = max(1, -(-len(left) // 2))
                pending.extendleft(reversed(_parts(left, half)))


def _fitting(trial: Trial, data: DeviceData) -> int:
    """Return `capacity`; 1 for a network that cannot be run there, so that each of its trials says why.

    Where memory is taken for the moment, it is the largest: a stack that does not fit is halved.
    """
    try:
        return capacity(trial, data)
    except torch.OutOfMemoryError:
        return LARGEST[data.device.type]
    except Exception as error:
        log.warning("trials are not stacked: %s", one_line(error))
        return 1


def capacity(trial: Trial, data: DeviceData) -> int:
    """Return how many trials like this one the device's memory takes, at least 1.

    Counted are weights, gradients, what the optimizer keeps and makes of the same size, averages of the weights and those
    of the best epoch, if any, and twice what the forward pass keeps. It goes by the memory that the device has, not by
    what is free, so that a sweep that is started again makes the same stacks; one that does not fit is halved.
    """
    cpu = data.device.type == "cpu"
    memory = psutil.virtual_memory().total if cpu else torch.cuda.mem_get_info(data.device)[1]
    return max(1, min(LARGEST[data.device.type], int(SHARE * memory / bytes_per_trial(trial, data))))


def bytes_per_trial(trial: Trial, data: DeviceData) -> int:
    """Return the memory that a trial in a stack takes in training, measured on a forward pass."""
    stack = stacked_networks.build([trial], data.num_classes, data.device)
    stored: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        stored[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor.detach()  # a graph that keeps its own outputs would keep itself alive

    images = data.train_images[: trial.recipe.batch_size][None]
    recipe = trial.recipe
    saved = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
    with precision.settings(recipe.precision, data.device), saved:
        stack.logits(images, training=True)
    copies = 2 + RULES[recipe.optimizer].copies + (recipe.average != "none") + (recipe.val_size > 0)
    return 2 * sum(stored.values()) + copies * sum(w.nbytes for w in stack.state.values())


def _train_stack(part: Part, data: DeviceData, record: bool) -> Iterator[Event]:
    trials = part.trials
    for trial in trials:
        if trial in part.open:
            yield Started(trial)
    recipe, begin = trials[0].recipe, time.perf_counter()
    with precision.settings(recipe.precision, data.device):
        training = Training(trials, data, record)
    open_rows = {row for row, trial in enumerate(trials) if trial in part.open}
    checkpointer, history = Checkpointer(ENGINE, trials, data.device), tuple([] for _ in trials)
    try:
        done, saved = 0, checkpointer.read()
        if saved and checkpoint.restore(training.state, saved):
            done, history, begin = saved.epoch, saved.history, begin - saved.seconds
            for row in sorted(open_rows):
                for epoch, results in enumerate(history[row], 1):
                    yield Epoch(trials[row], epoch, results)
        del saved  # as large as the training
        for epoch in range(done + 1, recipe.epochs + 1):
            with precision.settings(recipe.precision, data.device):
                results = training.epoch(epoch)
                if recipe.val_size:
                    with training.evaluated():
                        logits = training.predict(data.train_images, training.val_part)
                        labels = data.train_labels[training.val_part]
                        for row in open_rows:
                            results[row] |= prefixed("val", classification(logits[row], labels[row]))
                        training.keep_best(epoch, [_accuracy(one) for one in results])
            for group in training.optimizer.failed:
                for row in open_rows & set(range(group.rows.start, group.rows.stop)):
                    open_rows.remove(row)
                    yield Failed(trials[row], group.reason)
            for row in sorted(open_rows):
                history[row].append(results[row])
                yield Epoch(trials[row], epoch, results[row])
            lost = [row for row in open_rows if not np.isfinite(results[row]["train/loss"])]
            reasons = {r: f"the training loss is {results[r]['train/loss']} in epoch {epoch}" for r in lost}
            yield from _results(training, lost, begin, reasons)
            open_rows -= set(lost)
            if not open_rows:
                break
            if epoch < recipe.epochs:
                ended = frozenset(trial for row, trial in enumerate(trials) if row not in open_rows)
                seconds = time.perf_counter() - begin
                checkpointer.save_if_due(Checkpoint(trials, epoch, seconds, history, training.state, ended))
        yield from _results(training, sorted(open_rows), begin, {})
    except Exception:  # what comes after it is made of fewer trials
        checkpointer.remove()
        raise
    checkpointer.remove()


def _results(training: Training, rows: Sequence[int], begin: float, diverged: dict[int, str]) -> Iterator[Event]:
    """Give the results of `rows` one by one: only one trial's weights are copied at a time."""
    if not rows:
        return
    data = training.data
    test = torch.arange(len(data.test_images), device=data.device).expand(len(training.trials), -1)
    best_epochs = {row: int(training.best.epochs[row]) if training.best else 0 for row in rows}
    best_logits = None
    if any(0 < epoch < training.recipe.epochs for epoch in best_epochs.values()):
        with training.at_best(), precision.settings(training.recipe.precision, data.device):
            best_logits = training.predict(data.test_images, test)
    with training.evaluated():
        with precision.settings(training.recipe.precision, data.device):
            train_logits = training.predict(data.train_images, training.train_part)
            test_logits = training.predict(data.test_images, test)
            # those that diverge are passed on before the others have ended, and have no curve
            pruned = [{}] * len(training.trials) if diverged else curves(
                training.stack.parameters, test_logits, lambda: training.predict(data.test_images, test), data.test_labels
            )  # fmt: skip
        best_logits = test_logits if best_logits is None else best_logits
        seconds = time.perf_counter() - begin
        for row in rows:
            logits = train_logits[row], test_logits[row], best_logits[row] if best_epochs[row] else None
            yield training.result(row, logits, pruned[row], seconds, diverged.get(row, ""))


def _accuracy(results: dict[str, float]) -> float:
    """Return a trial's validation accuracy after an epoch; NaN if it is lost, or was before."""
    return results.get("val/accuracy", np.nan) if np.isfinite(results["train/loss"]) else np.nan


def _parts(trials: Sequence[Trial], size: int) -> list[Part]:
    parts = []
    for first in range(0, len(trials), size):
        some = trials[first : first + size]
        # one regularizer's trials side by side, so that its hooks are called once for all of them
        ordered = tuple(sorted(some, key=lambda trial: (trial.regularizer, trial.scope)))
        parts.append(Part(ordered, frozenset(some)))
    return parts


def _cut_off(trials: Sequence[Trial], data: DeviceData) -> list[Part]:
    """Return the stacks with checkpoints in which some of these trials, all of one recipe, were cut off."""
    left, parts = set(trials), []
    for found in checkpoint.stacks(ENGINE, trials[0].recipe, data.device):
        wanted = left.intersection(found.trials) - found.ended
        if wanted:
            parts.append(Part(found.trials, frozenset(wanted)))
            left -= wanted
    return parts


def _out_of_memory(error: Exception) -> bool:
    # on a CPU torch raises a plain RuntimeError
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)
