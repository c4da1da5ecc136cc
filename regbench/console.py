"""What the commands that train print: the plan, the progress of trials, the results."""

import shlex
import time
from collections.abc import Mapping, Sequence, Set
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import timedelta

from rich.console import Console
from rich.measure import Measurement
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.table import Table

from regbench import plan as planning
from regbench.data.images import Images
from regbench.engines.base import Engine
from regbench.errors import without_password
from regbench.plan import Plan
from regbench.report import text
from regbench.results import FRESH_HEADINGS, HEADINGS, Result, fresh_table, table
from regbench.statistics.choice import Choice
from regbench.statistics.looks import seeds_needed
from regbench.tracking import schema
from regbench.tracking.store import Store
from regbench.trial import Sweep, Trial, format_lam, format_seeds

LONG_SECONDS = 3600
# from how many seconds on it is measured how long bf16 takes, and how much of them that may be to be worth a line
WORTH_BF16, MOST_OF_FLOAT32 = 120, 0.9
# of trials that did not go well, printed at the end
MOST_REASONS = 10
# of a table, in letters
WIDEST = 10_000
# of a file: after so long without a trial's end a line says how far it is
SECONDS_BETWEEN_LINES = 60.0


def print_engine(console: Console, engine: Engine, automatic: bool) -> None:
    """Print where and how trials are trained."""
    chosen = " (auto: no CUDA GPU found)" if automatic and engine.device == "cpu" else ""
    console.print(f"device: {engine.device_name}{chosen}; engine: {engine.label}")


def print_plan(console: Console, plan: Plan, data: Images) -> None:
    """Print the data, the recipes, what is to be trained and what is finished, and what it will be able to show."""
    for note in data.notes:
        console.print(f"data: {note}")
    console.print(
        f"data: {data.name}, {len(data.train_labels):,} training and {len(data.test_labels):,} test images "
        f"in {len(data.classes)} classes"
    )
    sweep = plan.sweep
    for recipe in sweep.recipes:
        console.print(f"recipe {recipe.id}: {recipe}")
    pending = {trial.key for trial in plan.todo}
    todo, total = sum(trial.key in pending for trial in sweep.trials), len(sweep.trials)
    what = "trials" if not sweep.confirm else "trials of the grid"
    console.print(f"sweep {sweep.id}: {total} {what}, {total - todo} finished already, {todo} to train")
    if plan.altered:
        console.print(
            f"the data has changed: {plan.altered} of the trials to train are finished with other images under the name "
            f"{data.name}; these have fingerprint {data.fingerprint[:16]}"
        )
    _print_cells(console, sweep, sweep.trials, pending)
    if sweep.confirm:
        most = len(sweep.longest) - total
        console.print(
            f"then fresh seeds {format_seeds(sweep.confirm)}: none and the lam that the grid chooses for each regularizer, "
            f"at most {most} trials; judged after {text.join_and(sweep.looks)}"
        )
        if plan.lams:
            print_choice(console, plan)
            _print_cells(console, sweep, [trial for trial in plan.trials if sweep.is_fresh(trial)], pending)
            if todo and plan.chosen_by:
                console.print(
                    f"{todo} trial(s) of the grid were missing when lam was chosen: they are trained now, and change "
                    "nothing of it"
                )
    if sweep.methods:
        console.print(_format_power(sweep))


def print_scopes(console: Console, sweep: Sweep, data: Images) -> None:
    """Print what the scopes of a sweep have of its network, where that is not known without building it."""
    found = dict.fromkeys((trial.scope, trial.recipe.model) for trial in sweep.trials)
    for scope, model in found:
        if scope not in ("weights", "all"):
            from regbench.training import scope as scopes  # late: it imports torch

            console.print(scopes.describe(scope, model, len(data.classes)))


