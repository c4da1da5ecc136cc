"""A sweep that is killed again and again at random moments, against the same one left alone: are the results the same?

python -m benchmarks.faults --kills=20 --engine=stacked
"""

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import click
from mlflow import MlflowClient
from mlflow.entities import Run
from rich.console import Console

from regbench.commands import exit_code
from regbench.engines.select import SEQUENTIAL, STACKED
from regbench.errors import UserError
from regbench.tracking import schema

PROJECT = Path(__file__).resolve().parent.parent
SIGNALS = {"KILL": signal.SIGKILL, "TERM": signal.SIGTERM, "INT": signal.SIGINT}
# some two minutes on two cores, in many short epochs, from each of which training can be resumed
SWEEP = (
    "--reg=one_shot,imp,dropout",
    "--lam=0.3,0.5",
    "--seeds=0-1",
    "--confirm=20",
    "--dataset=digits",
    "--train_size=600",
    "--epochs=12",
)
# the most seconds from a start to its signal; half of the signals come before training begins
LONGEST = 15.0
# seconds until it must have ended, after a signal and without one
PATIENT, ENDLESS = 120.0, 1200.0


@click.command(context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.option("--kills", type=click.IntRange(1), default=20, help="Signals to be sent.")
@click.option("--signals", default="KILL", help=f"Which, a comma list of {', '.join(SIGNALS)}.")
@click.option("--engine", type=click.Choice([SEQUENTIAL, STACKED]), default=SEQUENTIAL)
@click.option("--seed", type=int, default=0, help="Of the moments and signals.")
@click.option("--folder", type=click.Path(path_type=Path), default=Path("faults"), help="A new one.")
def main(kills: int, signals: str, engine: str, seed: int, folder: Path) -> int:
    """Kill a sweep KILLS times, start it again each time, and compare it with an undisturbed one."""
    if unknown := [name for name in signals.split(",") if name not in SIGNALS]:
        raise UserError(f"signals={signals!r}: {unknown[0]!r} is unknown; accepted: {', '.join(SIGNALS)}")
    chosen = [SIGNALS[name] for name in signals.split(",")]
    if folder.exists():
        raise UserError(f"folder={str(folder)!r} is there already; give the name of a new one")
    console = Console(highlight=False, soft_wrap=True)
    calm, disturbed = folder / "calm", folder / "disturbed"
    begin = time.monotonic()
    command = [sys.executable, "-m", "regbench", "sweep", *SWEEP, f"--engine={engine}", "--report=none"]
    if engine == SEQUENTIAL:
        command.append("--jobs=2")
    _finish(command, calm, console)
    console.print(f"undisturbed: {time.monotonic() - begin:.0f} s")
    sent, chance = Counter(), random.Random(seed)
    for number in range(1, kills + 1):
        delay, what = chance.uniform(0.5, LONGEST), chance.choice(chosen)
        process = start(command, disturbed)
        try:
            process.wait(delay)
            console.print(f"the sweep was over before signal {number}")
            break
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, what) if what == signal.SIGINT else process.send_signal(what)
        sent[what.name] += 1
        code, done = _end(process, what), len(ended(disturbed))
        console.print(f"{number}: {what.name} after {delay:.1f} s, exit code {code}, {done} trials finished")
    _finish(command, disturbed, console)
    problems = list(compare(calm, disturbed))
    for problem in problems:
        console.print(f"WRONG: {problem}")
    counts = ", ".join(f"{count} {name}" for name, count in sent.items())
    console.print(
        f"{engine}: {sent.total()} signals ({counts}), {len(ended(calm))} trials, {len(problems)} differences, "
        f"{time.monotonic() - begin:.0f} s"
    )
    return 1 if problems or sent.total() < kills else 0


def compare(calm: Path, disturbed: Path) -> Iterator[str]:
    """Yield the differences: of the choice, trials that did not end or ended twice, metrics (but times), weights."""
    if len(chosen := {choice for folder in (calm, disturbed) for choice in _choices(folder)}) > 1:
        yield f"lams chosen: {sorted(chosen)}"
    expected = {run.data.tags[schema.KEY]: run for run in ended(calm)}
    found = Counter(run.data.tags[schema.KEY] for run in ended(disturbed))
    if found != Counter(expected.keys()):
        yield f"trials finished: {sorted(found.values())} of {len(expected)}"
    if left := [run.info.run_name for run in _runs(disturbed) if run.info.status == "RUNNING"]:
        yield f"left RUNNING: {left}"
    for run in ended(disturbed):
        name, other = run.info.run_name, expected[run.data.tags[schema.KEY]]
        for metric in sorted(run.data.metrics.keys() | other.data.metrics.keys()):
            if not metric.startswith("time/") and _points(disturbed, run, metric) != _points(calm, other, metric):
                yield f"{name}: {metric}"
        if weights(run) != weights(other):
            yield f"{name}: weights"


def start(command: list[str], folder: Path) -> subprocess.Popen:
    """Start a command in a folder, which is made, with its output in `log` there; what is kept is shared with its siblings.

    That is, what a GPU has been measured to compute fastest, by which results are rounded.
    """
    folder.mkdir(parents=True, exist_ok=True)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")} | {
        "PYTHONPATH": str(PROJECT),
        "REGBENCH_CACHE": str(folder.resolve().parent / "cache"),
        "REGBENCH_CHECKPOINT_SECONDS": "0",
    }
    with (folder / "log").open("a") as log:
        return subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True)


def _end(process: subprocess.Popen, what: signal.Signals) -> int:
    try:
        return process.wait(PATIENT)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        raise UserError(f"{PATIENT} s after {what.name} the sweep had not ended") from None


def _finish(command: list[str], folder: Path, console: Console) -> None:
    code = start(command, folder).wait(ENDLESS)
    if code:
        console.print((folder / "log").read_text()[-2000:])
        raise UserError(f"the sweep in {folder} ended with exit code {code}")


def _client(folder: Path) -> MlflowClient:
    return MlflowClient(f"sqlite:///{folder.resolve() / 'mlflow.db'}")


def _runs(folder: Path) -> list[Run]:
    if not (folder / "mlflow.db").exists():
        return []
    client = _client(folder)
    experiment = client.get_experiment_by_name("regbench")
    return list(client.search_runs([experiment.experiment_id], max_results=10_000)) if experiment else []


def ended(folder: Path) -> list[Run]:
    """Return the runs of the trials that have finished, of the sweeps in a folder."""
    return [run for run in _runs(folder) if schema.KEY in run.data.tags and run.info.status == "FINISHED"]


def _choices(folder: Path) -> set[str]:
    return {run.data.tags[schema.CHOICE] for run in _runs(folder) if schema.CHOICE in run.data.tags}


def values(folder: Path, run: Run, metric: str) -> list[float]:
    """Return a run's values of a metric, step by step."""
    return [point.value for point in _client(folder).get_metric_history(run.info.run_id, metric)]


def _points(folder: Path, run: Run, metric: str) -> list[tuple[int, str]]:
    # as text, in which NaN equals itself
    return [(point.step, repr(point.value)) for point in _client(folder).get_metric_history(run.info.run_id, metric)]


def weights(run: Run) -> bytes:
    """Return the file of a trial's weights."""
    return (Path(run.info.artifact_uri.removeprefix("file://")) / "weights" / "model.safetensors").read_bytes()


if __name__ == "__main__":
    exit_code.run(main)
