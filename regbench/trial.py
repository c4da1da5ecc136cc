"""Recipe, trial, sweep and grid: what is to be trained."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property

import click

from regbench import identity
from regbench.click_fields import choice, option, real, whole
from regbench.identity import digest
from regbench.networks import PACKAGED
from regbench.regularizers import BASELINE, format_lam

# of a sweep, beside patterns of the names of parameters
SCOPES = ("weights", "all", "no_norm")
# of the arithmetic: tf32 and bf16 round the factors of products to 11 and 8 bits and add up in float32
PRECISIONS = ("float32", "tf32", "bf16", "float64")
OPTIMIZERS = ("sgd", "nesterov", "adam")
# of the learning rate, from epoch to epoch; of the weights, from step to step
SCHEDULES = ("constant", "cosine", "linear", "step")
AVERAGES = ("none", "ema")
AUGMENTATIONS = ("none", "flip_crop")
# options that earlier versions had not, at the values for which everything is as it was there
NEUTRAL = {
    "optimizer": "sgd",
    "schedule": "constant",
    "warmup": 0,
    "average": "none",
    "augment": "none",
    "input_noise": 0.0,
}
NOTEBOOK = "notebook"
RATE = real(click.FloatRange(0, 100, min_open=True), "above 0, at most 100")
MAX_EPOCHS = 1_000_000


@dataclass(frozen=True)
class Recipe:
    """What all trials of a comparison share. Sizes in images; `train_size` includes the `val_size` held out of it.

    A field that is an option of the sweep is declared here, once: see click_fields.py.
    """

    dataset: str
    fingerprint: str
    train_size: int
    val_size: int
    model: str = option(NOTEBOOK, click.STRING, f"One of {', '.join(PACKAGED)}, or your own as pkg.module:Class.")
    epochs: int = option(30, whole(1, MAX_EPOCHS))
    batch_size: int = option(100, whole(1, 10**9))
    lr: float = option(0.01, RATE, "Learning rate.")
    momentum: float = option(
        0.9, real(click.FloatRange(0, 1, max_open=True), "of 0 or more, below 1"), "Of the optimizer; Adam's beta1."
    )
    optimizer: str = option(
        "sgd",
        choice(*OPTIMIZERS),
        f"One of {', '.join(OPTIMIZERS)}: SGD with momentum, with Nesterov's momentum, or Adam.",
    )
    schedule: str = option(
        "cosine", choice(*SCHEDULES), f"Of the learning rate, an epoch at a time: one of {', '.join(SCHEDULES)}."
    )
    warmup: int = option(0, whole(0, MAX_EPOCHS - 1), "First epochs, in which the learning rate rises linearly.")
    average: str = option(
        "none", choice(*AVERAGES), "Of the weights, in what is evaluated and saved: none, or ema (moving, over steps)."
    )
    augment: str = option(
        "none",
        choice(*AUGMENTATIONS),
        "Of training images: none, or flip_crop (mirrored half of the time, shifted by up to 4 pixels).",
    )
    input_noise: float = option(
        0.0,
        real(click.FloatRange(0, 100), "of 0 or more, at most 100"),
        "Standard deviation of Gaussian noise on training images, of pixels in [0, 1].",
    )
    precision: str = option("float32", choice(*PRECISIONS), f"One of {', '.join(PRECISIONS)}.")

    @property
    def id(self) -> str:
        """12 hex digits; recipes that differ only in the data set's name have the same."""
        return digest(self._decisive())[:12]

    def __str__(self) -> str:
        return (
            f"{self.model}, {self.train_size - self.val_size:,} images trained on, {self.val_size:,} held out for "
            f"validation, {self.epochs} epochs, batch {self.batch_size}, lr {self.lr}, "
            f"momentum {self.momentum:g}, {self._said_unless_neutral()}{self.precision}"
        )

    def _said_unless_neutral(self) -> str:
        texts = {
            "optimizer": f"optimizer {self.optimizer}",
            "schedule": f"{self.schedule} schedule",
            "warmup": f"warm-up {self.warmup} epoch{'s' if self.warmup != 1 else ''}",
            "average": f"weights averaged ({self.average})",
            "augment": f"augmented ({self.augment})",
            "input_noise": f"input noise {self.input_noise:g}",
        }
        return "".join(f"{text}, " for name, text in texts.items() if getattr(self, name) != NEUTRAL[name])

    def _decisive(self) -> dict[str, object]:
        fields = asdict(self)
        fields.pop("dataset")  # may be a folder's name; the fingerprint says what is in it
        # what earlier versions have trained keeps its key
        return {name: value for name, value in fields.items() if name not in NEUTRAL or value != NEUTRAL[name]}


