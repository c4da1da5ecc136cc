"""Trainings that were cut off: their state after an epoch on disk, from which they go on to the very same result.

A trial's random numbers and its learning rate depend on its seed and the epoch alone, so that weights, their averages,
what the optimizer keeps, and masks are the whole state.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from regbench import regularizers
from regbench.errors import UserError, one_line
from regbench.files import atomic, cache_folder
from regbench.identity import digest
from regbench.trial import Recipe, Trial

log = logging.getLogger(__name__)
# seconds between two checkpoints of a training; REGBENCH_CHECKPOINT_SECONDS sets another number
EVERY = 60.0
# the largest part of a training's time that writing them may take
SHARE = 0.02
# days after which checkpoints that nobody has come back to are removed
KEEP_DAYS = 30
SUFFIX = ".safetensors"


@dataclass(frozen=True)
class Checkpoint:
    """The state of `trials` (one, or a stack's, in the order of its rows) after so many epochs, which took `seconds`.

    `history` has each trial's metrics, epoch by epoch; `ended` are the trials that were over before the others.
    """

    trials: tuple[Trial, ...]
    epoch: int
    seconds: float
    history: tuple[list[dict[str, float]], ...]
    tensors: Mapping[str, torch.Tensor]
    ended: frozenset[Trial] = frozenset()


class Checkpointer:
    """Writes checkpoints of `trials`, at a pace that costs little, and finds the last one.

    It is found again only where training rounds alike: by the same engine, device, number of threads and torch.
    """

    def __init__(self, engine: str, trials: Sequence[Trial], device: torch.device) -> None:
        keys = digest([trial.key for trial in trials])[:40]
        self.path = _folder() / f"{circumstances(engine, device)}-{keys}{SUFFIX}"
        self.trials = tuple(trials)
        self._every = seconds_between()
        self._next = time.monotonic() + self._every

    def read(self) -> Checkpoint | None:
        """Return the last checkpoint; None if there is none, or it is damaged."""
        found = read(self.path, self.trials[0].recipe)
        return found if found and found.trials == self.trials else None

    def save_if_due(self, checkpoint: Checkpoint) -> None:
        """Write it if it is time for one. Where it cannot be written training goes on without."""
        start = time.monotonic()
        if start < self._next:
            return
        try:
            _write(self.path, checkpoint)
        except (OSError, SafetensorError) as error:
            log.warning("no checkpoint is kept: %s (set REGBENCH_CACHE to a folder with room)", one_line(error))
            self._next = float("inf")
            return
        end = time.monotonic()
        if self._every:
            self._next = end + max(self._every, (end - start) / SHARE)

    def remove(self) -> None:
        """Remove the checkpoint: the training is over."""
        with suppress(OSError):
            self.path.unlink(missing_ok=True)


def seconds_between() -> float:
    """Return the least seconds between two checkpoints; raises UserError for a bad REGBENCH_CHECKPOINT_SECONDS."""
    text = os.environ.get("REGBENCH_CHECKPOINT_SECONDS", str(EVERY))
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not seconds >= 0:
        raise UserError(
            f"REGBENCH_CHECKPOINT_SECONDS={text!r} is out of range; accepted: seconds, 0 or more (0: every epoch)"
        )
    return seconds


def circumstances(engine: str, device: torch.device) -> str:
    """Return 16 hex digits for all that decides how a training rounds, apart from the trial."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    # machines that share a home folder may have different vector instructions
    vectors = torch.backends.cpu.get_cpu_capability()
    return digest([engine, name, vectors, torch.get_num_threads(), version("torch")])[:16]


def stacks(engine: str, recipe: Recipe, device: torch.device) -> list[Checkpoint]:
    """Return the checkpoints of all stacks of a recipe, the newest first, without their tensors."""
    found: list[tuple[float, Checkpoint]] = []
    for path in _folder().glob(f"{circumstances(engine, device)}-*{SUFFIX}"):
        with suppress(FileNotFoundError):  # another process has come to the end of it
            written = path.stat().st_mtime
            if checkpoint := read(path, recipe, tensors=False):
                found.append((written, checkpoint))
    return [checkpoint for _, checkpoint in sorted(found, key=lambda pair: -pair[0])]


def forget(engine: str, trials: Sequence[Trial], device: torch.device) -> None:
    """Remove this engine's checkpoints here that hold one of these trials: they are to begin again."""
    for path in _folder().glob(f"{circumstances(engine, device)}-*{SUFFIX}"):
        for recipe in {trial.recipe for trial in trials}:
            found = read(path, recipe, tensors=False)
            if found and not set(trials).isdisjoint(found.trials):
                path.unlink(missing_ok=True)


def read(path: Path, recipe: Recipe, tensors: bool = True) -> Checkpoint | None:
    """Return the checkpoint in a file; None if it is of another sweep, missing or damaged (then it is removed)."""
    try:
        with safe_open(path, framework="pt") as stored:
            about = json.loads(stored.metadata()["about"])
            if about["recipe"] != recipe.id:
                return None
            names = list(stored.keys()) if tensors else []
            values = {name: stored.get_tensor(name) for name in names}
        if tensors and about.pop("checksum") != _checksum(values, about):
            raise ValueError("its checksum does not match")
        trials = tuple(Trial(recipe, *fields) for fields in about["trials"])
        known = all(regularizers.is_known(trial.regularizer) for trial in trials)
        if not known or [trial.key for trial in trials] != about["keys"]:  # other code
            return None
        ended = frozenset(trials[row] for row in about["ended"])
        return Checkpoint(trials, about["epoch"], about["seconds"], tuple(about["history"]), values, ended)
    except (FileNotFoundError, UserError):  # it has been removed; a regularizer that cannot be found
        return None
    except (OSError, SafetensorError, ValueError, TypeError, LookupError, AttributeError) as error:
        log.warning("the checkpoint %s is damaged (%s): its training begins again", path, one_line(error))
        with suppress(OSError):
            path.unlink(missing_ok=True)
        return None


def restore(live: Mapping[str, torch.Tensor], checkpoint: Checkpoint) -> bool:
    """Copy a checkpoint's tensors into those of a new training; False, and nothing is done, if they do not fit."""
    saved = checkpoint.tensors
    if live.keys() != saved.keys() or any(live[name].shape != w.shape for name, w in saved.items()):
        return False
    with torch.no_grad():
        for name, w in saved.items():
            live[name].copy_(w)
    return True


def clean() -> None:
    """Remove checkpoints older than KEEP_DAYS: nobody has come back to them."""
    oldest = time.time() - KEEP_DAYS * 86400
    # includes temporary files of a process that was killed while it wrote
    for path in _folder().glob(f"*{SUFFIX}*"):
        with suppress(OSError):
            if path.stat().st_mtime < oldest:
                path.unlink()


def _write(path: Path, checkpoint: Checkpoint) -> None:
    # copies, since safetensors refuses tensors that share memory
    tensors = {name: w.detach().to("cpu", copy=True).contiguous() for name, w in checkpoint.tensors.items()}
    trials = checkpoint.trials
    about = {
        "recipe": trials[0].recipe.id,
        "trials": [(trial.regularizer, trial.lam, trial.seed, trial.scope) for trial in trials],
        "keys": [trial.key for trial in trials],
        "ended": [row for row, trial in enumerate(trials) if trial in checkpoint.ended],
        "epoch": checkpoint.epoch,
        "seconds": checkpoint.seconds,
        "history": checkpoint.history,
    }
    about["checksum"] = _checksum(tensors, about)
    with atomic(path) as temporary:
        save_file(tensors, temporary, metadata={"about": json.dumps(about)})


def _checksum(tensors: Mapping[str, torch.Tensor], about: Mapping[str, object]) -> str:
    checksum = hashlib.sha256(json.dumps(about).encode())
    for name in sorted(tensors):
        checksum.update(name.encode() + b"\0")
        checksum.update(memoryview(tensors[name].flatten().view(torch.uint8).numpy()))
    return checksum.hexdigest()


def _folder() -> Path:
    return cache_folder() / "checkpoints"
