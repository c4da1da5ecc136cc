"""The report's first paragraph: what helped, what hurt, what is not known, and how to learn it."""

from dataclasses import replace

from regbench.report import command
from regbench.report.analysis import Analysis
from regbench.report.load import Runs
from regbench.report.text import bold, code, counted, described, difference, escape, join_and, largest, percent
from regbench.statistics.looks import CONFIRM, seeds_needed
from regbench.statistics.verdict import MARGIN, Verdict
from regbench.trial import BASELINE, format_lam


def headline(runs: Runs, analysis: Analysis) -> str:
    """Return the paragraph in Markdown."""
    found = analysis.comparisons
    if not found:
        return " ".join([bold("Nothing is compared here."), *map(escape, analysis.notes)])
    sentences = [_baseline(analysis)]
    for verdict, start in ((Verdict.BETTER, "What helped"), (Verdict.WORSE, "What hurt")):
        if names := [name for name in analysis.judged(verdict) if not found[name].trivial]:
            sentences.append(bold(f"{start}: {join_and(names, lambda name: _change(analysis, name))}."))
    margin = f"less than {100 * MARGIN:g} points"
    if names := analysis.judged(Verdict.EQUIVALENT):
        sentences.append(f"{join_and(names, code)} {'changes' if len(names) == 1 else 'change'} it by {margin}.")
    for name in (name for name in found if found[name].trivial):
        size = abs(_difference(analysis, name))
        sentences.append(
            f"{code(name)} changes it by {margin}: it is surely {found[name].verdict}, but by {size:.2f} points, which is "
            "practically none."
        )
    if names := analysis.judged(Verdict.NO_DIFFERENCE):
        shown = join_and(
            names, lambda name: f"{code(name)} ({'; '.join([_interval(analysis, name), *_lost(analysis, name)])})"
        )
        sentences.append(f"No difference is shown for {shown}; that is not evidence that there is none.")
    return " ".join([*sentences, *_told_apart(analysis), *_unsettled(runs, analysis)])


def _baseline(analysis: Analysis) -> str:
    seeds = analysis.shown[BASELINE]
    kind = "fresh seed" if set(seeds) <= set(analysis.design.confirm) else "seed"
    accuracy = percent(analysis.cell(BASELINE)["test"])
    return f"Without regularization the test accuracy is {accuracy} (mean over {counted(len(seeds), kind)})."


def _change(analysis: Analysis, name: str) -> str:
    own, base = analysis.cell(name), analysis.cell(BASELINE)
    details = [_interval(analysis, name)]
    if own["sparsity/exact"] > 0.005:
        details.append(f"{percent(own['sparsity/exact'])} of the weights exactly zero")
    times = f"{own['time/trial'] / base['time/trial']:.1f}" if base["time/trial"] > 0 else "nan"
    if times not in ("1.0", "nan"):
        details.append(f"{times} times the training time")
    details += _lost(analysis, name)
    lam = format_lam(analysis.lam(name))
    return f"{code(name)} at lam {lam} by {abs(_difference(analysis, name)):.2f} points ({'; '.join(details)})"


def _lost(analysis: Analysis, name: str) -> list[str]:
    cell = analysis.cell(name)
    lost = cell["diverged"] + cell["collapsed"]
    return [f"{lost} of its {counted(len(analysis.shown[name]), 'training')} collapsed or diverged"] if lost else []


def _difference(analysis: Analysis, name: str) -> float:
    return difference(*analysis.pairs[name].means)


def _interval(analysis: Analysis, name: str) -> str:
    return described(analysis.comparisons[name].difference)


def _told_apart(analysis: Analysis) -> list[str]:
    """Return which regularizers are told from each other, and not by less than the margin: the largest ones first."""
    found = []
    for (first, second), (comparison, pairs) in analysis.contrasts.items():
        if comparison.verdict in (Verdict.BETTER, Verdict.WORSE) and not comparison.trivial:
            size, interval = difference(*pairs.means), comparison.difference
            if comparison.verdict == Verdict.WORSE:
                first, second, size = second, first, -size
                interval = replace(interval, low=-interval.high, high=-interval.low)
            found.append(
                (size, f"{code(first)} is better than {code(second)} by {size:.2f} points ({described(interval)})")
            )
    return [f"Against each other: {largest(found, 'more pair', 'told apart')}."] if found else []


def _unsettled(runs: Runs, analysis: Analysis) -> list[str]:
    """Return what is missing for a verdict on those that have none, and the command that trains it."""
    design, names = analysis.design, analysis.judged(Verdict.TOO_FEW)
    if not names:
        return []
    needed = seeds_needed(len(analysis.comparisons))
    waiting = [name for name in names if analysis.pairs[name].ended < analysis.pairs[name].planned]
    done = [name for name in names if name not in waiting]
    found = []
    if waiting:
        shown = (f"{code(name)} ({pairs.ended} of {counted(pairs.planned, 'fresh seed')})"
                 for name, pairs in analysis.pairs.items() if name in waiting)  # fmt: skip
        found.append(f"Not settled yet: {join_and(shown)}.")
    if done and not design.confirm:
        found.append(
            f"There is no verdict on {join_and(done, code)}: {counted(len(design.selection), 'seed')} cannot both choose "
            f"lam and judge the choice, which takes {needed} that had no say in it."
        )
    elif done:
        least = min(len(analysis.pairs[name]) for name in done)
        verb = "is" if least == 1 else "are"
        family = f"with {len(analysis.comparisons)} regularizers " if len(analysis.comparisons) > 1 else ""
        found.append(
            f"{counted(least, 'fresh seed')} {verb} too few for a verdict on {join_and(done, code)}: {family}it takes "
            f"{needed} or more."
        )
    commands = command.sweeps(runs, 0 if waiting else CONFIRM)
    if commands:
        (_, again), *more = commands
        what = "To train what is missing" if waiting else f"To judge on {CONFIRM} fresh seeds"
        others = [method for methods, _ in more for method in methods]
        likewise = f"; then {join_and(others, code)} in the same way, with their own lams and scope" if more else ""
        found.append(f"{what}: {code(again)}{likewise}.")
    return found
