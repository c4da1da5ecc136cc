"""The pictures of a trial's weights: a histogram of each layer, and the notebook's bar plot of the output layer; and what a
report needs to draw them again.

They are made from a run's files, without torch: see drawer, which has a process of its own for it.
"""

import csv
import json
import re
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from regbench.files import atomic
from regbench.matplotlib_defaults import defaults
from regbench.tracking.schema import ALL_LAYERS, COUNTS, HISTOGRAMS, LAYERS, MODEL, OUTPUT

COLOUR = "#4477aa"
LONGEST = 100  # characters of a layer's name
BINS, BINS_OF_ALL = 101, 201
# of the bar plot, in pixels: with more weights than that there are several in a column
WIDTH, HEIGHT = 801, 237


class Histogram(NamedTuple):
    """The histogram of a layer of `size` weights: `counts` [bin] of those that are finite, between `edges` [bin + 1]."""

    size: int
    counts: np.ndarray
    edges: np.ndarray


def serve() -> None:
    """Draw what the lines of the input ask for, and answer each with a line: JSON [folder, title] -> list of complaints.

    It ends with its input: so when the process that asks ends, however it ends, and no sooner.
    """
    for line in sys.stdin:
        folder, title = json.loads(line)
        print(json.dumps(draw(Path(folder), title)), flush=True)


def draw(folder: Path, title: str) -> list[str]:
    """Write histograms.png, histograms.csv, <output layer>.png and output.safetensors beside model.safetensors and
    layers.csv in `folder`.

    Shown are the matrices that the table names. Returns a line for each file that cannot be made.
    """
    try:
        matrices = _matrices(folder)
        if not matrices:
            return []
        name, output = list(matrices.items())[-1]
        layer = name.removesuffix(".weight")
        counted = cache(lambda: count(matrices))
        files = {
            # half the numbers' size, and as exact as a picture
            OUTPUT: lambda path: save_file({name: _half(output)}, path),
            f"{_file(layer)}.png": lambda path: _save(bars(output, f"{title}: {_short(layer)}"), path),
            COUNTS: lambda path: _write(counted() | {ALL_LAYERS: _together(matrices)}, path),
            HISTOGRAMS: lambda path: _save(histograms(counted(), title), path),  # the last: where it is, all are
        }
    except (
        OSError,
        SafetensorError,
        ValueError,
        TypeError,
        KeyError,
    ) as error:  # as for a type that NumPy does not have
        return [f"{title}: no pictures: {error}"]
    complaints = []
    for file_name, write in files.items():
        try:
            with defaults(), atomic(folder / file_name) as path:
                write(path)
        except (OSError, ValueError, OverflowError) as error:  # weights that cannot be drawn are a result all the same
            complaints.append(f"{title}: {file_name} is left out: {error}")
    return complaints


def _matrices(folder: Path) -> dict[str, np.ndarray]:
    if not (folder / LAYERS).exists():
        return {}
    with (folder / LAYERS).open(newline="", encoding="utf-8") as file:
        names = [row["layer"] for row in csv.DictReader(file)]
    weights = load_file(folder / MODEL)
    # float64: the histogram of nearly equal float32 numbers has no room for its bins
    return {name: weights[name].astype(np.float64) for name in names}


def _file(layer: str) -> str:
    """Return a layer's name as that of a file: torch allows any character but a dot in it, and any length."""
    name = re.sub(r"[^A-Za-z0-9._-]", "_", layer)[:LONGEST]
    return f"{name}_" if name.lower() == "histograms" else name


def _short(layer: str) -> str:
    return layer if len(layer) <= LONGEST else f"{layer[:LONGEST]}..."


def _save(figure: Figure, path: Path) -> None:
    figure.savefig(path, dpi=100, format="png")


def count(matrices: Mapping[str, np.ndarray]) -> dict[str, Histogram]:
    """Return the histogram of each layer's finite weights; raises ValueError or OverflowError where there can be none."""
    return {name: Histogram(w.size, *np.histogram(w[np.isfinite(w)], bins=BINS)) for name, w in matrices.items()}


def _together(matrices: Mapping[str, np.ndarray]) -> Histogram:
    w = np.concatenate([w.flatten() for w in matrices.values()])
    return Histogram(w.size, *np.histogram(w[np.isfinite(w)], bins=BINS_OF_ALL))


def _half(w: np.ndarray) -> np.ndarray:
    """Return the numbers in float16, those beyond it as its largest: a diverged network is drawn too."""
    largest = np.finfo(np.float16).max
    return np.clip(np.nan_to_num(w), -largest, largest).astype(np.float16)


