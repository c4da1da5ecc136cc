"""What the commands that train print: the plan, the progress of trials, the results."""

import shlex
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import timedelta

from rich.console import Console
from rich.measure import Measurement
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.table import Table

from regbench.data.images import Images
from regbench.engines.base import Engine
from regbench.errors import without_password
from regbench.plan import Plan
from regbench.regularizers import BASELINE
from regbench.report.power import PAIRED_SD_PP, expected_power, seeds_needed
from regbench.results import HEADINGS, Result, table
from regbench.tracking import schema
from regbench.tracking.store import Store
from regbench.trial import Trial, format_seeds

LONG_SECONDS = 3600
# of trials that did not go well, printed at the end
MOST_REASONS = 10
# of a table, in letters
WIDEST = 10_000
# trials at once of which each epoch is printed on a line
FEW = 4
SECONDS_BETWEEN_LINES = 10.0


def print_engine(console: Console, engine: Engine, automatic: bool) -> None:
    """Print where and how trials are trained."""
    chosen = " (auto: no CUDA GPU found)" if automatic and engine.device == "cpu" else ""
    console.print(f"device: {engine.device_name}{chosen}; engine: {engine.label}")


def print_plan(console: Console, plan: Plan, data: Images) -> None:
    """Print the data, the recipes, what is to be trained and what is finished, and what the seeds can show."""
    for note in data.notes:
        console.print(f"data: {note}")
    console.print(
        f"data: {data.name}, {len(data.train_labels):,} training and {len(data.test_labels):,} test images "
        f"in {len(data.classes)} classes"
    )
    for recipe in plan.sweep.recipes:
        console.print(f"recipe {recipe.id}: {recipe}")
    todo, total = len(plan.todo), len(plan.sweep.trials)
    console.print(f"sweep {plan.sweep.id}: {total} trials, {total - todo} finished already, {todo} to train")
    if plan.altered:
        console.print(
            f"the data has changed: {plan.altered} of the trials to train are finished with other images under the name "
            f"{data.name}; these have fingerprint {data.fingerprint[:16]}"
        )
    cells: dict[str, tuple[list[int], list[int]]] = {}
    pending = set(plan.todo)
    for trial in plan.sweep.trials:
        cells.setdefault(trial.cell, ([], []))[trial not in pending].append(trial.seed)
    for cell, (train, finished) in cells.items():
        parts = [
            f"{word} seeds {format_seeds(part)}"
            for word, part in (("train", train), ("skip finished", finished))
            if part
        ]
        console.print(f"  {cell:<34} {'; '.join(parts)}")
    methods, seeds = _size(plan)
    if methods and methods < total:
        console.print(_format_power(methods, seeds))


def print_estimate(console: Console, plan: Plan, seconds: float | None) -> None:
    """Print how long a plan takes; `seconds` None: it could not be measured."""
    if seconds is None:
        console.print("estimated time: unknown, since a first training step fails")
        return
    console.print(f"estimated time: {timedelta(seconds=round(seconds))} (from steps measured on this device)")
    if seconds > LONG_SECONDS:
        methods, seeds = _size(plan)
        needed = seeds_needed(max(methods, 1))
        fewer = f"fewer seeds (not below {needed}, or no verdict is possible), " if seeds > needed else ""
        console.print(f"to shorten it: a smaller train_size, fewer epochs, {fewer}fewer lams, or a machine with a GPU")


def _size(plan: Plan) -> tuple[int, int]:
    """Return how many regularizers beside `none`, and how many seeds a sweep has."""
    trials = plan.sweep.trials
    methods = {(trial.regularizer, trial.scope) for trial in trials if trial.regularizer != BASELINE}
    return len(methods), len({trial.seed for trial in trials})


def _format_power(regularizers: int, seeds: int) -> str:
    """Return what the report will be able to show with so many seeds, from the packaged table of simulated sweeps."""
    needed = seeds_needed(regularizers)
    if seeds < needed:
        return (
            f"evidence: {seeds} seeds are too few for a verdict on {regularizers} regularizers; take {needed} or more"
        )
    chances = (f"{gain:g} points {expected_power(seeds, gain, regularizers):.0%}" for gain in (0.5, 1.0, 2.0))
    return (
        f"evidence: the chance that {seeds} seeds show a true gain, where paired differences spread by {PAIRED_SD_PP:g} "
        f"points as simulated: {', '.join(chances)}"
    )


