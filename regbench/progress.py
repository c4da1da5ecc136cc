"""What a user sees while trials run: a progress bar on a terminal, plain lines elsewhere."""

import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from datetime import timedelta

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from regbench.sweep import Trial


def describe(metrics: Mapping[str, float]) -> str:
    """Return the notebook's line for an epoch: mean loss with the penalty and training accuracy, then validation."""
    text = f"loss {metrics['train/objective']:.4f}, accuracy {metrics['train/accuracy']:.4f}"
    if metrics["train/objective"] != metrics["train/loss"]:
        text += f", cross-entropy {metrics['train/loss']:.4f}"
    if "val/accuracy" in metrics:
        text += f", validation {metrics['val/accuracy']:.4f}"
    return text


class Reporter(AbstractContextManager):
    """Tells of `trials` as they run; the remaining time is that of epochs so far."""

    def __init__(self, trials: tuple[Trial, ...], console: Console) -> None:
        self._console, self._position, self._trials = console, 0, len(trials)
        self._total = sum(trial.recipe.epochs for trial in trials)
        self._done, self._begin = 0, time.monotonic()
        self._bar = None
        if console.is_terminal:
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
        self._position += 1
        self._trial_done, self._trial_begin = 0, time.monotonic()
        if self._bar:
            self._bar.update(self._task, description=self._label(trial))

    def epoch(self, trial: Trial, epoch: int, metrics: Mapping[str, float]) -> None:
        self._done, self._trial_done = self._done + 1, epoch
        text = f"epoch {epoch}/{trial.recipe.epochs}: {describe(metrics)}"
        if self._bar:
            self._bar.update(self._task, completed=self._done, description=f"{self._label(trial)} {text}")
        else:
            now = time.monotonic()
            left = timedelta(seconds=round((now - self._begin) / self._done * (self._total - self._done)))
            self.say(f"{self._label(trial)} {text}, {now - self._trial_begin:.1f} s, {left} left")

    def end(self, trial: Trial, text: str) -> None:
        # a trial that diverged or failed has fewer epochs than planned
        self._done += trial.recipe.epochs - self._trial_done
        if self._bar:
            self._bar.update(self._task, completed=self._done)
        self.say(f"{self._label(trial)} {text}")

    def say(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def _label(self, trial: Trial) -> str:
        return f"({self._position}/{self._trials}) {trial.name}"
