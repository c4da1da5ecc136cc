"""The statistics of a report as tables: those of its CSV files, and of a sweep in Python."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict

import pandas as pd

from regbench.report.analysis import Analysis, analyse
from regbench.report.interactions import Interaction
from regbench.report.language import ENGLISH, use
from regbench.report.load import Runs
from regbench.report.recipes import DATA, Side, differing
from regbench.statistics.verdict import Comparison

# columns of a trial that come first; what only finds it in a store comes last, or not at all
FIRST = ("regularizer", "lam", "seed", "scope", "stage", "status", "test/accuracy", "val/accuracy", "fit/accuracy")
LAST, LEFT_OUT = ("engine", "device", "name", "run_id"), ("method", "key", "parent", "artifacts", "ended", "recipe")


def trials(found: Sequence[Runs]) -> pd.DataFrame:
    """Return a row per finished trial of these recipes, with a column for each parameter in which recipes differ.

    status is ok, diverged or collapsed; stage is grid or confirm.
    """
    tables = [
        _with_recipe(runs.trials.rename(columns={"outcome": "status"}), runs, found).drop(columns=list(LEFT_OUT))
        for runs in found
    ]
    table = pd.concat(tables, ignore_index=True)
    first = [*_names(found), *(name for name in FIRST if name in table)]
    others = [name for name in table if name not in {*first, *LAST}]
    return table[[*first, *others, *LAST]]


def verdicts(found: Sequence[Runs]) -> pd.DataFrame:
    """Return the comparisons of these recipes with none, a row per regularizer, and per scope if there are several."""
    tables = [_with_recipe(comparisons(analyse(runs)).rename(columns={"method": "regularizer"}), runs, found)
              for runs in found]  # fmt: skip
    table = pd.concat(tables, ignore_index=True)
    first = [*_names(found), "regularizer", "lam", "difference", "low", "high", "verdict"]
    return table.reindex(columns=[*first, *(name for name in table if name not in first)])


def _names(found: Sequence[Runs]) -> list[str]:
    return [name for name in differing([runs.recipe for runs in found]) if name != DATA]


def _with_recipe(table: pd.DataFrame, runs: Runs, found: Sequence[Runs]) -> pd.DataFrame:
    return table.assign(**{name: _read(runs.recipe.get(name, "")) for name in _names(found)})


def _read(text: str) -> float | int | str:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text


def comparisons(analysis: Analysis) -> pd.DataFrame:
    """Return a row per method with a chosen lam: its comparison with none on fresh seeds."""
    rows = []
    for method, found in analysis.comparisons.items():
        pairs, choice = analysis.pairs[method], analysis.design.choices[method]
        test, none = pairs.means
        row = {
            "method": method,
            "lam": choice.lam,
            "edge": choice.edge,
            "seeds": len(pairs),
            "test": test,
            "none": none,
        }
        rows.append(row | _judged(found) | asdict(pairs.noise))
    return pd.DataFrame(rows)


def contrasts(analysis: Analysis) -> pd.DataFrame:
    """Return a row per pair of methods: their comparison with each other on fresh seeds."""
    rows = []
    for (method, other), (found, pairs) in analysis.contrasts.items():
        lam, lam_other = analysis.lam(method), analysis.lam(other)
        test, test_other = pairs.means
        row = {"method": method, "lam": lam, "other": other, "lam_other": lam_other, "seeds": len(pairs),
               "test": test, "test_other": test_other}  # fmt: skip
        rows.append(row | _judged(found) | asdict(pairs.noise))
    return pd.DataFrame(rows)


@use(ENGLISH)  # the words of the verdicts in CSV files are for programs
def interactions(sides: Sequence[Side], family: Mapping[tuple[str, int, int], Interaction]) -> pd.DataFrame:
    """Return a row per method and pair of recipes: the difference between its differences to none."""
    rows = []
    for (method, *pair), found in family.items():
        first, second = (sides[place] for place in pair)
        lam, lam_second = (side.material.analysis.lam(method) for side in (first, second))
        four = found.accuracies
        own, none, own_second, none_second = four.mean(axis=0) if len(four) else [math.nan] * 4
        row = {"method": method, "first": first.folder, "second": second.folder, "lam": lam, "lam_second": lam_second,
               "seeds": len(four), "test": own, "none": none, "test_second": own_second,
               "none_second": none_second}  # fmt: skip
        rows.append(row | _judged(found.comparison) | {"verdict": found.verdict})
    return pd.DataFrame(rows)


def _judged(found: Comparison) -> dict[str, object]:
    interval = found.difference
    return {
        "difference": interval.mean, "low": interval.low, "high": interval.high, "level": interval.level,
        "p_adjusted": found.p_adjusted, "looked": found.looked, "verdict": str(found.verdict),
    }  # fmt: skip
