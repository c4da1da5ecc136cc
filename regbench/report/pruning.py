"""Test accuracy over the share of zeroed weights: zeroed after training, or by a regularizer that prunes and trains on."""

import math
from dataclasses import dataclass

import pandas as pd

from regbench.report.analysis import Analysis, prune_curve

# by which a share may miss its lam, relatively: weights are whole, and a scope may hold biases, which are not measured
TOLERANCE = 0.01


@dataclass(frozen=True)
class Curve:
    """Share of zeroed weights -> mean test accuracy of a method, shares rising.

    With a `lam` it is that of networks trained at it (0 for none), of which the smallest weights were zeroed afterwards.
    Without, it is that of a method that prunes by itself: its lams are the shares. Where there is one of those all means
    are the grid's, over the same seeds; else they are those that the analysis shows.
    """

    method: str
    lam: float | None
    accuracies: dict[float, float]


def curves(analysis: Analysis) -> list[Curve]:
    """Return a curve of each method that has one, in the order of methods."""
    columns, found = prune_curve(analysis.chosen), []
    grid = {method: analysis.cells[analysis.cells["method"] == method] for method in analysis.methods}
    pruning = [method for method, cells in grid.items() if prunes(cells)]
    at_chosen = analysis.cells if pruning else analysis.chosen
    for method, cells in grid.items():
        if by_itself := method in pruning:
            usable = cells.dropna(subset=["test"])
            accuracies = dict(zip(usable["lam"], usable["test"], strict=True))
        else:
            own = at_chosen[(at_chosen["method"] == method) & (at_chosen["lam"] == analysis.lam(method))]
            usable = own.dropna(subset=[*columns])
            accuracies = {share: usable[name].iloc[0] for name, share in columns.items()} if len(usable) else {}
        if accuracies:
            found.append(Curve(method, None if by_itself else usable["lam"].iloc[0], accuracies))
    return found


def prunes(cells: pd.DataFrame) -> bool:
    """Return whether a method prunes to the share lam: in all of its cells in the grid so many weights are exactly zero."""
    shares = cells.dropna(subset=["sparsity/exact"])
    return len(shares) > 0 and all(
        0 < lam < 1 and math.isclose(share, lam, rel_tol=TOLERANCE)
        for lam, share in zip(shares["lam"], shares["sparsity/exact"], strict=True)
    )
