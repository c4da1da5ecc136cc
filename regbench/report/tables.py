"""The report's tables in Markdown."""

import math
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

import pandas as pd

from regbench.report import statistics
from regbench.report.analysis import Analysis
from regbench.report.load import Runs
from regbench.report.statistics import Interval
from regbench.report.text import INTERVAL, bold, bounds, code, escape, number, percent, points
from regbench.trial import BASELINE, format_lam

# columns of words are aligned to the left, those of numbers to the right
WORDS = {"regularizer", "verdict", "layer", "missing seeds", "what", "value", "contender", "operation"}


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table in Markdown, in which the columns of `WORDS` are set left."""
    rule = ["---" if name in WORDS else "---:" for name in header]
    return "\n".join("| " + " | ".join(row) + " |" for row in (header, rule, *rows))


def verdicts(analysis: Analysis) -> str:
    """Return a row per regularizer at its chosen lam, `none` first."""
    header = (
        "regularizer", "lam", "validation", "test", INTERVAL, "difference, pp", INTERVAL, "adjusted p", "P(better)",
        "verdict", "exact zeros", "compression", "speed-up", "sparsity at 1 pp", "gap, pp", "s/trial",
    )  # fmt: skip
    base, found = analysis.cell(BASELINE), analysis.comparisons
    tests = [_interval(base, "test"), *(comparison.test for comparison in found.values())]
    strong = statistics.within_best(tests)
    rows = [(
        code(BASELINE), "", percent(base["validation"]), bold(percent(base["test"]), strong[0]),
        _accuracies(tests[0]), "", "", "", "", "", *_measures(base),
    )]  # fmt: skip
    for best, (name, comparison) in zip(strong[1:], found.items(), strict=True):
        cell, chosen, improvement = analysis.cell(name), comparison.selection, comparison.improvement
        rows.append((
            code(name), format_lam(chosen.lam) + (f" ({chosen.edge})" if chosen.at_edge else ""),
            percent(cell["validation"]), bold(percent(comparison.test.mean), best), _accuracies(comparison.test),
            points(comparison.difference.mean), bounds(comparison.difference), f"{comparison.p_adjusted:.3f}",
            f"{improvement.mean:.2f} [{number(improvement.low)}, {number(improvement.high)}]",
            comparison.verdict + (", but within the margin" if comparison.negligible else ""), *_measures(cell),
        ))  # fmt: skip
    return table(header, rows)


def cells(analysis: Analysis) -> str:
    """Return a row per regularizer and lam."""
    header = (
        "regularizer", "lam", "seeds", "validation", "test", INTERVAL, "gap, pp", "exact zeros", "below 1e-3",
        "compression", "speed-up", "sparsity at 1 pp", "s/trial", "diverged", "collapsed", "missing seeds",
    )  # fmt: skip
    rows = []
    for _, cell in analysis.cells.iterrows():
        lam = bold(format_lam(cell["lam"]), analysis.chosen(cell["method"]) == cell["lam"])
        zeros, *savings, gap, seconds = _measures(cell)
        rows.append((
            code(cell["method"]), "" if cell["method"] == BASELINE else lam, str(cell["n"]),
            percent(cell["validation"]), percent(cell["test"]), _accuracies(_interval(cell, "test")), gap, zeros,
            percent(cell["sparsity/abs_1e-3"]), *savings, seconds, str(cell["diverged"] or ""),
            str(cell["collapsed"] or ""), cell["missing"],
        ))  # fmt: skip
    return table(header, rows)


def layers(analysis: Analysis, layers: pd.DataFrame) -> str:
    """Return a row per regularizer at its chosen lam and layer, with means over seeds."""
    header = (
        "regularizer", "layer", "weights", "exact zeros", "below 1e-3", "below 1e-2", "below 0.01 rms", "zero rows",
        "Gini", "effective", "largest",
    )  # fmt: skip
    rows = []
    for method in analysis.methods:
        for layer, group in analysis.at_chosen(layers, method).groupby("layer", sort=False):
            weights = group["weights"].iloc[0]
            rows.append((
                code(method), code(layer), f"{weights:,}", percent(group["sparsity/exact"].mean()),
                percent(group["sparsity/abs_1e-3"].mean()), percent(group["sparsity/abs_1e-2"].mean()),
                percent(_mean(group, "sparsity/rel_1e-2")),
                percent(_mean(group, "sparsity/filters", "sparsity/neurons")), number(_mean(group, "gini")),
                percent(_mean(group, "n_eff") / weights), number(group["norm/max"].mean(), ".3f"),
            ))  # fmt: skip
    return table(header, rows)


def provenance(runs: Runs) -> str:
    """Return what the trials are of: the experiment, the recipe, the machines, the versions."""
    trials = runs.trials
    ended = int(trials["ended"].max()) if len(trials) else 0
    seconds = trials["time/trial"].sum() if "time/trial" in trials else math.nan
    devices, engines = (", ".join(sorted(set(trials[name]))) for name in ("device", "engine"))
    rows = [
        ("experiment", runs.experiment),
        ("last trial ended", f"{datetime.fromtimestamp(ended / 1000, UTC):%Y-%m-%d %H:%M UTC}" if ended else "unknown"),
        ("trials", f"{len(trials)} finished, {len(runs.others)} not"),
        ("training time, all trials", f"{seconds / 60:.0f} min" if math.isfinite(seconds) else "unknown"),
        ("device, engine", f"{devices}; {engines}"),
        *sorted(runs.recipe.items()),
        *((name, ", ".join(values)) for name, values in runs.environment.items()),
    ]
    return table(("what", "value"), [tuple(map(escape, row)) for row in rows])


def _measures(cell: pd.Series) -> tuple[str, ...]:
    return (
        percent(cell["sparsity/exact"]), number(cell["compression_ratio"]), number(cell["theoretical_speedup"]),
        number(cell["sparsity_at_1pp"], ".1%"), points(cell["gap"]), number(cell["time/trial"], ".1f"),
    )  # fmt: skip


def _interval(cell: pd.Series, name: str) -> Interval:
    return Interval(cell[name], cell[f"{name}_low"], cell[f"{name}_high"], cell["n"], statistics.LEVEL)


def _accuracies(interval: Interval) -> str:
    return bounds(interval, lambda value: f"{100 * value:.2f}")


def _mean(group: pd.DataFrame, *names: str) -> float:
    """Return the mean of the first of these columns that is there and holds a number, NaN if none does."""
    means = [group[name].mean() for name in names if name in group]
    return next((mean for mean in means if math.isfinite(mean)), math.nan)