def _print_cells(console: Console, sweep: Sweep, trials: Sequence[Trial], pending: Set[str]) -> None:
    """Print a line per regularizer and lam: which seeds are `pending`, by trial key, and which are finished."""
    cells: dict[str, tuple[list[int], list[int]]] = {}
    for trial in trials:
        cells.setdefault(sweep.cell(trial), ([], []))[trial.key not in pending].append(trial.seed)
    for cell, (train, finished) in cells.items():
        parts = [
            f"{word} seeds {format_seeds(part)}"
            for word, part in (("train", train), ("skip finished", finished))
            if part
        ]
        console.print(f"  {cell:<34} {'; '.join(parts)}")


def print_choice(console: Console, plan: Plan, choices: Mapping[str, Choice] | None = None) -> None:
    """Print the lams for the fresh seeds; `choices`, by method, have the means that led to them."""
    parts = []
    for method, lam in plan.lams.items():
        found = (choices or {}).get(method)
        parts.append(f"{method} {format_lam(lam)}")
        if found and len(found.means) > 1:
            edge = f", the {found.edge} of the grid" if found.at_edge else ""
            parts[-1] += f" (validation {text.percent(found.means[found.lam])}{edge})"
    who = "an earlier start has chosen" if plan.chosen_by and not choices else "chosen on validation"
    if parts:
        console.print(f"lam, {who}: {', '.join(parts)}")
    missing = [method for method in plan.sweep.methods if method not in plan.lams]
    if missing:
        console.print(f"no lam could be chosen for {', '.join(missing)}: at each a trial failed or diverged")


def print_look(console: Console, plan: Plan, results: Mapping[str, Result]) -> None:
    """Print the verdicts on the fresh seeds so far."""
    for method, (found, (*_, difference, bounds, verdict)) in fresh_table(plan.sweep, plan.lams, results).items():
        if found.looked:
            goes_on = found.looked < plan.sweep.looks[-1] and not found.settled
            console.print(
                f"after {found.looked} fresh seeds: {method} {difference} pp ({bounds}): "
                f"{'not settled, goes on' if goes_on else verdict}"
            )


def print_estimate(console: Console, plan: Plan, data: Images, engine: Engine) -> None:
    """Print how long the sweep takes, measured on some steps of the engine."""
    fresh = [trial for trial in plan.sweep.longest if plan.sweep.is_fresh(trial) and trial.key not in plan.kept]
    grid = [trial for trial in plan.todo if not plan.sweep.is_fresh(trial)]
    parts, total, rounded = [], 0.0, 0.0
    for what, trials in (("", grid), ("fresh seeds at most ", fresh)):
        if trials:
            seconds = planning.estimate(trials, data, engine)
            if seconds is None:
                console.print("estimated time: unknown, since a first training step fails")
                return
            total += seconds
            parts.append(f"{what}{timedelta(seconds=round(seconds))}")
            rounded += planning.estimate_in_bf16(trials, data, engine) or seconds if total > WORTH_BF16 else seconds
    console.print(f"estimated time: {', '.join(parts)} (from steps measured on this device)")
    if rounded < MOST_OF_FLOAT32 * total:
        console.print(f"with precision=bf16 {timedelta(seconds=round(rounded))} in all; what it changes: docs/speed.md")
    if total > LONG_SECONDS:
        console.print(
            "to shorten it: a smaller train_size, fewer epochs, fewer lams, a smaller confirm, or a machine with a GPU"
        )


def _format_power(sweep: Sweep) -> str:
    """Return what the sweep will be able to show, where differences spread as is assumed."""
    from regbench.statistics.power import GAINS, SPREAD, power  # late: a plan is often read for something else

    methods = sweep.family
    if not sweep.confirm:
        least = seeds_needed(methods) + 1
        if len(sweep.seeds) < least:
            return (
                f"evidence: {len(sweep.seeds)} seeds are too few to choose lam and to judge {methods} regularizer(s); take "
                f"{least} or more, or fresh ones by confirm"
            )
        return (
            "evidence: without fresh seeds (confirm=0) the report splits the seeds: the first choose lam, the others "
            "confirm it"
        )
    found = power(sweep.looks, methods)
    if not any(found.better):
        return (
            f"evidence: {sweep.looks[-1]} fresh seeds are too few for a verdict on {methods} regularizer(s); "
            f"take confirm={seeds_needed(methods)} or more"
        )
    chances = (f"{100 * gain:g} points {chance:.0%}" for gain, chance in zip(GAINS, found.better, strict=True))
    return (
        f"evidence, if paired differences spread by {100 * SPREAD:g} points: the chance to show a true gain of "
        f"{', '.join(chances)}; to show that there is none {found.equivalent:.0%}, after {found.seeds:.0f} seeds on average"
    )


