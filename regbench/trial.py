"""Recipe, trial, sweep and grid: what is to be trained."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property

import click
import numpy as np

from regbench import identity
from regbench.click_fields import choice, option, real, whole
from regbench.identity import digest
from regbench.regularizers import BASELINE

SCOPES = ("weights", "all")
# of the arithmetic: tf32 and bf16 round the factors of products to 11 and 8 bits and add up in float32
PRECISIONS = ("float32", "tf32", "bf16", "float64")
NOTEBOOK = "notebook"
MAX_EPOCHS = 1_000_000


@dataclass(frozen=True)
class Recipe:
    """What all trials of a comparison share. Sizes in images; `train_size` includes the `val_size` held out of it.

    A field that is an option of the sweep is declared here, once: see options.py.
    """

    dataset: str
    fingerprint: str
    train_size: int
    val_size: int
    model: str = option(NOTEBOOK, click.STRING, "notebook, or pkg.module:Class.")
    epochs: int = option(30, whole(1, MAX_EPOCHS))
    batch_size: int = option(100, whole(1, 10**9))
    lr: float = option(
        0.01, real(click.FloatRange(0, 100, min_open=True), "above 0, at most 100"), "Learning rate of SGD."
    )
    momentum: float = option(0.9, real(click.FloatRange(0, 1, max_open=True), "of 0 or more, below 1"))
    precision: str = option("float32", choice(*PRECISIONS), f"One of {', '.join(PRECISIONS)}.")

    @property
    def id(self) -> str:
        """12 hex digits; recipes that differ only in the data set's name have the same."""
        return digest(self._decisive())[:12]

    def __str__(self) -> str:
        return (
            f"{self.model}, {self.train_size - self.val_size:,} images trained on, {self.val_size:,} held out for "
            f"validation, {self.epochs} epochs, batch {self.batch_size}, lr {self.lr:g}, momentum {self.momentum:g}, "
            f"{self.precision}"
        )

    def _decisive(self) -> dict[str, object]:
        fields = asdict(self)
        fields.pop("dataset")  # may be a folder's name; the fingerprint says what is in it
        return fields


@dataclass(frozen=True)
class Trial:
    """One training. `scope` says which tensors are regularized: weights (ndim >= 2) or all."""

    recipe: Recipe
    regularizer: str
    lam: float
    seed: int
    scope: str = "weights"

    @property
    def cell(self) -> str:
        """The trial's name without its seed: what is averaged over seeds."""
        if self.regularizer == BASELINE:
            return BASELINE
        scope = "" if self.scope == "weights" else f" scope={self.scope}"
        return f"{self.regularizer} lam={format_lam(self.lam)}{scope}"

    @property
    def name(self) -> str:
        return f"{self.cell} seed={self.seed}"

    @cached_property
    def key(self) -> str:
        """sha256, hex, of all that determines the result: not of the data's path, the device or the engine."""
        return identity.trial_key(asdict(self) | {"recipe": self.recipe._decisive()})


@dataclass(frozen=True)
class Sweep:
    """The trials of one comparison, in the order in which they are trained."""

    trials: tuple[Trial, ...]

    @cached_property
    def id(self) -> str:
        """12 hex digits that are the same for the same set of trials in any order."""
        return digest(sorted(trial.key for trial in self.trials))[:12]

    @property
    def recipes(self) -> tuple[Recipe, ...]:
        return tuple(dict.fromkeys(trial.recipe for trial in self.trials))


def grid(recipe: Recipe, cells: Sequence[tuple[str, float]], seeds: Sequence[int], scope: str = "weights") -> Sweep:
    """Return the sweep of every cell, a regularizer's name and lam (see `regularizers.cells`), with every seed.

    Seeds are the outermost loop, so that a sweep that is cut off holds whole comparisons over fewer seeds.
    """
    # `none` has no penalty for a scope to select, so its trials serve sweeps of every scope
    return Sweep(
        tuple(
            Trial(recipe, name, lam, seed, "weights" if name == BASELINE else scope)
            for seed in seeds
            for name, lam in cells
        )
    )


def format_lam(lam: float) -> str:
    """Return the shortest text for `lam`: 1e-4, 3.5e-5, 0.95, 0."""
    scientific = np.format_float_scientific(lam, trim="-", exp_digits=1).removesuffix("e+0")
    return min(scientific, np.format_float_positional(lam, trim="-"), key=len)


def format_seeds(seeds: Sequence[int]) -> str:
    """Return sorted seeds as text in which runs of three and more are ranges: 0-4, 7."""
    runs: list[list[int]] = []
    for seed in sorted(seeds):
        if runs and seed == runs[-1][-1] + 1:
            runs[-1].append(seed)
        else:
            runs.append([seed])
    return ", ".join(f"{run[0]}-{run[-1]}" if len(run) > 2 else ", ".join(map(str, run)) for run in runs)
