"""The progress of trials in a Jupyter notebook, where neither a terminal's bar nor a line for each epoch can be read."""

import warnings
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager

from rich.console import Console

from regbench.trial import Sweep, Trial


def is_running() -> bool:
    """Return whether this is the kernel of a notebook, as of JupyterLab or Colab."""
    return Console().is_jupyter


def bar() -> type:
    """Return the class of the bar: a widget where there are some, else text, and then without a warning of that."""
    with warnings.catch_warnings(action="ignore"):
        from tqdm.auto import tqdm
    return tqdm


class Progress(AbstractContextManager):
    """Shows `trials` as they run, as `regbench.console.Progress` does: one bar of epochs."""

    def __init__(self, sweep: Sweep, trials: Sequence[Trial]) -> None:
        self._sweep, self._numbers = sweep, {trial: number for number, trial in enumerate(trials, 1)}
        self._epochs: dict[Trial, int] = {}
        self._bar = bar()(total=sum(trial.recipe.epochs for trial in trials), unit="epoch")

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def start(self, trial: Trial) -> None:
        self._epochs[trial] = 0
        self._say(trial, "")

    def epoch(self, trial: Trial, epoch: int, metrics: Mapping[str, float]) -> None:
        self._epochs[trial] = epoch
        accuracy = metrics.get("val/accuracy", metrics["train/accuracy"])
        kind = "validation" if "val/accuracy" in metrics else "training"
        self._say(trial, f"epoch {epoch}, {kind} {accuracy:.1%}")
        self._bar.update()

    def end(self, trial: Trial, text: str) -> None:
        self._say(trial, text)
        # a trial that diverged or failed has fewer epochs than planned
        self._bar.update(trial.recipe.epochs - self._epochs.pop(trial))

    def _say(self, trial: Trial, text: str) -> None:
        self._bar.set_description_str(f"({self._numbers[trial]}/{len(self._numbers)}) {self._sweep.name(trial)}", False)
        self._bar.set_postfix_str(text, False)
