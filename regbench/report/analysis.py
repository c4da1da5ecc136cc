"""The analysis of tidy frames: how each regularizer, at its chosen lam, compares with none on fresh seeds."""

import math
import re
from dataclasses import dataclass

import numpy as np
import pandas as pd

from regbench.report.design import VALIDATION, Design, design
from regbench.report.load import Runs
from regbench.statistics.paired import Noise, noise
from regbench.statistics.verdict import Comparison, Verdict, judge
from regbench.tracking import schema
from regbench.trial import BASELINE, format_seeds

TEST = "test/accuracy"
EARLY = "early/accuracy"  # on test, of the epoch with the best validation accuracy
# metrics whose means a cell contains, beside the accuracies
MEANS = (
    "sparsity/exact", "sparsity/abs_1e-3", "compression_ratio", "theoretical_speedup", "sparsity_at_1pp", "time/trial",
)  # fmt: skip
PRUNE = "prune/"  # the accuracies of pruned networks are "prune/<share>"


@dataclass(frozen=True)
class Pairs:
    """Test accuracies (fractions) of a method, `test` [seed], and of none, `none` [seed], on fresh seeds.

    These are the pairs that the method's comparison is of. Of its `planned` fresh seeds both trials of the first `ended`
    have ended.
    """

    test: np.ndarray
    none: np.ndarray
    ended: int
    planned: int

    @property
    def noise(self) -> Noise:
        return noise(self.test, self.none)


@dataclass(frozen=True)
class Analysis:
    """The content of tables and figures.

    cells: a row per method and lam of the grid, over the seeds that choose (means, and the lowest and highest accuracy;
    `missing`: seeds without a usable result). chosen: a row per method at its chosen lam, in the same columns, over
    `shown`: method -> its fresh seeds, or those of the grid where it has no fresh ones; the means on test, after the last
    epoch and (`early`) after the best one on validation, are over all that ended. comparisons and pairs: per method with a
    chosen lam, none left out. notes: a sentence for each thing left out, and why.
    """

    design: Design
    cells: pd.DataFrame
    chosen: pd.DataFrame
    shown: dict[str, tuple[int, ...]]
    comparisons: dict[str, Comparison]
    pairs: dict[str, Pairs]
    notes: tuple[str, ...]

    def lam(self, method: str) -> float | None:
        """Return the method's chosen lam, 0 for none, None where there is no choice."""
        if method == BASELINE:
            return 0.0
        return self.design.choices[method].lam if method in self.design.choices else None

    def at_chosen(self, table: pd.DataFrame, method: str) -> pd.DataFrame:
        """Return the method's rows of a table with columns method, lam and seed, at its chosen lam on seeds `shown`."""
        own = (table["method"] == method) & (table["lam"] == self.lam(method))
        return table[own & table["seed"].isin(self.shown.get(method, ()))]

    def cell(self, method: str) -> pd.Series:
        """Return the method's row of `chosen`."""
        return self.chosen[self.chosen["method"] == method].iloc[0]

    def judged(self, verdict: Verdict) -> list[str]:
        """Return the methods with this verdict."""
        return [method for method, found in self.comparisons.items() if found.verdict == verdict]

    @property
    def methods(self) -> list[str]:
        """Return all methods in their order of appearance, none first."""
        return list(dict.fromkeys([*self.chosen["method"], *self.cells["method"]]))


def analyse(runs: Runs) -> Analysis:
    """Return the analysis of finished trials.

    A fresh training that diverged or collapsed counts with the accuracy that it has.
    """
    trials = runs.trials
    if trials.empty:
        nothing = pd.DataFrame(columns=["method", "lam", "seed"])
        return Analysis(Design((), {}, (), (), False), nothing, nothing, {}, {}, {}, ("No trial has finished.",))
    plan = design(runs)
    notes = list(plan.notes)
    grid = trials[trials["stage"] == schema.GRID]
    choosing = plan.selection or tuple(sorted(set(grid["seed"])))
    cells = [_cell(*key, group, choosing) for key, group in _grouped(grid)]
    if BASELINE in set(trials["method"]):
        pairs, differences = _pairs(runs, plan)
    else:
        pairs, differences = {}, {}
        notes.insert(0, "There are no trials of none, so nothing is compared.")
    comparisons = judge(differences, plan.looks)
    pairs = {method: _counted(found, comparisons[method]) for method, found in pairs.items()}
    shown, chosen = {}, []
    lams = {BASELINE: 0.0} | {method: choice.lam for method, choice in plan.choices.items()}
    for method, lam in ((method, lam) for method, lam in lams.items() if method in set(trials["method"])):
        group = trials[(trials["method"] == method) & (trials["lam"] == lam)].sort_values("seed", kind="stable")
        fresh = group[group["seed"].isin(set(plan.confirm) - runs.chosen_on.get(method, frozenset()))]
        own = fresh if len(fresh) else group[group["seed"].isin(choosing)]
        shown[method] = tuple(own["seed"])
        # those that diverged too
        counts = {"n": len(own), "test": own.reindex(columns=[TEST])[TEST].mean()}
        counts["early"] = own.reindex(columns=[EARLY])[EARLY].mean(skipna=False)
        chosen.append(_cell(method, lam, own, shown[method]) | counts)
        notes += _failed(method, fresh)
    columns = list(_cell(BASELINE, 0.0, trials, ()))
    frames = pd.DataFrame(cells, columns=columns), pd.DataFrame(chosen, columns=[*columns, "early"])
    return Analysis(plan, *frames, shown, comparisons, pairs, tuple(notes))


