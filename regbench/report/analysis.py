"""The analysis of tidy frames: which cells count, which lam is chosen, how each regularizer compares with none."""

import math
import re
from dataclasses import dataclass

import numpy as np
import pandas as pd

from regbench.report import statistics
from regbench.report.load import Runs
from regbench.report.statistics import Interval, t_interval
from regbench.report.verdict import Comparison, Grid, Verdict, compare
from regbench.trial import BASELINE, format_lam

VALIDATION, TEST = "val/accuracy", "test/accuracy"
# metrics whose means a cell contains, beside the accuracies
MEANS = (
    "sparsity/exact", "sparsity/abs_1e-3", "compression_ratio", "theoretical_speedup", "sparsity_at_1pp", "time/trial",
)  # fmt: skip
PRUNE = "prune/"  # the accuracies of pruned networks are "prune/<share>"


@dataclass(frozen=True)
class Analysis:
    """The content of tables and figures.

    seeds: those that the comparison uses. cells: a row per method and lam over these seeds (interval bounds beside the
    means; `missing`: seeds without a usable result; `usable`: takes part in the choice of lam). comparisons: method ->
    Comparison, none left out. notes: a sentence for each thing left out, and why.
    """

    seeds: tuple[int, ...]
    cells: pd.DataFrame
    comparisons: dict[str, Comparison]
    notes: tuple[str, ...]
    paired_sd: float = math.nan  # of the paired differences at the chosen lams, pooled; a fraction

    def chosen(self, method: str) -> float | None:
        """Return the method's chosen lam, 0 for none, None where nothing could be chosen."""
        if method == BASELINE:
            return 0.0
        return self.comparisons[method].selection.lam if method in self.comparisons else None

    def at_chosen(self, table: pd.DataFrame, method: str) -> pd.DataFrame:
        """Return the method's rows of a table with columns method and lam, at its chosen lam."""
        return table[(table["method"] == method) & (table["lam"] == self.chosen(method))]

    def cell(self, method: str) -> pd.Series:
        """Return the method's row of `cells` at its chosen lam."""
        return self.at_chosen(self.cells, method).iloc[0]

    def judged(self, verdict: Verdict) -> list[str]:
        """Return the methods with this verdict."""
        return [method for method, found in self.comparisons.items() if found.verdict == verdict]

    @property
    def exploratory(self) -> bool:
        """Return whether there are too few seeds for any verdict of significance."""
        return any(found.exploratory for found in self.comparisons.values())

    @property
    def methods(self) -> list[str]:
        """Return all methods in their order of appearance, none first."""
        return list(dict.fromkeys(self.cells["method"]))


def analyse(runs: Runs) -> Analysis:
    """Return the analysis of finished trials.

    A trial that diverged has no accuracy to average: its lam is left out of the choice, by name. One that collapsed to
    chance is an accuracy like any other. Seeds are those with a none and at least half of the other cells.
    """
    trials, notes = runs.trials, []
    usable = trials[trials["outcome"] != "diverged"]
    seeds = _seeds(trials, notes)
    cells = pd.DataFrame([_cell(*key, group, seeds) for key, group in _grouped(trials)])
    if not len(cells):
        return Analysis((), pd.DataFrame(columns=["method", "lam"]), {}, ("No trial has finished.",))
    baseline = _by_seed(usable, BASELINE, 0.0, TEST, seeds)
    if not seeds or baseline is None:
        what = "No seed has a usable trial" if BASELINE in set(cells["method"]) else "There are no trials"
        notes.append(f"{what} of none, so nothing is compared.")
        return Analysis(seeds, cells, {}, tuple(notes))
    groups = cells[cells["method"] != BASELINE].groupby("method", sort=False)
    grids = {method: _grid(method, group, usable, seeds, notes) for method, group in groups}
    family = {method: grid for method, grid in grids.items() if grid is not None}
    comparisons = compare(family, baseline) if family else {}
    sizes = {method: len(grid.lams) for method, grid in family.items()}
    if len(set(sizes.values())) > 1:
        shown = ", ".join(f"{method} {size}" for method, size in sizes.items())
        notes.append(f"The numbers of lams differ ({shown}): a longer grid has more chances.")
    spreads = [
        np.var(_by_seed(usable, method, found.selection.lam, TEST, seeds) - baseline, ddof=1)
        for method, found in comparisons.items()
        if len(seeds) > 1
    ]
    return Analysis(seeds, cells, comparisons, tuple(notes), math.sqrt(np.mean(spreads)) if spreads else math.nan)


