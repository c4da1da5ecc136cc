"""The report's tables in Markdown."""

import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TypeVar

import pandas as pd

from regbench.report import pruning
from regbench.report.analysis import Analysis
from regbench.report.language import gettext
from regbench.report.load import Runs
from regbench.report.text import (
    bold,
    bounds,
    code,
    difference,
    duration,
    escape,
    in_words,
    level,
    number,
    percent,
    points,
)  # fmt: skip
from regbench.statistics.power import GAINS, power, seeds_for
from regbench.statistics.verdict import Comparison
from regbench.trial import BASELINE, format_lam

K = TypeVar("K")
Judged = TypeVar("Judged")  # with a `comparison`
LONGEST = 15  # comparisons that a table of all pairs lists, whatever their verdicts


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table in Markdown, in which columns of words are set left, those of numbers right."""
    words = gettext(
        "regularizer | against | first | second | verdict | pairing | zeroed | layer | missing seeds | what | value"
    )
    left = {*columns(words), "contender", "operation"}
    rule = ["---" if name in left else "---:" for name in header]
    return "\n".join("| " + " | ".join(row) + " |" for row in (header, rule, *rows))


def columns(names: str) -> list[str]:
    """Return the names of columns from one message, so that a translator sees the row that they make: "a | b | c"."""
    return names.split(" | ")


def stopped() -> str:
    """Return the name of the row of `none` with early stopping."""
    return gettext("{none}, stopped early").format(none=code(BASELINE))


def verdicts(analysis: Analysis) -> str:
    """Return a row per regularizer at its chosen lam, over its pairs of fresh seeds; `none` first, over all of its own.

    The difference is that of the two accuracies as they are shown. What early stopping alone would have given comes
    second, where it is known.
    """
    header = columns(gettext(
        "regularizer | lam | seeds | test | {none} | difference, pp | interval | adjusted p | verdict | exact zeros | "
        "compression | speed-up | sparsity at 1 pp | gap, pp | s/trial"
    ).format(none=code(BASELINE)))  # fmt: skip
    base, found = analysis.cell(BASELINE), analysis.comparisons
    strong = best(found)
    at_edge = {"lowest": gettext("{lam} (lowest)"), "highest": gettext("{lam} (highest)")}
    rows = [(
        code(BASELINE), "", str(base["n"]), bold(percent(base["test"]), BASELINE in strong), "", "", "", "", "",
        *_measures(base),
    )]  # fmt: skip
    if math.isfinite(base["early"]):
        rows.append((
            stopped(), "", str(base["n"]), percent(base["early"]), percent(base["test"]),
            number(difference(base["early"], base["test"]), "+.2f"), *[""] * (len(header) - 6),
        ))  # fmt: skip
    for name, comparison in found.items():
        pairs, choice = analysis.pairs[name], analysis.design.choices[name]
        test, none = pairs.means
        rows.append((
            code(name), at_edge.get(choice.edge, "{lam}").format(lam=format_lam(choice.lam)), str(len(pairs)),
            bold(percent(test), name in strong), percent(none), number(difference(test, none), "+.2f"),
            *interval_and_p(comparison), verdict(comparison),
            *_measures(analysis.cell(name)),
        ))  # fmt: skip
    return table(header, rows)


def contrasts(analysis: Analysis) -> str:
    """Return a row per pair of regularizers: their accuracies on the seeds of both; "" where there is none to show.

    The difference is that of the two accuracies as they are shown.
    """
    header = columns(gettext(
        "regularizer | against | seeds | test | test of the other | difference, pp | interval | adjusted p | verdict"
    ))  # fmt: skip
    rows = []
    for (first, second), (comparison, pairs) in listed(analysis.contrasts).items():
        test, other = pairs.means
        rows.append((
            code(first), code(second), str(len(pairs)), percent(test), percent(other),
            number(difference(test, other), "+.2f"), *interval_and_p(comparison), verdict(comparison),
        ))  # fmt: skip
    return table(header, rows) if rows else ""


def listed(family: Mapping[K, Judged]) -> dict[K, Judged]:
    """Return the members of a family that its table lists: of a long one those that are settled."""
    return {name: found for name, found in family.items() if len(family) <= LONGEST or found.comparison.settled}


def interval_and_p(comparison: Comparison, shown: float = math.nan) -> tuple[str, str]:
    """Return the interval, which holds the difference as it is `shown` (see `bounds`), and the adjusted p."""
    interval = comparison.difference
    if not interval.bounded:
        return "-", "-"
    return f"{bounds(interval, shown)} ({level(interval)})", f"{comparison.p_adjusted:.3f}"


def verdict(comparison: Comparison) -> str:
    """Return the verdict in words, and whether it is one of a difference that is practically none."""
    words = in_words(comparison.verdict)
    return gettext("{verdict}, but within the margin").format(verdict=words) if comparison.trivial else words


def best(comparisons: Mapping[str, Comparison]) -> set[str]:
    """Return the best one, `none` included, and those that their intervals do not show to be worse than it.

    Where a regularizer is the best one its interval decides; where none is, each one's own.
    """
    differences = {BASELINE: 0.0} | {name: found.difference.mean for name, found in comparisons.items()}
    differences = {name: mean for name, mean in differences.items() if math.isfinite(mean)}
    first = max(differences, key=differences.__getitem__)
    if first == BASELINE:
        return {name for name in differences if name == BASELINE or comparisons[name].difference.high >= 0}
    lowest = comparisons[first].difference.low
    return {name for name, mean in differences.items() if name == first or mean >= lowest}


def noise(analysis: Analysis) -> str:
    """Return a row per regularizer: how much the paired differences vary, and how many fresh seeds would show a gain."""
    design, family = analysis.design, len(analysis.comparisons)
    gains = " | ".join(gettext("{gain} pp").format(gain=f"{100 * gain:g}") for gain in GAINS)
    header = columns(gettext(
        "regularizer | pairs | spread, pp | correlation | pairing | {gains} | chance of 1 pp here"
    ).format(gains=gains))  # fmt: skip
    rows = []
    for name, pairs in analysis.pairs.items():
        found, seconds = pairs.noise, analysis.cell(name)["time/trial"] + analysis.cell(BASELINE)["time/trial"]
        chance = math.nan
        if found.spread > 0 and design.looks:
            (chance,) = power(design.looks, family, found.spread, [0.01]).better
        rows.append((
            code(name), str(len(pairs)), number(100 * found.spread), number(found.correlation),
            _pairing(found.pairing), *(_seeds(seeds_for(gain, found.spread, family), seconds) for gain in GAINS),
            number(chance, ".0%"),
        ))  # fmt: skip
    return table(header, rows)


def _pairing(ratio: float) -> str:
    """Say what pairing did to the variance of a difference."""
    if not math.isfinite(ratio):
        return "-"
    share = gettext("over 99%") if 0 < ratio < 0.01 else f"{abs(1 - ratio):.0%}"
    form = gettext("removed {share} of the variance") if ratio < 1 else gettext("added {share} of the variance")
    return form.format(share=share)


def _seeds(count: float, seconds: float) -> str:
    """Return a number of fresh seeds, and how long their pairs take one after the other."""
    if math.isnan(count):
        return "-"
    if math.isinf(count):
        return gettext("100,000 or more")
    return f"{count:,.0f}" + (f" ({duration(count * seconds)})" if math.isfinite(seconds) else "")


def cells(analysis: Analysis) -> str:
    """Return a row per regularizer and lam of the grid, over the seeds that choose."""
    header = columns(gettext(
        "regularizer | lam | seeds | validation | test | lowest | highest | gap, pp | exact zeros | below 1e-3 | "
        "compression | speed-up | sparsity at 1 pp | s/trial | diverged | collapsed | missing seeds"
    ))  # fmt: skip
    rows = []
    for _, cell in analysis.cells.iterrows():
        lam = bold(format_lam(cell["lam"]), analysis.lam(cell["method"]) == cell["lam"])
        zeros, *savings, gap, seconds = _measures(cell)
        rows.append((
            code(cell["method"]), "" if cell["method"] == BASELINE else lam, str(cell["n"]),
            *(percent(cell[name]) for name in ("validation", "test", "test_low", "test_high")), gap, zeros,
            percent(cell["sparsity/abs_1e-3"]), *savings, seconds, str(cell["diverged"] or ""),
            str(cell["collapsed"] or ""), cell["missing"],
        ))  # fmt: skip
    return table(header, rows)


def pruned(analysis: Analysis) -> str:
    """Return a row per regularizer: mean test accuracies by the share of zeroed weights; "" where none are known."""
    curves = pruning.curves(analysis)
    shares = sorted({share for curve in curves for share in curve.accuracies})
    header = [*columns(gettext("regularizer | lam | zeroed")), *(f"{100 * share:g} %" for share in shares)]
    rows = []
    for curve in curves:
        lam, when = gettext("the share"), gettext("then trained")
        if curve.lam is not None:
            lam, when = format_lam(curve.lam) if curve.lam else "", gettext("after training")
        accuracies = (percent(curve.accuracies[share]) if share in curve.accuracies else "" for share in shares)
        rows.append((code(curve.method), lam, when, *accuracies))
    return table(header, rows) if rows else ""


def layers(analysis: Analysis, layers: pd.DataFrame) -> str:
    """Return a row per regularizer at its chosen lam and layer, with means over seeds."""
    header = columns(gettext(
        "regularizer | layer | weights | exact zeros | below 1e-3 | below 1e-2 | below 0.01 rms | zero rows | Gini | "
        "effective | largest"
    ))  # fmt: skip
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
    unknown = gettext("unknown")
    rows = [
        (gettext("experiment"), runs.experiment),
        (
            gettext("last trial ended"),
            f"{datetime.fromtimestamp(ended / 1000, UTC):%Y-%m-%d %H:%M UTC}" if ended else unknown,
        ),
        (
            gettext("trials"),
            gettext("{finished} finished, {others} not").format(finished=len(trials), others=len(runs.others)),
        ),
        (
            gettext("training time, all trials"),
            gettext("{time} min").format(time=f"{seconds / 60:.0f}") if math.isfinite(seconds) else unknown,
        ),
        (gettext("device, engine"), f"{devices}; {engines}"),
        *sorted(runs.recipe.items()),
        *((name, ", ".join(values)) for name, values in runs.environment.items()),
    ]
    return table(columns(gettext("what | value")), [tuple(map(escape, row)) for row in rows])


def _measures(cell: pd.Series) -> tuple[str, ...]:
    return (
        percent(cell["sparsity/exact"]), number(cell["compression_ratio"]), number(cell["theoretical_speedup"]),
        number(cell["sparsity_at_1pp"], ".1%"), points(cell["gap"]), number(cell["time/trial"], ".1f"),
    )  # fmt: skip


def _mean(group: pd.DataFrame, *names: str) -> float:
    """Return the mean of the first of these columns that is there and holds a number, NaN if none does."""
    means = [group[name].mean() for name in names if name in group]
    return next((mean for mean in means if math.isfinite(mean)), math.nan)
