"""How much a verdict's noise depends on the recipe: the spread of paired differences by schedule and averaging.

python -m benchmarks.noise --data_dir=cifar10-jpeg --seeds=24 --jobs=2

Every recipe trains `none` and `weight_decay` on the same seeds: the notebook's network, on 2,000 images. The spread of
their differences in test accuracy decides how many seeds a verdict takes. What an earlier run has trained is taken from its
accuracies.csv.
"""

import platform
from dataclasses import replace
from importlib.metadata import version
from itertools import product
from pathlib import Path

import click
import numpy as np
import pandas as pd
from scipy import stats

from benchmarks import pages
from benchmarks.training import test_accuracies
from regbench import data
from regbench.commands import exit_code
from regbench.report.tables import table
from regbench.report.text import number, points
from regbench.statistics.paired import noise
from regbench.statistics.power import GAINS, seeds_for
from regbench.trial import BASELINE, Recipe, Trial

RECIPES = (("constant", "none"), ("constant", "ema"), ("linear", "none"), ("cosine", "none"))
REGULARIZER, LAM = "weight_decay", 2e-3
SIZE, EPOCHS, LR = 2_000, 20, 0.05
CELL = ["schedule", "average", "regularizer", "seed"]  # columns that name a training


def accuracies(rows: pd.DataFrame) -> dict[tuple[str, str], tuple[np.ndarray, np.ndarray]]:
    """Return schedule and average -> accuracies with the regularizer and without, seed by seed."""
    found = {}
    for recipe, group in rows.groupby(["schedule", "average"], sort=False):
        table = group.pivot(index="seed", columns="regularizer", values="accuracy")
        found[recipe] = table[REGULARIZER].to_numpy(), table[BASELINE].to_numpy()
    return found


def spreads(rows: pd.DataFrame) -> list[tuple[str, ...]]:
    """Return a row of texts per recipe: accuracies, their difference, its spread and what that costs."""
    found = []
    for (schedule, average), (own, base) in accuracies(rows).items():
        measured, freedom = noise(own, base), len(own) - 1
        # of the standard deviation of normal differences
        low, high = measured.spread * np.sqrt(freedom / stats.chi2.ppf([0.975, 0.025], freedom))
        robust = stats.median_abs_deviation(own - base, scale="normal")
        needed = [seeds_for(gain, measured.spread, 1) for gain in GAINS]
        found.append((
            schedule, average, f"{100 * base.mean():.2f} %", points(own.mean() - base.mean()),
            f"{100 * measured.spread:.2f} ({100 * low:.2f} to {100 * high:.2f})", f"{100 * robust:.2f}",
            number(measured.correlation),
            *(number(count, ",.0f") for count in needed),
        ))  # fmt: skip
    return found


def readme(rows: pd.DataFrame, recipe: Recipe, command: str) -> str:
    """Return the committed page."""
    header = ("schedule", "average", BASELINE, "difference, pp", "its spread, pp", "without outliers", "correlation",
              *(f"seeds for {100 * gain:g} pp" for gain in GAINS))  # fmt: skip
    return f"""# The noise of a verdict, by recipe

    {command}

{recipe.dataset} ({replace(recipe, schedule="constant")}; other schedules and averages as in the table):
`{REGULARIZER}` at lam {LAM:g} against `{BASELINE}` on {rows["seed"].nunique()} seeds.
Python {platform.python_version()}, torch {version("torch")}, one thread a training.
All accuracies: [accuracies.csv](accuracies.csv).

{table(header, spreads(rows))}

![Differences of the test accuracies, seed by seed](differences.png)

Spread: the standard deviation of the paired differences, with its 95 % interval for normal ones. Without outliers: what
it would be of normal ones with the same median distance from the median, which the few trainings that go wrong do not
move. Correlation: of both accuracies over seeds. Seeds: how many fresh ones show a true gain of so much with a chance
of 80 %, of one regularizer at a single look, at the measured spread.
"""


def _cell(trial: Trial) -> tuple[str, str, str, int]:
    return trial.recipe.schedule, trial.recipe.average, trial.regularizer, trial.seed


@click.command(context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.option("--data_dir", type=click.Path(exists=True, file_okay=False, path_type=Path), required=True)
@click.option("--seeds", type=click.IntRange(2), default=24)
@click.option("--jobs", type=click.IntRange(1), default=1, help="Trainings side by side.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("benchmarks/results/noise"))
def main(data_dir: Path, seeds: int, jobs: int, out: Path) -> int:
    """Train both on SEEDS seeds with every recipe, and tell the spread of their differences."""
    images = data.load("folder", data_dir)
    recipe = Recipe(images.name, images.fingerprint, SIZE, 0, epochs=EPOCHS, lr=LR)
    trials = [
        Trial(replace(recipe, schedule=schedule, average=average), name, lam, seed)
        for (schedule, average), seed, (name, lam) in product(
            RECIPES, range(seeds), ((BASELINE, 0.0), (REGULARIZER, LAM))
        )
    ]
    rows = test_accuracies(trials, CELL, _cell, images, out / "accuracies.csv", jobs)
    page = readme(rows, recipe, f"python -m benchmarks.noise --data_dir={images.name} --seeds={seeds} --jobs={jobs}")
    differences = {
        f"{name}, average {average}": own - base for (name, average), (own, base) in accuracies(rows).items()
    }
    figure = pages.strip(differences, f"{REGULARIZER} minus {BASELINE}, points (grey: practically none)")
    csv = rows.to_csv(index=False, lineterminator="\n")
    pages.write(out, {"accuracies.csv": csv, "differences.png": pages.png(figure), "README.md": page})
    click.echo(page)
    return 0


if __name__ == "__main__":
    exit_code.run(main)
