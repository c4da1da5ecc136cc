"""Does the lecture's story hold? The notebook's four experiments at full length, on several seeds each.

python -m benchmarks.lecture --data_dir=cifar10-jpeg

What an earlier run has trained is in the experiment "lecture" of MLflow and is not trained again.
"""

import platform
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

import click
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

import regbench
from benchmarks import pages
from regbench import data, provenance
from regbench.api.experiments import EXPERIMENTS
from regbench.click_fields import whole
from regbench.commands import exit_code
from regbench.regularizers import BASELINE
from regbench.report.figures import BASELINE_COLOUR, colours
from regbench.report.tables import table
from regbench.trial import MAX_EPOCHS, format_lam

EXPERIMENT = "lecture"
BINS = 201
# column -> metric, its factor, its format
COLUMNS = {
    "test, %": ("test/accuracy", 100, ".2f"),
    "training, %": ("fit/accuracy", 100, ".2f"),
    "gap, points": ("gap/accuracy", 100, ".2f"),
    "exact zeros, %": ("sparsity/exact", 100, ".2f"),
    "below 1e-3, %": ("sparsity/abs_1e-3", 100, ".1f"),
    "norm": ("norm/l2", 1, ".1f"),
    "sum of magnitudes": ("norm/l1", 1, ",.0f"),
    "test with 90 % zeroed, %": ("prune/0.9", 100, ".2f"),
}


def spread(values: pd.Series, factor: float, form: str) -> str:
    """Return the mean of the seeds, with the lowest and the highest."""
    shown = [format(factor * one, form) for one in (values.mean(), values.min(), values.max())]
    return shown[0] if shown[1] == shown[2] else f"{shown[0]} ({shown[1]} to {shown[2]})"


def rows(trials: pd.DataFrame, epochs: int | None = None) -> list[tuple[str, ...]]:
    """Return a row of texts per experiment: its lam, epochs and batch size, and the columns of COLUMNS.

    `epochs` None means the notebook's own numbers.
    """
    found = []
    for name, (regularizer, lam, batch, own_epochs) in EXPERIMENTS.items():
        own = trials[trials["regularizer"] == regularizer]
        if len(own):
            texts = (spread(own[metric], factor, form) for metric, factor, form in COLUMNS.values())
            found.append((f"`{name}`", format_lam(lam) if lam else "", str(epochs or own_epochs), str(batch), *texts))
    return found


def paired(trials: pd.DataFrame) -> list[tuple[str, ...]]:
    """Return a row of texts per experiment beside `none`: the differences of the test accuracies, seed by seed."""
    accuracies = trials.pivot(index="seed", columns="regularizer", values="test/accuracy")
    found = []
    for name, (regularizer, *_) in EXPERIMENTS.items():
        if regularizer != BASELINE and regularizer in accuracies:
            differences = (100 * (accuracies[regularizer] - accuracies[BASELINE])).dropna()
            found.append((f"`{name}`", f"{differences.mean():+.2f}", ", ".join(f"{one:+.2f}" for one in differences)))
    return found


