"""What a user sees while trials run: a progress bar on a terminal, plain lines elsewhere."""

import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import timedelta

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from regbench.sweep import Trial

# trials at once of which each epoch is told on a line
FEW = 4
SECONDS_BETWEEN_LINES = 10.0


def describe(metrics: Mapping[str, float]) -> str:
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


class Reporter(AbstractContextManager):
    """Tells of `trials` as they run; the remaining time is that of epochs so far."""

    def __init__(self, trials: tuple[Trial, ...], console: Console) -> None:
        self._console, self._trials = console, len(trials)
        self._running: dict[Trial, _Running] = {}
        self._ended, self._said = 0, 0.0
        self._total = sum(trial.recipe.epochs for trial in trials)
        self._done, self._begin = 0, time.monotonic()
        self._bar = None
        # FORCE_COLOR has rich take a file for a terminal; a dumb terminal cannot redraw a bar
        if console.is_interactive and console.file.isatty():
            self._bar = Progress(
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

    def __enter__(self) -> "Reporter":
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
        text = f"epoch {epoch}/{trial.recipe.epochs}: {describe(metrics)}"
        if self._bar:
            self._bar.update(self._task, completed=self._done, description=f"{self._label(trial)} {text}")
        else:
            now = time.monotonic()
            left = timedelta(seconds=round((now - self._begin) / self._done * (self._total - self._done)))
            # a stack of many would fill the screen at each epoch
            if len(self._running) <= FEW or now - self._said > SECONDS_BETWEEN_LINES:
                self._said = now
                self.say(f"{self._label(trial)} {text}, {now - running.begin:.1f} s, {left} left")

    def end(self, trial: Trial, text: str) -> None:
        # a trial that diverged or failed has fewer epochs than planned
        self._done += trial.recipe.epochs - self._running[trial].epochs
        if self._bar:
            self._bar.update(self._task, completed=self._done)
        self.say(f"{self._label(trial)} {text}")
        del self._running[trial]
        self._ended += 1

    def say(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def _label(self, trial: Trial) -> str:
        return f"({self._running[trial].position}/{self._trials}) {trial.name}"
