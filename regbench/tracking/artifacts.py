"""The files of a trial's run: its weights, tables of its layers and epochs, histograms and the output layer's bar plot."""

import csv
import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from safetensors.torch import save_file

from regbench.matplotlib_defaults import defaults

log = logging.getLogger(__name__)
COLOUR = "#4477aa"
MODEL = "model.safetensors"
LONGEST = 100  # characters of a layer's name


def write(
    folder: Path,
    weights: Mapping[str, torch.Tensor],
    layers: Sequence[Mapping[str, object]],
    title: str,
    epochs: Sequence[tuple[str, float, int, int]] = (),
) -> None:
    """Write model.safetensors, epochs.csv, layers.csv, histograms.png and <output layer>.png into `folder`.

    `weights` is all that is needed to use the model; `layers` are the rows of the table, and plots show the weights
    that they name in "layer"; `epochs` are points of metrics: (name, value, time, epoch).
    """
    # clones, since safetensors refuses tensors that share memory
    save_file({name: w.detach().cpu().contiguous().clone() for name, w in weights.items()}, folder / MODEL)
    # safetensors makes files that only their owner reads, and a copy keeps that
    (folder / MODEL).chmod(0o644)
    rows: dict[int, dict[str, object]] = {}
    for metric, value, _, epoch in epochs:
        rows.setdefault(epoch, {"epoch": epoch})[metric] = value
    _write_table(folder / "epochs.csv", list(rows.values()))
    _write_table(folder / "layers.csv", layers)
    if not layers:
        return
    # float64: the histogram of nearly equal float32 numbers has no room for its bins
    arrays = {str(row["layer"]): weights[row["layer"]].detach().cpu().double().numpy() for row in layers}
    name, output = list(arrays.items())[-1]
    layer = name.removesuffix(".weight")
    plots = {
        "histograms": lambda: histograms(arrays, title),
        _file(layer): lambda: bars(output, f"{title}: {_short(layer)}"),
    }
    for file_name, plot in plots.items():
        try:
            with defaults():
                plot().savefig(folder / f"{file_name}.png", dpi=100)
        except (ValueError, OverflowError) as error:  # weights that cannot be drawn are a result all the same
            log.warning("%s: %s.png is left out: %s", title, file_name, error)


def _write_table(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    """Write rows as CSV, numbers as exact as they are; no file if there are none."""
    if not rows:
        return
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, fieldnames=list(dict.fromkeys(name for row in rows for name in row)))
        table.writeheader()
        table.writerows(rows)


def _file(layer: str) -> str:
    """Return a layer's name as that of a file: torch allows any character but a dot in it, and any length."""
    name = re.sub(r"[^A-Za-z0-9._-]", "_", layer)[:LONGEST]
    return f"{name}_" if name.lower() == "histograms" else name


def _short(layer: str) -> str:
    return layer if len(layer) <= LONGEST else f"{layer[:LONGEST]}..."


def histograms(matrices: Mapping[str, np.ndarray], title: str) -> Figure:
    """Return one histogram per layer, counts on a log scale so that a spike at zero does not hide the rest."""
    columns = min(3, len(matrices))
    rows = -(-len(matrices) // columns)
    height = 2.6 * rows + 0.5
    figure = Figure(figsize=(3.6 * columns, height))
    axes = figure.subplots(rows, columns, squeeze=False).flatten()
    # fixed margins: a layout engine would draw each figure several times, for every trial
    figure.subplots_adjust(left=0.08, right=0.98, bottom=0.55 / height, top=1 - 0.75 / height, wspace=0.3, hspace=0.55)
    for axis, (name, w) in zip(axes, matrices.items(), strict=False):
        finite = w[np.isfinite(w)]
        counts, edges = np.histogram(finite, bins=101)
        axis.stairs(counts, edges, fill=True, color=COLOUR)
        # from below one, so that bins with a single weight are seen, and whole decades get the tick labels
        if counts.any():
            axis.set(yscale="log", ylim=(0.7, max(10.0, 2.0 * counts.max())))
            axis.minorticks_off()  # half of the time that the figure takes
        else:
            axis.text(0.5, 0.5, "no finite weight", transform=axis.transAxes, ha="center")
        axis.set_xlabel("weight")
        axis.set_title(f"{_short(name)} ({w.size:,})", fontsize="medium", parse_math=False)
    for axis in axes[::columns]:
        axis.set_ylabel("count")
    for axis in axes[len(matrices) :]:
        axis.remove()
    figure.suptitle(title)
    return figure


def bars(w: np.ndarray, title: str) -> Figure:
    """Return the notebook's bar plot: one bar per weight of the output layer, in order."""
    figure = Figure(figsize=(9, 3.2))
    axis = figure.subplots()
    figure.subplots_adjust(left=0.09, right=0.98, bottom=0.16, top=0.9)
    # one polygon looks the same as 10,240 bars and is drawn a hundred times faster
    axis.fill_between(
        np.arange(w.size), np.nan_to_num(w.flatten()), step="mid", color=COLOUR, linewidth=0, antialiased=False
    )
    axis.axhline(0, color="black", linewidth=0.5)
    axis.set(xlabel=f"weight ({w.size:,} in all)", ylabel="value", xlim=(-0.5, w.size - 0.5))
    axis.set_title(title, parse_math=False)
    return figure