def _write(found: Mapping[str, Histogram], path: Path) -> None:
    """Write a row per layer and bin: layer, low, high, count."""
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(("layer", "low", "high", "count"))
        for name, (_, counts, edges) in found.items():
            for low, high, number in zip(edges, edges[1:], counts, strict=False):
                table.writerow((name, f"{low:.6g}", f"{high:.6g}", number))


def histograms(found: Mapping[str, Histogram], title: str) -> Figure:
    """Return one histogram per layer, counts on a log scale so that a spike at zero does not hide the rest."""
    columns = min(3, len(found))
    rows = -(-len(found) // columns)
    height = 2.6 * rows + 0.5
    figure = Figure(figsize=(3.6 * columns, height))
    axes = [figure.add_subplot(rows, columns, number) for number in range(1, len(found) + 1)]
    # fixed margins: a layout engine would draw each figure several times, for every trial
    figure.subplots_adjust(left=0.08, right=0.98, bottom=0.55 / height, top=1 - 0.75 / height, wspace=0.3, hspace=0.55)
    for axis, (name, (size, counts, edges)) in zip(axes, found.items(), strict=True):
        axis.stairs(counts, edges, fill=True, color=COLOUR)
        # from below one, so that bins with a single weight are seen, and whole decades get the tick labels
        if counts.any():
            axis.set(yscale="log", ylim=(0.7, max(10.0, 2.0 * counts.max())))
            axis.minorticks_off()  # half of the time that the figure takes
        else:
            axis.text(0.5, 0.5, "no finite weight", transform=axis.transAxes, ha="center")
        axis.set_xlabel("weight")
        # at a place of its own: matplotlib's search for one takes a third of the figure's time
        axis.set_title(f"{_short(name)} ({size:,})", fontsize="medium", parse_math=False, y=1.0)
    for axis in axes[::columns]:
        axis.set_ylabel("count")
    figure.suptitle(title)
    return figure


def bars(w: np.ndarray, title: str) -> Figure:
    """Return the notebook's bar plot: one bar per weight of the output layer, in order.

    Where several bars share a column of pixels, the darker a pixel, the more of them reach it.
    """
    figure = Figure(figsize=(9, 3.2))
    axis = figure.subplots()
    figure.subplots_adjust(left=0.09, right=0.98, bottom=0.16, top=0.9)
    values = np.nan_to_num(w.flatten())
    if values.size > WIDTH:
        low, high = min(0.0, values.min()), max(0.0, values.max())
        margin = 0.05 * (high - low) or 0.05
        limits = (low - margin, high + margin)
        colour = np.broadcast_to(to_rgb(COLOUR), (HEIGHT, WIDTH, 3))
        image = np.dstack([colour, coverage(values, WIDTH, np.linspace(*limits, HEIGHT + 1))])
        axis.imshow(
            image, extent=(-0.5, values.size - 0.5, *limits), aspect="auto", origin="lower", interpolation="nearest"
        )
    else:  # one polygon looks the same as many bars
        axis.fill_between(np.arange(w.size), values, step="mid", color=COLOUR, linewidth=0, antialiased=False)
    axis.axhline(0, color="black", linewidth=0.5)
    axis.set(xlabel=f"weight ({w.size:,} in all)", ylabel="value", xlim=(-0.5, w.size - 0.5))
    axis.set_title(title, parse_math=False, y=1.0)
    return figure


def coverage(values: np.ndarray, columns: int, edges: np.ndarray) -> np.ndarray:
    """Return the share of the bars of a column of pixels that reach each of its pixels, [len(edges) - 1, columns].

    The bars, from 0 to `values`, are spread over the columns in order; `edges` are the rows' limits, from below.
    """
    rows = len(edges) - 1
    column = np.arange(values.size) * columns // values.size
    row = np.clip(np.searchsorted(edges, values, side="right") - 1, 0, rows - 1)
    counts = np.bincount(column, minlength=columns)
    reached = np.zeros((rows, columns))
    for up in (True, False):
        chosen = values > 0 if up else values < 0
        ends = np.bincount(row[chosen] * columns + column[chosen], minlength=rows * columns).reshape(rows, columns)
        # a bar covers the pixels from the one in which 0 is to the one in which it ends
        passing = ends[::-1].cumsum(0)[::-1] if up else ends.cumsum(0)
        zero = int(np.clip(np.searchsorted(edges, 0.0, side="right") - 1, 0, rows - 1))
        side = slice(zero, None) if up else slice(0, zero + 1)
        reached[side] += passing[side]
    return np.minimum(reached / np.maximum(counts, 1), 1.0)
