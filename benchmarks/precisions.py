"""Does rounding change the answer? The same trainings in float32 and in other precisions, seed by seed.

python -m benchmarks.precisions --data_dir=cifar10-jpeg --seeds=20 --jobs=2

The notebook's network, on 2,000 images, without regularization. What an earlier run has trained is taken from its
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
import torch

from benchmarks import pages
from benchmarks.noise import EPOCHS, LR, SIZE
from benchmarks.training import test_accuracies
from regbench import data, provenance
from regbench.click_fields import Several, choice
from regbench.commands import exit_code
from regbench.report.tables import table
from regbench.report.text import bounds, difference, level, number, percent
from regbench.statistics.verdict import MARGIN, judge
from regbench.training import precision
from regbench.trial import BASELINE, PRECISIONS, Recipe, Trial

REFERENCE = "float32"
CELL = ["precision", "recipe", "seed"]  # columns that name a training; of the recipe its id


def differences(rows: pd.DataFrame) -> dict[str, np.ndarray]:
    """Return precision -> its accuracies minus those of float32, seed by seed."""
    accuracies = rows.pivot(index="seed", columns="precision", values="accuracy")
    others = [kind for kind in dict.fromkeys(rows["precision"]) if kind != REFERENCE]
    return {kind: (accuracies[kind] - accuracies[REFERENCE]).to_numpy() for kind in others}


def comparisons(rows: pd.DataFrame) -> list[tuple[str, ...]]:
    """Return a row of texts per precision beside float32: accuracies, their paired difference and the verdict on it."""
    accuracies, paired, found = rows.pivot(index="seed", columns="precision", values="accuracy"), differences(rows), []
    for kind, comparison in judge(paired, (len(accuracies),)).items():
        interval, own, base = comparison.difference, accuracies[kind].mean(), accuracies[REFERENCE].mean()
        found.append((
            kind, *map(percent, (own, base)), number(difference(own, base), "+.2f"),
            f"{bounds(interval)} ({level(interval)})", number(100 * paired[kind].std(ddof=1)), comparison.verdict,
        ))  # fmt: skip
    return found


def readme(rows: pd.DataFrame, recipe: Recipe, command: str) -> str:
    """Return the committed page."""
    header = ("precision", "test", REFERENCE, "difference, pp", "interval", "spread, pp", "verdict")
    return f"""# Accuracy by precision

    {command}

{recipe.dataset} ({replace(recipe, precision=REFERENCE)}; other precisions as in the table), without regularization, on
{rows["seed"].nunique()} seeds. {provenance.processor()}, Python {platform.python_version()}, torch {version("torch")},
one thread a training. All accuracies: [accuracies.csv](accuracies.csv).

{table(header, comparisons(rows))}

![Differences of the test accuracies, seed by seed](differences.png)

The difference is that of trainings of the same seed, which start with the same weights and see the same batches; it is
judged as in a report: equivalent is within {100 * MARGIN:g} percentage points. Spread: the standard deviation of the
differences.
"""


@click.command(context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.option("--data_dir", type=click.Path(exists=True, file_okay=False, path_type=Path), required=True)
@click.option("--precisions", type=Several(choice(*PRECISIONS)), default="bf16", help="To be compared with float32.")
@click.option("--seeds", type=click.IntRange(6), default=20)
@click.option("--jobs", type=click.IntRange(1), default=1, help="Trainings side by side.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("benchmarks/results/precisions"))
def main(data_dir: Path, precisions: tuple[str, ...], seeds: int, jobs: int, out: Path) -> int:
    """Train on SEEDS seeds in float32 and in the other precisions, and judge the differences."""
    cpu, kinds = torch.device("cpu"), [REFERENCE, *(kind for kind in precisions if kind != REFERENCE)]
    for kind in kinds:
        precision.check(kind, cpu)
    images = data.load("folder", data_dir)
    recipe = Recipe(images.name, images.fingerprint, SIZE, 0, epochs=EPOCHS, lr=LR)
    trials = [
        Trial(replace(recipe, precision=kind), BASELINE, 0.0, seed) for seed, kind in product(range(seeds), kinds)
    ]
    rows = test_accuracies(trials, CELL, _cell, images, out / "accuracies.csv", jobs)
    asked = ",".join(precisions)
    command = (
        f"python -m benchmarks.precisions --data_dir={images.name} --precisions={asked} --seeds={seeds} --jobs={jobs}"
    )
    page = readme(rows, recipe, command)
    figure = pages.strip(differences(rows), f"minus {REFERENCE}, points (grey: practically none)")
    csv = rows.to_csv(index=False, lineterminator="\n")
    pages.write(out, {"accuracies.csv": csv, "differences.png": pages.png(figure), "README.md": page})
    click.echo(page)
    return 0


def _cell(trial: Trial) -> tuple[str, str, int]:
    return trial.recipe.precision, trial.recipe.id, trial.seed


if __name__ == "__main__":
    exit_code.run(main)