@dataclass(frozen=True)
class Trial:
    """One training. `scope` says which tensors are regularized: one of SCOPES, or patterns (see training/scope.py)."""

    recipe: Recipe
    regularizer: str
    lam: float
    seed: int
    scope: str = "weights"

    @property
    def method(self) -> str:
        """The name under which a regularizer is compared: with its scope unless that is the default."""
        return method(self.regularizer, self.scope)

    @property
    def cell(self) -> str:
        """The trial's name without its seed: what is averaged over seeds."""
        if self.regularizer == BASELINE:
            return BASELINE
        return f"{self.regularizer} lam={format_lam(self.lam)}{_scope_suffix(self.scope)}"

    @property
    def name(self) -> str:
        return f"{self.cell} seed={self.seed}"

    @cached_property
    def key(self) -> str:
        """sha256, hex, of all that determines the result: not of the data's path, the device or the engine."""
        return identity.trial_key(asdict(self) | {"recipe": self.recipe._decisive()})


@dataclass(frozen=True)
class Sweep:
    """The trials of one comparison: those of a grid, in the order in which they are trained, and then of fresh seeds.

    On the fresh seeds `confirm` each regularizer is trained at the lam that the grid has chosen, and `none`; they are
    judged after so many of them as `looks` says. Without fresh seeds the grid is all.
    """

    trials: tuple[Trial, ...]
    confirm: tuple[int, ...] = ()
    looks: tuple[int, ...] = ()

    @cached_property
    def id(self) -> str:
        """12 hex digits that are the same for the same set of trials in any order, and the same fresh seeds."""
        fresh = [list(self.confirm), list(self.looks)] if self.confirm else []
        return digest(sorted(trial.key for trial in self.trials) + fresh)[:12]

    @cached_property
    def recipes(self) -> tuple[Recipe, ...]:
        """Several are compared side by side, each with its own `none`."""
        return tuple(dict.fromkeys(trial.recipe for trial in self.trials))

    @cached_property
    def rates(self) -> tuple[float, ...]:
        """The learning rates: of several recipes what tells a regularizer's methods apart."""
        return tuple(dict.fromkeys(recipe.lr for recipe in self.recipes))

    @property
    def methods(self) -> tuple[str, ...]:
        """The regularizers beside `none`, as they are compared: see `method`."""
        return tuple(self.arms)

    def method(self, trial: Trial) -> str:
        """Return the name under which a trial is compared in this sweep: with its learning rate if there are several."""
        return f"{trial.method}{self._suffix(trial)}"

    def cell(self, trial: Trial) -> str:
        """Return a trial's name without its seed, with its learning rate if there are several."""
        return f"{trial.cell}{self._suffix(trial)}"

    def name(self, trial: Trial) -> str:
        """Return a trial's name, with its learning rate if there are several."""
        return f"{self.cell(trial)} seed={trial.seed}"

    def _suffix(self, trial: Trial) -> str:
        return f" lr={trial.recipe.lr}" if len(self.rates) > 1 else ""

    @cached_property
    def arms(self) -> dict[str, Trial]:
        """The first trial of each method, which has its recipe, regularizer and scope."""
        arms: dict[str, Trial] = {}
        for trial in self.trials:
            if trial.regularizer != BASELINE:
                arms.setdefault(self.method(trial), trial)
        return arms

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds of the grid."""
        return tuple(dict.fromkeys(trial.seed for trial in self.trials))

    def is_fresh(self, trial: Trial) -> bool:
        """Return whether a trial is one on a fresh seed, and not of the grid."""
        return trial.seed in self.confirm

    @property
    def family(self) -> int:
        """How many methods are judged together: those of a recipe."""
        return max(Counter(arm.recipe for arm in self.arms.values()).values(), default=0)

    def pair(self, method: str, lam: float, seed: int) -> tuple[Trial, Trial]:
        """Return the trial of `none` and that of a method at a lam, both of the method's recipe, on a fresh seed."""
        arm = self.arms[method]
        return Trial(arm.recipe, BASELINE, 0.0, seed), replace(arm, lam=lam, seed=seed)

    @property
    def longest(self) -> tuple[Trial, ...]:
        """The grid and all trials that the fresh seeds can take, at any lam: a trial takes as long at every lam."""
        lams = {self.method(trial): trial.lam for trial in self.trials if trial.regularizer != BASELINE}
        fresh = (
            trial for seed in self.confirm for method, lam in lams.items() for trial in self.pair(method, lam, seed)
        )
        return self.trials + tuple(dict.fromkeys(fresh))