def _grouped(trials: pd.DataFrame):
    """Return ((method, lam), trials), none first, lams rising; trials by seed, since sums depend on their order."""
    order = {name: index for index, name in enumerate(dict.fromkeys([BASELINE, *trials["method"]]))}
    groups = dict(list(trials.sort_values("seed", kind="stable").groupby(["method", "lam"])))
    return sorted(groups.items(), key=lambda item: (order[item[0][0]], item[0][1]))


def _seeds(trials: pd.DataFrame, notes: list[str]) -> tuple[int, ...]:
    """Return the seeds to compare on; those left out are named in `notes`."""
    every = sorted(set(trials["seed"]))
    baseline = set(trials.loc[(trials["method"] == BASELINE) & (trials["outcome"] != "diverged"), "seed"])
    others = trials[trials["method"] != BASELINE]
    cells = len(others[["method", "lam"]].drop_duplicates())
    counts = others.groupby("seed").size()
    if BASELINE not in set(trials["method"]):
        return tuple(every)
    kept = tuple(seed for seed in every if seed in baseline and 2 * counts.get(seed, 0) >= cells)
    left = [str(seed) for seed in every if seed not in kept]
    if left:
        why = "having no usable trial of none or less than half of the cells"
        notes.append(f"Seeds left out, {why}: {', '.join(left)}.")
    return kept


def _cell(method: str, lam: float, group: pd.DataFrame, seeds: tuple[int, ...]) -> dict[str, object]:
    counted = group[group["seed"].isin(seeds) & (group["outcome"] != "diverged")]
    missing = sorted(set(seeds) - set(counted["seed"]))
    outcomes = group["outcome"].value_counts()
    row: dict[str, object] = {
        "method": method,
        "lam": lam,
        "n": len(counted),
        "missing": ", ".join(map(str, missing)),
        "diverged": int(outcomes.get("diverged", 0)),
        "collapsed": int(outcomes.get("collapsed", 0)),
        "usable": not missing and len(seeds) > 0,
    }
    for name, metric in (("validation", VALIDATION), ("test", TEST), ("gap", "gap/accuracy")):
        interval = _interval(counted, metric)
        row |= {name: interval.mean, f"{name}_low": interval.low, f"{name}_high": interval.high}
    for name in (*MEANS, *prune_curve(group)):
        # runs of an earlier version lack some of them
        row[name] = counted[name].mean() if name in counted and len(counted) else math.nan
    return row


def prune_curve(frame: pd.DataFrame) -> dict[str, float]:
    """Return the columns that hold accuracies of pruned networks: name -> share of zeroed weights, rising."""
    columns = [name for name in frame.columns if re.fullmatch(rf"{PRUNE}(0|0\.\d+)", str(name), re.ASCII)]
    found = {name: float(name.removeprefix(PRUNE)) for name in columns}
    return dict(sorted(found.items(), key=lambda item: item[1]))


def _interval(trials: pd.DataFrame, metric: str) -> Interval:
    values = trials[metric].dropna() if metric in trials else pd.Series(dtype=float)
    if values.empty:
        return Interval(math.nan, math.nan, math.nan, 0, statistics.LEVEL)
    return t_interval(values.to_numpy())


def _by_seed(trials: pd.DataFrame, method: str, lam: float, metric: str, seeds: tuple[int, ...]) -> np.ndarray | None:
    """Return a metric [seed] of one cell in the order of `seeds`, None if one is missing."""
    cell = trials[(trials["method"] == method) & (trials["lam"] == lam)].set_index("seed")
    if metric not in cell or not set(seeds) <= set(cell.index):
        return None
    values = cell.loc[list(seeds), metric].to_numpy(dtype=float)
    return values if np.isfinite(values).all() else None


def _grid(
    method: str, cells: pd.DataFrame, trials: pd.DataFrame, seeds: tuple[int, ...], notes: list[str]
) -> Grid | None:
    """Return the method's accuracies [lam, seed] over the lams that have every seed; what is left out is noted."""
    kept, validation, test = [], [], []
    for lam in cells["lam"]:
        left_out = f"{method} lam={format_lam(lam)} takes no part in the choice of lam"
        held_out = _by_seed(trials, method, lam, VALIDATION, seeds)
        tested = _by_seed(trials, method, lam, TEST, seeds)
        cell = cells[cells["lam"] == lam].iloc[0]
        if tested is None:
            diverged = f", {cell['diverged']} diverged" if cell["diverged"] else ""
            notes.append(f"{left_out}: no usable result for seed {cell['missing']}{diverged}.")
        elif held_out is None and len(cells) > 1:
            notes.append(f"{left_out}: it has no validation accuracy.")
        else:
            kept.append(lam)
            # a single lam is not chosen, so the value in place of its validation accuracy decides nothing
            validation.append(tested if held_out is None else held_out)
            test.append(tested)
    return Grid(kept, np.array(validation), np.array(test)) if kept else None
