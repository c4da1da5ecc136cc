"""Sweeps by the command line, as users start them, on the device: the same twice, killed, and as fast as they can be."""

import hashlib
import re
import subprocess
import sys
import time
from pathlib import Path

from benchmarks import faults
from benchmarks.gpu.setting import Setting, Wrong, require
from regbench.files import cache_folder

# seconds until a sweep must have ended
PATIENT = 240.0
# of the small sweep
EPOCHS = 6


def repeated(setting: Setting, found: dict) -> None:
    """Train a small sweep twice, and once killed in mid-training and started again: the same weights, bit for bit."""
    size = setting.sizes.batch_size
    command = _command(
        setting, reg="l1,imp", lam=setting.sizes.grid, seeds="0-0", epochs=EPOCHS, batch_size=size,
        train_size=size * setting.sizes.steps // 2 + 2 * size, val_size=2 * size, average="ema", verbose="true",
    )  # fmt: skip
    calm, killed = [setting.folder / f"calm{i}" for i in range(setting.sizes.repeats)], setting.folder / "killed"
    for folder in calm:  # one after the other, since they would go on from each other's checkpoints
        _finish(command, folder)
    process = faults.start(command, killed)
    try:
        _wait_for(killed, process, rf"epoch 2/{EPOCHS}")
    finally:
        process.kill()
        process.wait()
    found["finished before it was killed"] = len(faults.ended(killed))
    if not any((cache_folder() / "checkpoints").glob("*.safetensors")):
        raise Wrong("the sweep was killed, and there is no checkpoint from which it could go on")
    _finish(command, killed)
    found |= {folder.name: _digest(folder) for folder in (*calm, killed)}
    require([f"{other.name}: {what}" for other in (*calm[1:], killed) for what in faults.compare(calm[0], other)])


def sweep(setting: Setting, found: dict) -> None:
    """Time a sweep from its command to its end, and tell the share of it in which no step was trained.

    That is by the epochs' own times, which are written to MLflow: within an epoch the device counts as busy.
    """
    sizes, folder = setting.sizes, setting.folder / "sweep"
    command = _command(
        setting, reg="l1,l2,weight_decay", lam="1e-4", seeds=f"0-{sizes.seeds - 1}", epochs=sizes.epochs,
        train_size=min(sizes.swept, len(setting.images.train_labels)),
    )  # fmt: skip
    begin = time.perf_counter()
    _finish(command, folder)
    wall, runs = time.perf_counter() - begin, faults.ended(folder)
    epochs = sum(point for run in runs for point in faults.values(folder, run, "time/epoch"))
    trials = sum(run.data.metrics["time/trial"] for run in runs)
    found |= {
        "trials": len(runs),
        "wall s": wall,
        "steps s": epochs,
        "evaluation s": trials - epochs,
        "rest s": wall - trials,
        "idle share, by the epochs' own times": 1 - epochs / wall,
    }
    if len(runs) != 4 * sizes.seeds:
        raise Wrong(f"{len(runs)} of {4 * sizes.seeds} trials have finished")


def _command(setting: Setting, **options: object) -> list[str]:
    given = {
        "dataset": setting.dataset,
        "data_dir": setting.data_dir.resolve(),
        "device": setting.device,
        "engine": "stacked",
        "confirm": 0,
        "report": "none",
    } | options
    return [sys.executable, "-m", "regbench", "sweep", *(f"--{name}={value}" for name, value in given.items())]


def _finish(command: list[str], folder: Path) -> None:
    """Run a sweep to its end; raises Wrong if it fails, with the end of what it printed."""
    process = faults.start(command, folder)
    try:
        code = process.wait(PATIENT)
    finally:
        process.kill()
    if code:
        raise Wrong(f"the sweep {folder.name} ended with exit code {code}: {_printed(folder)[-1000:]}")


def _wait_for(folder: Path, process: subprocess.Popen, line: str) -> None:
    """Wait until a sweep has printed a line; raises Wrong if it ends before, or takes too long."""
    begin = time.monotonic()
    while not re.search(line, _printed(folder)):
        if process.poll() is not None or time.monotonic() - begin > PATIENT:
            raise Wrong(f"the sweep {folder.name} has not printed {line}: {_printed(folder)[-1000:]}")
        time.sleep(0.02)


def _printed(folder: Path) -> str:
    return (folder / "log").read_text()


def _digest(folder: Path) -> str:
    """Return 16 hex digits for the weights of all trials."""
    digest = hashlib.sha256()
    for run in sorted(faults.ended(folder), key=lambda run: run.info.run_name):
        digest.update(faults.weights(run))
    return digest.hexdigest()[:16]