def grid(
    recipe: Recipe,
    cells: Sequence[tuple[str, float]],
    seeds: Sequence[int],
    scope: str = "weights",
    confirm: Sequence[int] = (),
    looks: Sequence[int] = (),
) -> Sweep:
    """Return the sweep of every cell, a regularizer's name and lam (see `regularizers.cells`), with every seed.

    Seeds are the outermost loop, so that a sweep that is cut off holds whole comparisons over fewer seeds.
    """
    # `none` has no penalty for a scope to select, so its trials serve sweeps of every scope
    trials = tuple(
        Trial(recipe, name, lam, seed, "weights" if name == BASELINE else scope)
        for seed in seeds
        for name, lam in cells
    )
    return Sweep(trials, tuple(confirm), tuple(looks))


def side_by_side(sweeps: Sequence[Sweep]) -> Sweep:
    """Return the one sweep of several with the same seeds and looks, of other recipes or scopes."""
    trials = dict.fromkeys(trial for sweep in sweeps for trial in sweep.trials)
    order = {seed: place for place, seed in enumerate(sweeps[0].seeds)}
    return replace(sweeps[0], trials=tuple(sorted(trials, key=lambda trial: order[trial.seed])))


def method(regularizer: str, scope: str) -> str:
    """Return the name under which a regularizer is compared: with its scope unless that is the default."""
    return regularizer if regularizer == BASELINE else f"{regularizer}{_scope_suffix(scope)}"


def _scope_suffix(scope: str) -> str:
    return "" if scope in ("weights", "") else f" scope={scope}"


def default_val_size(train_size: int, classes: int) -> int:
    """Return how many images are held out for validation unless it is said: a tenth, one of each class at least."""
    return max(train_size // 10, classes)


def format_seeds(seeds: Sequence[int]) -> str:
    """Return sorted seeds as text in which runs of three and more are ranges: 0-4, 7."""
    runs: list[list[int]] = []
    for seed in sorted(seeds):
        if runs and seed == runs[-1][-1] + 1:
            runs[-1].append(seed)
        else:
            runs.append([seed])
    return ", ".join(f"{run[0]}-{run[-1]}" if len(run) > 2 else ", ".join(map(str, run)) for run in runs)


def seeds_option(seeds: Sequence[int]) -> str:
    """Return seeds as options take them: 0-4,7, and a single one as a range, since it would be a number of seeds."""
    return format_seeds(seeds).replace(" ", "") if len(seeds) > 1 else f"{seeds[0]}-{seeds[0]}"


def parse_seeds(text: str) -> tuple[int, ...]:
    """Return the seeds of a text by `format_seeds`; raises ValueError for another one."""
    ranges = [item.split("-") for item in text.split(", ")] if text else []
    return tuple(seed for first, *last in ranges for seed in range(int(first), int(last[0] if last else first) + 1))
