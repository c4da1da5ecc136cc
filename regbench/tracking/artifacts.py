"""The files of a trial's run: its weights, a table of its layers, histograms and the output layer's bar plot."""

import csv
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from safetensors.torch import save_file

from regbench import metrics

COLOUR = "#4477aa"


def write(folder: Path, weights: Mapping[str, torch.Tensor], title: str) -> None:
    """Write model.safetensors, layers.csv, histograms.png and <output layer>.png of `weights` into `folder`."""
    # clones, since safetensors refuses tensors that share memory
    save_file(
        {name: w.detach().cpu().contiguous().clone() for name, w in weights.items()}, folder / "model.safetensors"
    )
    matrices = {name: w.detach().cpu().float().numpy() for name, w in metrics.regularized(weights).items()}
    if not matrices:
        return
    rows = metrics.layers(weights)
    with (folder / "layers.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, fieldnames=list(rows[0]))
        table.writeheader()
        table.writerows(rows)
    histograms(matrices, title).savefig(folder / "histograms.png", dpi=100)
    name, output = list(matrices.items())[-1]
    layer = name.removesuffix(".weight")
    bars(output, f"{title}: {layer}").savefig(folder / f"{layer}.png", dpi=100)


def histograms(matrices: Mapping[str, np.ndarray], title: str) -> Figure:
    """Return one histogram per layer, counts on a log scale so that a spike at zero does not hide the rest."""
    columns = min(3, len(matrices))
    rows = -(-len(matrices) // columns)
    figure = Figure(figsize=(3.6 * columns, 2.8 * rows + 0.4), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).flatten()
    for axis, (name, w) in zip(axes, matrices.items(), strict=False):
        finite = w[np.isfinite(w)]
        axis.stairs(*np.histogram(finite, bins=101), fill=True, color=COLOUR)
        axis.set(yscale="log", xlabel="weight", ylabel="count")
        axis.set_title(f"{name} ({w.size:,})", fontsize="medium")
    for axis in axes[len(matrices) :]:
        axis.remove()
    figure.suptitle(title)
    return figure


def bars(w: np.ndarray, title: str) -> Figure:
    """Return the notebook's bar plot: one bar per weight of the output layer, in order."""
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    axis = figure.subplots()
    # one polygon looks the same as 10,240 bars and is drawn a hundred times faster
    axis.fill_between(np.arange(w.size), np.nan_to_num(w.flatten()), step="mid", color=COLOUR, linewidth=0)
    axis.axhline(0, color="black", linewidth=0.5)
    axis.set(xlabel=f"weight ({w.size:,} in all)", ylabel="value", xlim=(-0.5, w.size - 0.5))
    axis.set_title(title)
    return figure