def print_results(console: Console, plan: Plan, results: Mapping[str, Result]) -> None:
    """Print the means over the seeds of the grid, the verdicts on fresh seeds, and why trials did not go well.

    `results` are by trial key.
    """
    _print_table(console, "means over seeds", HEADINGS, table(plan.sweep, results))
    if plan.lams:
        rows = [row for _, row in fresh_table(plan.sweep, plan.lams, results).values()]
        _print_table(console, "verdicts", FRESH_HEADINGS, rows)
    wrong = [result for result in results.values() if result.reason]
    for result in wrong[:MOST_REASONS]:
        console.print(f"{result.status}: {plan.sweep.name(result.trial)}: {result.reason}")
    if len(wrong) > MOST_REASONS:
        console.print(f"and {len(wrong) - MOST_REASONS} more; in MLflow: tags.`{schema.STATUS}` != 'ok'")


def _print_table(console: Console, title: str, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    shown = Table(title=title, box=None, title_justify="left")
    shown.add_column(headings[0], no_wrap=True)
    for heading in headings[1:]:
        shown.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        shown.add_row(*row)
    # as wide as it is: where it is wider than the screen, rich would leave out its numbers
    shown.width = Measurement.get(console, console.options.update(max_width=WIDEST), shown).maximum
    console.print(shown)


def print_models(console: Console, models: Mapping[str, str]) -> None:
    """Print how the networks that are logged models, trial's name -> model's id, are loaded."""
    console.print("trained networks, for mlflow.pytorch.load_model:")
    for name, model_id in models.items():
        console.print(f"  models:/{model_id}  {name}")


def print_store(console: Console, store: Store, page: str) -> None:
    """Print where the runs are, and how to look at them; `page` is the end of the address of their page."""
    uri = without_password(store.uri)
    if store.uri.startswith("http"):
        look = f"at: {uri.rstrip('/')}/{page}"
    else:
        look = f"with: mlflow ui --backend-store-uri {shlex.quote(uri)}, at: http://127.0.0.1:5000/{page}"
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
    """Shows `trials` as they run: a bar on a terminal, elsewhere a line for each, with `verbose` for each epoch.

    The remaining time is that of epochs so far.
    """

    def __init__(self, sweep: Sweep, trials: Sequence[Trial], console: Console, verbose: bool = False) -> None:
        self._console, self._sweep, self._trials, self._verbose = console, sweep, len(trials), verbose
        self._running: dict[Trial, _Running] = {}
        self._total = sum(trial.recipe.epochs for trial in trials)
        self._done, self._begin = 0, time.monotonic()
        self._ended, self._said = 0, self._begin
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
            if self._verbose or now - self._said > SECONDS_BETWEEN_LINES:
                self._said = now
                self._console.print(f"{self._label(trial)} {text}, {now - running.begin:.1f} s, {left} left")

    def end(self, trial: Trial, text: str) -> None:
        # a trial that diverged or failed has fewer epochs than planned
        self._done += trial.recipe.epochs - self._running[trial].epochs
        if self._bar:
            self._bar.update(self._task, completed=self._done)
        self._said = time.monotonic()
        self._console.print(f"{self._label(trial)} {text}")
        del self._running[trial]
        self._ended += 1

    def _label(self, trial: Trial) -> str:
        return f"({self._running[trial].position}/{self._trials}) {self._sweep.name(trial)}"
