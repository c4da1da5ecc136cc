"""Recipe, trial, sweep and trial key: what is to be trained, and what makes two trainings the same."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property

import numpy as np

from regbench import identity, regularizers
from regbench.identity import digest

SCOPES = ("weights", "all")
# of the arithmetic: tf32 and bf16 round the factors of products to 11 and 8 bits and add up in float32
PRECISIONS = ("float32", "tf32", "bf16", "float64")
BASELINE = "none"
NOTEBOOK = "notebook"


@dataclass(frozen=True)
class Recipe:
    """What all trials of a comparison share. Sizes in images; `train_size` includes the `val_size` held out of it."""

    dataset: str
    fingerprint: str
    train_size: int
    val_size: int
    model: str = NOTEBOOK
    epochs: int = 30
    batch_size: int = 100
    lr: float = 0.01
    momentum: float = 0.9
    precision: str = "float32"

    @property
    def id(self) -> str:
        """12 hex digits; recipes that differ only in the data set's name have the same."""
        return digest(self._decisive())[:12]

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
        described = asdict(self) | {"recipe": self.recipe._decisive()}
        return digest(described | identity.code(self.regularizer, self.recipe.model))


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


def grid(
    recipe: Recipe,
    regs: Sequence[str],
    lams: Sequence[float] | None,
    seeds: Sequence[int],
    scope: str = "weights",
    baseline: bool = True,
) -> Sweep:
    """Return every regularizer x lam x seed; `lams` None means each regularizer's own grid.

    `none` comes first unless `baseline` is false and it is not in `regs`. Seeds are the outermost loop, so that a
    sweep that is cut off holds whole comparisons over fewer seeds. Raises UserError for an unknown regularizer, one
    without a grid of its own where that is asked for, or a lam that one cannot take.
    """
    names = [BASELINE, *(name for name in regs if name != BASELINE)] if baseline or BASELINE in regs else list(regs)
    cells = [
        (name, lam)
        for name in names
        for lam in (regularizers.own_lams(name) if lams is None or name == BASELINE else lams)
    ]
    for name, lam in cells:
        regularizers.check_lam(name, lam)
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
