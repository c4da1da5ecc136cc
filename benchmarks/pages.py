"""The files that a benchmark commits: its page, its numbers and its pictures."""

from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from regbench.files import atomic
from regbench.matplotlib_defaults import defaults
from regbench.statistics.verdict import MARGIN


def write(folder: Path, files: Mapping[str, str | bytes]) -> None:
    """Write name -> content into a folder, each atomically, with the same bytes on every system."""
    for name, content in files.items():
        with atomic(folder / name) as path:
            path.write_bytes(content if isinstance(content, bytes) else content.encode())


def png(figure: Figure) -> bytes:
    """Return a figure as a picture, the same bytes for the same figure."""
    content = BytesIO()
    with defaults():
        figure.savefig(content, dpi=110, format="png", metadata={"Software": None})
    return content.getvalue()


def strip(differences: Mapping[str, np.ndarray], label: str) -> Figure:
    """Return a figure of differences of accuracies: a row each, a dot per seed, a bar at the mean, the margin in grey."""
    figure = Figure(figsize=(7, 0.55 * len(differences) + 0.9), layout="constrained")
    axis = figure.subplots()
    axis.axvspan(-100 * MARGIN, 100 * MARGIN, color="#e6e6e6", linewidth=0, zorder=0)
    axis.axvline(0, color="#555555", linewidth=0.8, zorder=1)
    for row, values in enumerate(map(np.asarray, differences.values())):
        points = np.sort(100 * values)
        # moved aside in turn, so that equal ones are seen
        aside = 0.12 * (np.arange(len(points)) % 5 - 2)
        axis.scatter(points, row + aside, s=14, color="#4477aa", alpha=0.8, linewidth=0, zorder=2)
        axis.plot(2 * [points.mean()], [row - 0.36, row + 0.36], color="black", linewidth=1.6, zorder=3)
    axis.set_yticks(range(len(differences)), [*differences])
    axis.set_ylim(len(differences) - 0.5, -0.5)
    axis.set_xlabel(label)
    axis.spines[["top", "right", "left"]].set_visible(False)
    axis.tick_params(axis="y", length=0)
    return figure


def known(place: Path, cell: Sequence[str]) -> dict[tuple, float]:
    """Return what an earlier run has left in a file: what names a training, by the columns `cell` -> its accuracy."""
    table = pd.read_csv(place, keep_default_na=False) if place.exists() else pd.DataFrame(columns=[*cell, "accuracy"])
    return {tuple(row[:-1]): row[-1] for row in table.itertuples(index=False)}
