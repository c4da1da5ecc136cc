"""The report's text: sentences and tables in Markdown, from an analysis."""

import math
import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

import pandas as pd

from regbench.report import statistics
from regbench.report.analysis import Analysis
from regbench.report.load import Runs
from regbench.report.power import MINIMUM_PAIRS, PAIRED_SD_PP, expected_power, seeds_needed
from regbench.report.statistics import Comparison, Interval, Verdict
from regbench.sweep import BASELINE, format_lam, format_seeds

FIGURES = {
    "forest": "Difference from `none` at the chosen lam",
    "accuracy_against_lam": "Test accuracy against lam",
    "learning_curves": "Learning curves at the chosen lam, means over seeds",
    "gap_against_lam": "Generalisation gap against lam",
    "accuracy_against_compression": "Accuracy against compression",
    "prune_curves": "Accuracy after zeroing the smallest weights, at the chosen lam, means over seeds",
    "layer_sparsity": "Sparsity per layer at the chosen lam, means over seeds",
    "weight_histograms": "All regularized weights of one trial each",
    "output_bars": "The output layer's weights of one trial each, the notebook's bar plot",
}


def escape(text: object) -> str:
    """Return text that Markdown and HTML show as it is, on one line."""
    line = " ".join(str(text).split())
    line = line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    line = re.sub(r"([\\`*_\[\]#|~$])", r"\\\1", line)
    # what begins a list or a rule, where a line begins with it
    return re.sub(r"^(\d{1,9}(?=[.)](\s|$))|(?=[-+=]([-+=\s]|$)))", r"\1\\", line)