def prune_curve(frame: pd.DataFrame) -> dict[str, float]:
    """Return the columns that hold accuracies of pruned networks: name -> share of zeroed weights, rising."""
    columns = [name for name in frame.columns if re.fullmatch(rf"{PRUNE}(0|0\.\d+)", str(name), re.ASCII)]
    found = {name: float(name.removeprefix(PRUNE)) for name in columns}
    return dict(sorted(found.items(), key=lambda item: item[1]))


def _grouped(trials: pd.DataFrame) -> list[tuple[tuple[str, float], pd.DataFrame]]:
    """Return ((method, lam), trials), none first, lams rising; trials by seed, since sums depend on their order."""
    order = {name: index for index, name in enumerate(dict.fromkeys([BASELINE, *trials["method"]]))}
    groups = dict(list(trials.sort_values("seed", kind="stable").groupby(["method", "lam"])))
    return sorted(groups.items(), key=lambda item: (order[item[0][0]], item[0][1]))


def _cell(method: str, lam: float, group: pd.DataFrame, seeds: tuple[int, ...]) -> dict[str, object]:
    own = group[group["seed"].isin(seeds)]
    counted = own[own["outcome"] != "diverged"]
    missing = sorted(set(seeds) - set(counted["seed"]))
    row: dict[str, object] = {
        "method": method,
        "lam": lam,
        "n": len(counted),
        "missing": format_seeds(missing),
        "diverged": int((own["outcome"] == "diverged").sum()),
        "collapsed": int((own["outcome"] == "collapsed").sum()),
    }
    for name, metric in (("validation", VALIDATION), ("test", TEST), ("gap", "gap/accuracy")):
        # runs of another version or program lack some metrics
        values = counted[metric] if metric in counted else pd.Series(dtype=float)
        row |= {name: values.mean(), f"{name}_low": values.min(), f"{name}_high": values.max()}
    for name in (*MEANS, *prune_curve(group)):
        row[name] = counted[name].mean() if name in counted and len(counted) else math.nan
    return row


def _pairs(runs: Runs, plan: Design) -> tuple[dict[str, Pairs], dict[str, np.ndarray]]:
    """Return the pairs of each method, and its differences, over the fresh seeds of which both trials have ended.

    A trial that failed has ended without accuracy (NaN). Where a grid's seeds were split, so has one that is missing.
    """
    names = ["method", "lam", "seed"]
    accuracy = runs.trials.set_index(names).reindex(columns=[TEST])[TEST].to_dict()
    others = {status: set(map(tuple, group[names].to_numpy())) for status, group in runs.others.groupby("status")}
    ended = accuracy.keys() | (others.get("FAILED", set()) - others.get("RUNNING", set()))
    pairs, differences = {}, {}
    for method, choice in plan.choices.items():
        values: list[tuple[float, float]] = []
        seeds = [seed for seed in plan.confirm if seed not in runs.chosen_on.get(method, ())]
        seeds = seeds[: plan.looks[-1]] if plan.looks else []
        for seed in seeds:
            own, base = (method, choice.lam, seed), (BASELINE, 0.0, seed)
            if not plan.split and not {own, base} <= ended:
                break
            values.append((accuracy.get(own, math.nan), accuracy.get(base, math.nan)))
        test, none = np.array(values, dtype=float).reshape(-1, 2).T
        pairs[method], differences[method] = Pairs(test, none, len(values), len(seeds)), test - none
    return pairs, differences


def _counted(pairs: Pairs, comparison: Comparison) -> Pairs:
    """Return the pairs that a comparison is of: those with both accuracies, up to the look at which it was made."""
    test, none = (values[: comparison.looked or None] for values in (pairs.test, pairs.none))
    finite = np.isfinite(test - none)
    return Pairs(test[finite], none[finite], pairs.ended, pairs.planned)


def _failed(method: str, fresh: pd.DataFrame) -> list[str]:
    """Return a note on a method's fresh trainings that diverged or collapsed."""
    seeds = list(fresh.loc[fresh["outcome"].isin(["diverged", "collapsed"]), "seed"])
    if not seeds:
        return []
    which, counts = ("seed", "it counts") if len(seeds) == 1 else ("seeds", "they count")
    return [
        f"{method}: {len(seeds)} of {len(fresh)} fresh trainings collapsed or diverged ({which} {format_seeds(seeds)}); "
        f"{counts} with the accuracy reached."
    ]