def print_results(console: Console, results: Sequence[Result]) -> None:
    """Print the means over seeds, and why trials did not go well."""
    means = Table(title="means over seeds", box=None, title_justify="left")
    means.add_column(HEADINGS[0], no_wrap=True)
    for heading in HEADINGS[1:]:
        means.add_column(heading, justify="right")
    for row in table(results):
        means.add_row(*row)
    # as wide as it is: where it is wider than the screen, rich would leave out its numbers
    means.width = Measurement.get(console, console.options.update(max_width=WIDEST), means).maximum
    console.print(means)
    wrong = [result for result in results if result.reason]
    for result in wrong[:MOST_REASONS]:
        console.print(f"{result.status}: {result.trial.name}: {result.reason}")
    if len(wrong) > MOST_REASONS:
        console.print(f"and {len(wrong) - MOST_REASONS} more; in MLflow: tags.`{schema.STATUS}` != 'ok'")


def print_store(console: Console, store: Store) -> None:
    """Print where the runs are, and how to look at them."""
    uri = without_password(store.uri)
    if store.uri.startswith("http"):
        look = f"at: {uri.rstrip('/')}/#/experiments/{store.experiment_id}/runs"
    else:
        look = f"with: mlflow ui --backend-store-uri {shlex.quote(uri)}"
    console.print(f'MLflow: experiment "{store.experiment}" in {uri}; look {look}')
    if store.files:
        console.print(
            f"MLflow takes the experiment's folder for a path with percent codes: its files are in {store.files}"
        )


def format_epoch(metrics: Mapping[str, float]) -> str:
    """Return the notebook's line for an epoch: mean loss with the penalty and training accuracy, then validation."""
    text = f"loss {metrics['train/objective']:.4f}, accuracy {metrics['train/accuracy']:.4f}"
    if metrics["train/objective"] != metrics["train/loss"]:
        text += f", cross-entropy {metrics['train/loss']:.4f}"
    if "val/accuracy" in metrics:
        text += f", validation {metrics['val/accuracy']:.4f}"
    return text


@dataclass
class _Running:
    position: int
    begin: float
    epochs: int = 0


class Progress(AbstractContextManager):
    """Shows `trials` as they run: a bar on a terminal, lines elsewhere; the remaining time is that of epochs so far."""

    def __init__(self, trials: tuple[Trial, ...], console: Console) -> None:
        self._console, self._trials = console, len(trials)
        self._running: dict[Trial, _Running] = {}
        self._ended, self._said = 0, 0.0
        self._total = sum(trial.recipe.epochs for trial in trials)
        self._done, self._begin = 0, time.monotonic()
        self._bar = None
        # FORCE_COLOR has rich take a file for a terminal; a dumb terminal cannot redraw a bar
        if console.is_interactive and console.file.isatty():
            self._bar = Bar(
                TextColumn("{task.description}", markup=False),
                BarColumn(bar_width=20),
                MofNCompleteColumn(),
                TextColumn("epochs"),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(elapsed_when_finished=False),
                console=console,
            )
            self._task = self._bar.add_task("", total=self._total)

    def __enter__(self) -> "Progress":
        if self._bar:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar:
            self._bar.stop()

    def start(self, trial: Trial) -> None:
        self._running[trial] = _Running(len(self._running) + self._ended + 1, time.monotonic())
        if self._bar:
            self._bar.update(self._task, description=self._label(trial))

    def epoch(self, trial: Trial, epoch: int, metrics: Mapping[str, float]) -> None:
        self._done, running = self._done + 1, self._running[trial]
        running.epochs = epoch
        text = f"epoch {epoch}/{trial.recipe.epochs}: {format_epoch(metrics)}"
        if self._bar:
            self._bar.update(self._task, completed=self._done, description=f"{self._label(trial)} {text}")
        else:
            now = time.monotonic()
            left = timedelta(seconds=round((now - self._begin) / self._done * (self._total - self._done)))
            # a stack of many would fill the screen at each epoch
            if len(self._running) <= FEW or now - self._said > SECONDS_BETWEEN_LINES:
                self._said = now
                self._console.print(f"{self._label(trial)} {text}, {now - running.begin:.1f} s, {left} left")

    def end(self, trial: Trial, text: str) -> None:
        # a trial that diverged or failed has fewer epochs than planned
        self._done += trial.recipe.epochs - self._running[trial].epochs
        if self._bar:
            self._bar.update(self._task, completed=self._done)
        self._console.print(f"{self._label(trial)} {text}")
        del self._running[trial]
        self._ended += 1

    def _label(self, trial: Trial) -> str:
        return f"({self._running[trial].position}/{self._trials}) {trial.name}"
