"""The analysis of tidy frames: how regularizers, at their chosen lams, compare with none and each other on fresh seeds."""

import math
import re
from dataclasses import dataclass
from itertools import combinations

import pandas as pd

from regbench.report.design import VALIDATION, Design, design
from regbench.report.language import gettext, ngettext
from regbench.report.load import Runs
from regbench.report.pairs import TEST, Contrast, Fresh, Pairs, compare
from regbench.statistics.verdict import Comparison, Verdict
from regbench.tracking import schema
from regbench.trial import BASELINE, format_seeds

EARLY = "early/accuracy"  # on test, of the epoch with the best validation accuracy
# metrics whose means a cell contains, beside the accuracies
MEANS = (
    "sparsity/exact", "sparsity/abs_1e-3", "compression_ratio", "theoretical_speedup", "sparsity_at_1pp", "time/trial",
)  # fmt: skip
PRUNE = "prune/"  # the accuracies of pruned networks are "prune/<share>"


@dataclass(frozen=True)
class Analysis:
    """The content of tables and figures.

    cells: a row per method and lam of the grid, over the seeds that choose (means, and the lowest and highest accuracy;
    `missing`: seeds without a usable result). chosen: a row per method at its chosen lam, in the same columns, over
    `shown`: method -> its fresh seeds, or those of the grid where it has no fresh ones; the means on test, after the last
    epoch and (`early`) after the best one on validation, are over all that ended. comparisons and pairs: per method with a
    chosen lam, none left out. contrasts: per pair of these methods, a family of its own; empty without fresh seeds. notes:
    a sentence for each thing left out, and why.
    """

    design: Design
    cells: pd.DataFrame
    chosen: pd.DataFrame
    shown: dict[str, tuple[int, ...]]
    comparisons: dict[str, Comparison]
    pairs: dict[str, Pairs]
    contrasts: dict[tuple[str, str], Contrast]
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
        return Analysis(
            Design((), {}, (), (), False), nothing, nothing, {}, {}, {}, {}, (gettext("No trial has finished."),)
        )
    plan = design(runs)
    notes = list(plan.notes)
    grid = trials[trials["stage"] == schema.GRID]
    choosing = plan.selection or tuple(sorted(set(grid["seed"])))
    cells = [_cell(*key, group, choosing) for key, group in _grouped(grid)]
    compared = list(plan.choices) if BASELINE in set(trials["method"]) else []
    if BASELINE not in set(trials["method"]):
        notes.insert(0, gettext("There are no trials of none, so nothing is compared."))
    trained = Fresh(runs, plan)
    with_none = compare({method: trained.pairs(method, BASELINE) for method in compared}, plan.looks)
    among = combinations(compared, 2) if plan.confirm else ()
    contrasts = compare({pair: trained.pairs(*pair) for pair in among}, plan.looks)
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
    comparisons = {method: found.comparison for method, found in with_none.items()}
    pairs = {method: found.pairs for method, found in with_none.items()}
    return Analysis(plan, *frames, shown, comparisons, pairs, contrasts, tuple(notes))


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


def _failed(method: str, fresh: pd.DataFrame) -> list[str]:
    """Return a note on a method's fresh trainings that diverged or collapsed."""
    seeds = list(fresh.loc[fresh["outcome"].isin(["diverged", "collapsed"]), "seed"])
    if not seeds:
        return []
    sentence = ngettext(
        "{name}: {count} of {all} fresh trainings collapsed or diverged (seed {seeds}); it counts with the accuracy "
        "reached.",
        "{name}: {count} of {all} fresh trainings collapsed or diverged (seeds {seeds}); they count with the accuracy "
        "reached.",
        len(seeds),
    )
    return [sentence.format(name=method, count=len(seeds), all=len(fresh), seeds=format_seeds(seeds))]