def report(
    runs: Runs, analysis: Analysis, figures: Sequence[str], layers: pd.DataFrame, missing_files: str = ""
) -> str:
    """Return the whole report; `figures` are the names, out of FIGURES, of those that were drawn.

    `missing_files` is what is to be said of files that could not be read.
    """
    parts = [
        f"# Regularization on {escape(runs.recipe.get('dataset', 'unknown data'))}",
        _first_paragraph(runs, analysis),
        _image("forest", figures),
        _verdicts(analysis),
        _image("accuracy_against_lam", figures),
        _cells(analysis),
        *(_image(name, figures) for name in FIGURES if name not in ("forest", "accuracy_against_lam")),
        _layers(analysis, layers),
        _left_out(runs, analysis, missing_files),
        _method(analysis),
        _provenance(runs, analysis),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _first_paragraph(runs: Runs, analysis: Analysis) -> str:
    """What helped, by how much, how sure, what it cost, what was not shown."""
    seeds, found = len(analysis.seeds), analysis.comparisons
    if not found:
        return " ".join(["**Nothing is compared here.**", *map(escape, analysis.notes)])
    base = analysis.cells[analysis.cells["method"] == BASELINE].iloc[0]
    sentences = [f"Without regularization the test accuracy is {_percent(base['test'])} (mean over {_seeds(seeds)})."]
    groups = {verdict: [name for name in found if found[name].verdict is verdict] for verdict in Verdict}
    for verdict, word in ((Verdict.BETTER, "helped"), (Verdict.WORSE, "hurt")):
        told = [f"{_code(name)} by {_gain(found[name], _cost(name, analysis))}" for name in groups[verdict]]
        if told:
            sentences.append(f"**What {word}: {_list(told)}.**")
    if groups[Verdict.EQUIVALENT]:
        margin = f"{100 * statistics.MARGIN:g}"
        sentences.append(f"{_list(map(_code, groups[Verdict.EQUIVALENT]))} changed it by less than {margin} points.")
    if groups[Verdict.NO_DIFFERENCE]:
        ranges = [f"{_code(name)} ({_range(found[name].difference)})" for name in groups[Verdict.NO_DIFFERENCE]]
        sentences.append(f"No difference is shown for {_list(ranges)}; that is not evidence that there is none.")
    if groups[Verdict.TOO_FEW]:
        needed = seeds_needed(len(found))
        sentences.append(
            f"{_seeds(seeds).capitalize()} {'is' if seeds == 1 else 'are'} too few for a verdict on "
            f"{_list(map(_code, groups[Verdict.TOO_FEW]))}: a family of {len(found)} needs {needed}."
        )
    if not groups[Verdict.BETTER]:
        sentences.append("That any of them helps is not shown.")
    if seeds < MINIMUM_PAIRS:
        sentences.insert(0, "**Exploratory.**")
    return " ".join(sentences)


def _cost(name: str, analysis: Analysis) -> str:
    """What else changed with the method: sparsity if there is any, and time against `none`."""
    cells = analysis.cells
    own = cells[(cells["method"] == name) & (cells["lam"] == analysis.chosen(name))].iloc[0]
    base = cells[cells["method"] == BASELINE].iloc[0]
    told = []
    if own["sparsity/exact"] > 0.005:
        told.append(f"{_percent(own['sparsity/exact'])} of the weights exactly zero")
    if base["time/trial"] > 0 and math.isfinite(own["time/trial"]):
        told.append(f"{own['time/trial'] / base['time/trial']:.1f} times the training time")
    return "".join(f"; {part}" for part in told)


def _verdicts(analysis: Analysis) -> str:
    if not analysis.comparisons:
        return ""
    cells = analysis.cells
    base = cells[cells["method"] == BASELINE].iloc[0]
    header = (
        "regularizer", "lam", "validation", "test", "95 % interval", "difference, pp", "95 % interval", "adjusted p",
        "P(better)", "verdict", "exact zeros", "compression", "speed-up", "sparsity at 1 pp", "gap, pp", "s/trial",
    )  # fmt: skip
    found = analysis.comparisons
    tests = [_interval_of(base, "test"), *(comparison.test for comparison in found.values())]
    bold = statistics.within_best(tests)
    rows = [
        (_code(BASELINE), "", _percent(base["validation"]), _bold(_percent(base["test"]), bold[0]),
         _range(tests[0], "%"), "", "", "", "", "", *_measures(base))
    ]  # fmt: skip
    for strong, (name, comparison) in zip(bold[1:], found.items(), strict=True):
        chosen = comparison.selection
        own = cells[(cells["method"] == name) & (cells["lam"] == chosen.lam)].iloc[0]
        edge = {"lowest": " (lowest)", "highest": " (highest)"}.get(chosen.edge or "", "")
        improvement = comparison.improvement
        verdict = str(comparison.verdict) + (", but within the margin" if comparison.negligible else "")
        rows.append((
            _code(name), f"{format_lam(chosen.lam)}{edge}", _percent(own["validation"]),
            _bold(_percent(comparison.test.mean), strong), _range(comparison.test, "%"),
            _signed(comparison.difference.mean), _range(comparison.difference), f"{comparison.p_adjusted:.3f}",
            f"{improvement.mean:.2f} [{_plain(improvement.low)}, {_plain(improvement.high)}]", verdict,
            *_measures(own),
        ))  # fmt: skip
    exploratory = " **Exploratory: too few seeds for any verdict of significance.**" * (
        len(analysis.seeds) < MINIMUM_PAIRS
    )
    lines = ["## Each regularizer at its chosen lam", "", _table(header, rows), ""]
    lines.append(
        f"{_seeds(len(analysis.seeds)).capitalize()} ({format_seeds(analysis.seeds)}), paired; lam chosen on the mean "
        "validation accuracy; test accuracy after the last epoch. Bold: within the best one's interval. The difference "
        "is that of seeds tested at the lam which the other seeds choose: it is not biased by the choice, and need not "
        f"equal the difference of the two test accuracies.{exploratory}"
    )
    edges = [name for name, comparison in found.items() if comparison.selection.edge in ("lowest", "highest")]
    if edges:
        lines += ["", f"**The chosen lam is at the edge of the grid** for {_list(map(_code, edges))}: "
                      "a lam beyond it may be better."]  # fmt: skip
    ties = [
        f"{_code(name)} ({', '.join(map(format_lam, comparison.near_ties))})"
        for name, comparison in found.items()
        if len(comparison.near_ties) > 1
    ]
    if ties:
        lines += ["", f"Nearly tied on validation: {_list(ties)}. A verdict is given only if it holds at each of them."]
    return "\n".join(lines)


def _cells(analysis: Analysis) -> str:
    if analysis.cells.empty:
        return ""
    header = (
        "regularizer", "lam", "seeds", "validation", "test", "95 % interval", "gap, pp", "exact zeros", "below 1e-3",
        "compression", "speed-up", "sparsity at 1 pp", "s/trial", "diverged", "collapsed", "missing seeds",
    )  # fmt: skip
    rows = []
    for _, cell in analysis.cells.iterrows():
        chosen = analysis.chosen(cell["method"]) == cell["lam"] and cell["method"] != BASELINE
        rows.append((
            _code(cell["method"]), "" if cell["method"] == BASELINE else _bold(format_lam(cell["lam"]), chosen),
            str(cell["n"]), _percent(cell["validation"]), _percent(cell["test"]),
            _range(_interval_of(cell, "test"), "%"), _signed(cell["gap"]), _percent(cell["sparsity/exact"]),
            _percent(cell["sparsity/abs_1e-3"]), _number(cell["compression_ratio"], 2),
            _number(cell["theoretical_speedup"], 2), _share(cell["sparsity_at_1pp"]), _number(cell["time/trial"], 1),
            str(cell["diverged"] or ""), str(cell["collapsed"] or ""), cell["missing"],
        ))  # fmt: skip
    return "\n".join(["## Every regularizer and lam", "", _table(header, rows), "", "Bold: the chosen lam."])


def _layers(analysis: Analysis, layers: pd.DataFrame) -> str:
    if layers.empty:
        return ""
    header = (
        "regularizer", "layer", "weights", "exact zeros", "below 1e-3", "below 1e-2", "below 0.01 rms", "zero rows", "Gini",
        "effective", "largest",
    )  # fmt: skip
    rows = []
    for method in analysis.methods:
        own = layers[(layers["method"] == method) & (layers["lam"] == analysis.chosen(method))]
        for layer, group in own.groupby("layer", sort=False):
            rows.append((
                _code(method), _code(layer), f"{group['weights'].iloc[0]:,}", _percent(group["sparsity/exact"].mean()),
                _percent(group["sparsity/abs_1e-3"].mean()), _percent(group["sparsity/abs_1e-2"].mean()),
                _percent(_mean(group, "sparsity/rel_1e-2")), _percent(_mean(group, "sparsity/filters", "sparsity/neurons")),
                _number(_mean(group, "gini"), 2), _percent(_mean(group, "n_eff") / group["weights"].iloc[0]),
                _number(group["norm/max"].mean(), 3),
            ))  # fmt: skip
    text = (
        "Means over seeds at the chosen lam. A fixed threshold measures scale as much as sparsity: compare with `none`, or "
        "see the one at a hundredth of the layer's own root mean square (rms). Zero rows: filters or neurons without any "
        "weight. Gini: 0 if all weights are of one size, near 1 if few are large. Effective: (sum of |w|)^2 / sum of w^2 "
        "over the number of weights."
    )
    return "\n".join(["## Per layer", "", _table(header, rows), "", text])


def _mean(group: pd.DataFrame, *names: str) -> float:
    """Return the mean of the first of these columns that is there and holds a number, NaN if none does."""
    means = [group[name].mean() for name in names if name in group]
    return next((mean for mean in means if math.isfinite(mean)), math.nan)


def _left_out(runs: Runs, analysis: Analysis, missing_files: str) -> str:
    lines = [f"* {escape(note)}" for note in analysis.notes]
    for outcome in ("diverged", "collapsed"):
        names = sorted(runs.trials.loc[runs.trials["outcome"] == outcome, "name"])
        if len(names):
            lines.append(f"* {len(names)} {outcome}: {', '.join(_code(name) for name in names)}.")
    for (status, reason), group in runs.others.groupby(["status", "reason"], sort=True):
        why = f" ({escape(reason)})" if reason else ""
        lines.append(f"* {len(group)} {escape(status)}{why}: {', '.join(_code(name) for name in group['name'])}.")
    if runs.foreign:
        lines.append(
            f"* {runs.foreign} runs of the experiment are no trials or sweeps of regbench and are not looked at."
        )
    if runs.outdated:
        lines.append(
            f"* {runs.outdated} trials were trained again after regbench, or a regularizer of yours, had changed: of each "
            "the newest counts."
        )
    if missing_files:
        lines.append(f"* {escape(missing_files)}")
    lines = lines or ["Nothing: every trial finished and every cell is complete."]
    return "\n".join(["## Failed, collapsed, missing", "", *lines])


def _method(analysis: Analysis) -> str:
    family = max(len(analysis.comparisons), 1)
    seeds = len(analysis.seeds)
    lines = [
        "## How to read it",
        "",
        "The seed is the unit: seed s gives the same initial weights, batch order and validation part to every "
        "regularizer and lam. Intervals are Student's t at 95 % (ddof 1). p is that of an exact sign-flip test of the "
        f"paired differences, adjusted by Holm over the {family} comparison{'s' if family > 1 else ''}. P(better) is "
        "the probability that a training with the regularizer beats one without, with a bootstrap interval over seeds. "
        f"Equivalent: the whole interval lies within {100 * statistics.MARGIN:g} percentage points. Where several lams "
        "are nearly tied on validation, a verdict must hold for all of them.",
        "",
        "Compression: parameters over those not exactly zero. Speed-up: multiplications of an image "
        "over those with a weight that is not zero; it is a bound that scattered zeros seldom reach, and is smaller than "
        "compression where dense layers hold the weights and convolutions the work. Sparsity at 1 pp: the largest share of "
        "the weights that can be zeroed, smallest first and without training again, at a cost of at most one point of the "
        "trial's own test accuracy, in the steps of the figure; the test images tell it after the last epoch, and it "
        "chooses nothing. A network at chance loses nothing by it: read it beside the accuracy.",
    ]
    spread = 100 * analysis.paired_sd
    if seeds >= seeds_needed(family) and spread > 0:
        # the table's gains are as large against its own spread as these are against the one seen here
        gains = ((gain * spread / PAIRED_SD_PP, expected_power(seeds, gain, family)) for gain in (0.5, 1.0, 2.0))
        chances = ", ".join(f"{gain:.1f} pp {100 * chance:.0f} %" for gain, chance in gains)
        lines += [
            "",
            f"The paired differences spread with a standard deviation of {spread:.2f} pp. With such a spread the chance "
            f"that {seeds} seeds show a true gain is, from simulated sweeps: {chances}.",
        ]
    return "\n".join(lines)


def _provenance(runs: Runs, analysis: Analysis) -> str:
    ended = int(runs.trials["ended"].max()) if len(runs.trials) else 0
    moment = datetime.fromtimestamp(ended / 1000, UTC).strftime("%Y-%m-%d %H:%M UTC") if ended else "unknown"
    seconds = runs.trials["time/trial"].sum() if "time/trial" in runs.trials else math.nan
    devices = ", ".join(sorted(set(runs.trials["device"])))
    engines = ", ".join(sorted(set(runs.trials["engine"])))
    rows = [
        ("experiment", runs.experiment),
        ("last trial ended", moment),
        ("trials", f"{len(runs.trials)} finished, {len(runs.others)} not"),
        ("training time, all trials", f"{seconds / 60:.0f} min" if math.isfinite(seconds) else "unknown"),
        ("device, engine", f"{devices}; {engines}"),
        *sorted(runs.recipe.items()),
        *((name, ", ".join(values)) for name, values in runs.environment.items()),
    ]
    table = _table(("what", "value"), [(escape(name), escape(value)) for name, value in rows])
    return f"## Where it comes from\n\n{table}"


def _image(name: str, figures: Sequence[str]) -> str:
    if name not in figures:
        return ""
    return f"![{FIGURES[name].replace('`', '')}](figures/{name}.png)\n\n*{FIGURES[name]}.*"


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table; the first column is aligned to the left, columns of words too, numbers to the right."""
    words = {"regularizer", "verdict", "layer", "missing seeds", "what", "value"}
    rule = ["---" if name in words else "---:" for name in header]
    return "\n".join("| " + " | ".join(row) + " |" for row in (header, rule, *rows))


def _measures(cell: pd.Series) -> tuple[str, ...]:
    return (
        _percent(cell["sparsity/exact"]), _number(cell["compression_ratio"], 2),
        _number(cell["theoretical_speedup"], 2), _share(cell["sparsity_at_1pp"]), _signed(cell["gap"]),
        _number(cell["time/trial"], 1),
    )  # fmt: skip


def _interval_of(cell: pd.Series, name: str) -> Interval:
    return Interval(cell[name], cell[f"{name}_low"], cell[f"{name}_high"], cell["n"], statistics.LEVEL)


def _gain(found: Comparison, cost: str) -> str:
    return f"{abs(100 * found.difference.mean):.1f} points (95 % interval {_range(found.difference)}{cost})"


def _range(interval: Interval, unit: str = "") -> str:
    """Return an interval in percent, with signs unless it is of accuracies."""
    if not math.isfinite(interval.low):
        return "-"
    if unit:
        return f"{100 * interval.low:.2f} to {100 * interval.high:.2f}"
    return f"{_signed(interval.low)} to {_signed(interval.high)}"


def _percent(value: float) -> str:
    return f"{value:.2%}" if math.isfinite(value) else "-"


def _share(value: float) -> str:
    return f"{100 * value:.1f}%" if math.isfinite(value) else "-"


def _signed(value: float) -> str:
    return f"{100 * value:+.2f}" if math.isfinite(value) else "-"


def _plain(value: float) -> str:
    return f"{value:.2f}" if math.isfinite(value) else "-"


def _number(value: float, digits: int) -> str:
    return f"{value:.{digits}f}" if math.isfinite(value) else "-"


def _bold(text: str, strong: bool) -> str:
    return f"**{text}**" if strong else text


def _code(name: str) -> str:
    """Return a name as code; one with characters that code cannot show in a table is escaped instead."""
    return f"`{name}`" if re.fullmatch(r"[\w .=+:,/-]+", name, re.ASCII) else escape(name)


def _list(items: Iterable[str]) -> str:
    *first, last = items
    return f"{', '.join(first)} and {last}" if first else last


def _seeds(count: int) -> str:
    return f"{count} seed{'s' if count != 1 else ''}"