def bars(weights: Mapping[str, np.ndarray]) -> Figure:
    """Return the notebook's bar plot of the output layer's weights, a panel for each experiment on one scale."""
    palette = _palette(weights)
    figure = Figure(figsize=(8, 1.7 * len(weights) + 0.5), layout="constrained")
    axes = figure.subplots(len(weights), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
    for axis, (name, w) in zip(axes, weights.items(), strict=True):
        # as wide as a pixel: narrower ones would fade where they stand alone
        axis.vlines(np.arange(w.size), 0, w.flatten(), color=palette[name], linewidth=0.65)
        axis.set_title(name, loc="left", fontsize="medium")
        axis.set_ylabel("weight")
        axis.set_xlim(0, w.size)
    axes[-1].set_xlabel(f"weight of l3, in order ({next(iter(weights.values())).size:,} in all)")
    return figure


def histograms(weights: Mapping[str, np.ndarray]) -> Figure:
    """Return the histograms of the output layer's weights, on one logarithmic axis of counts."""
    palette = _palette(weights)
    figure = Figure(figsize=(8, 3.4), layout="constrained")
    axis = figure.subplots()
    limit = max(np.quantile(np.abs(w), 0.999) for w in weights.values())
    for name, w in weights.items():
        counts, edges = np.histogram(np.clip(w, -limit, limit), bins=BINS, range=(-limit, limit))
        axis.stairs(counts, edges, color=palette[name], linewidth=1.3, label=name)
    axis.set(yscale="log", xlabel="weight of l3 (the outermost bins hold what lies beyond)", ylabel="number of weights")
    axis.legend(fontsize="small")
    return figure


def _palette(weights: Mapping[str, np.ndarray]) -> dict[str, object]:
    return colours(weights) | ({BASELINE: BASELINE_COLOUR} if BASELINE in weights else {})


def readme(trials: pd.DataFrame, dataset: str, size: int, epochs: int | None, command: str) -> str:
    """Return the committed page; `size` is the number of training images, for `epochs` see `rows`."""
    minutes = trials["time/trial"].sum() / 60
    return f"""# The lecture's four experiments

    {command}

{dataset}: {size:,} training images, {trials["seed"].nunique()} seeds each, the mean with the lowest and the highest.
{provenance.processor()}, Python {platform.python_version()}, torch
{version("torch")}, float32; {minutes:.0f} minutes of training, added up over trainings. All measures:
[trials.csv](trials.csv).

{table(("experiment", "lam", "epochs", "batch", *COLUMNS), rows(trials, epochs))}

Test accuracies, minus that of `none` on the same seed, in points:

{table(("experiment", "mean", "seed by seed"), paired(trials))}

![The output layer's weights, seed 0](bars.png)

![Histograms of the output layer's weights, seed 0](histograms.png)

Norm: the square root of the sum of all squared weights, biases left out, as everywhere on this page but for the accuracies.
Test with 90 % zeroed: the test accuracy after the 90 % smallest weights were zeroed, without training after it.
"""


@click.command(context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.option("--data_dir", type=click.Path(exists=True, file_okay=False, path_type=Path), required=True)
@click.option("--seeds", type=click.IntRange(1), default=3)
@click.option("--train_size", type=whole(10, 10**9, all=None), default="all", help="Training images.")
@click.option("--epochs", type=whole(1, MAX_EPOCHS, auto=None), default="auto", help="auto: the notebook's.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("benchmarks/results/lecture"))
def main(data_dir: Path, seeds: int, train_size: int | None, epochs: int | None, out: Path) -> int:
    """Train the four experiments on SEEDS seeds each, and write the page on them."""
    images = data.load("folder", data_dir)
    shared = {"dataset": "folder", "data_dir": str(data_dir), "experiment": EXPERIMENT}
    shared |= {"train_size": train_size, "epochs": epochs}
    found = [regbench.notebook(seed=seed, **shared).trials.assign(seed=seed) for seed in range(seeds)]
    trials = pd.concat(found, ignore_index=True)
    first = trials[trials["seed"] == 0].set_index("regularizer")["run_id"]
    weights = {
        name: regbench.load(first[regularizer]).l3.weight.detach().numpy()
        for name, (regularizer, *_) in EXPERIMENTS.items()
    }
    options = {"seeds": seeds if seeds != 3 else None, "train_size": train_size, "epochs": epochs}
    given = "".join(f" --{name}={value}" for name, value in options.items() if value)
    command = f"python -m benchmarks.lecture --data_dir={images.name}{given}"
    page = readme(trials, images.name, train_size or len(images.train_images), epochs, command)
    csv = trials.drop(columns="run_id").to_csv(index=False, lineterminator="\n", float_format="%.6g")
    pictures = {"bars.png": pages.png(bars(weights)), "histograms.png": pages.png(histograms(weights))}
    pages.write(out, {"trials.csv": csv, **pictures, "README.md": page})
    click.echo(page)
    return 0


if __name__ == "__main__":
    exit_code.run(main)
