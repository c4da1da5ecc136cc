"""The report's first paragraph: what helped, what hurt, what is not known, and how to learn it."""

from dataclasses import replace

from regbench.report import command
from regbench.report.analysis import Analysis
from regbench.report.language import gettext, ngettext
from regbench.report.load import Runs
from regbench.report.text import (
    bold,
    code,
    counted,
    described,
    difference,
    escape,
    join_and,
    largest,
    paragraph,
    percent,
    semicolons,
)  # fmt: skip
from regbench.statistics.looks import CONFIRM, seeds_needed
from regbench.statistics.verdict import MARGIN, Verdict
from regbench.trial import BASELINE, format_lam


def headline(runs: Runs, analysis: Analysis) -> str:
    """Return the paragraph in Markdown."""
    found = analysis.comparisons
    if not found:
        return paragraph([bold(gettext("Nothing is compared here.")), *map(escape, analysis.notes)])
    sentences = [_baseline(analysis)]
    for verdict, sentence in (
        (Verdict.BETTER, gettext("What helped: {changes}.")), (Verdict.WORSE, gettext("What hurt: {changes}.")),
    ):  # fmt: skip
        if names := [name for name in analysis.judged(verdict) if not found[name].trivial]:
            sentences.append(bold(sentence.format(changes=join_and(names, lambda name: _change(analysis, name)))))
    margin = f"{100 * MARGIN:g}"
    if names := analysis.judged(Verdict.EQUIVALENT):
        sentence = ngettext(
            "{names} changes it by less than {margin} points.",
            "{names} change it by less than {margin} points.",
            len(names),
        )
        sentences.append(sentence.format(names=join_and(names, code), margin=margin))
    trivially = {
        Verdict.BETTER: gettext(
            "{name} changes it by less than {margin} points: it is surely better, but by {size} points, which is "
            "practically none."
        ),
        Verdict.WORSE: gettext(
            "{name} changes it by less than {margin} points: it is surely worse, but by {size} points, which is "
            "practically none."
        ),
    }
    for name in (name for name in found if found[name].trivial):
        size = f"{abs(_difference(analysis, name)):.2f}"
        sentences.append(trivially[found[name].verdict].format(name=code(name), margin=margin, size=size))
    if names := analysis.judged(Verdict.NO_DIFFERENCE):
        form = gettext("{name} ({details})").format
        shown = join_and(names, lambda name: form(
            name=code(name), details=semicolons([_interval(analysis, name), *_lost(analysis, name)])
        ))  # fmt: skip
        sentence = gettext("No difference is shown for {names}; that is not evidence that there is none.")
        sentences.append(sentence.format(names=shown))
    return paragraph([*sentences, *_told_apart(analysis), *_unsettled(runs, analysis)])


def _baseline(analysis: Analysis) -> str:
    seeds = analysis.shown[BASELINE]
    kind = "fresh seed" if set(seeds) <= set(analysis.design.confirm) else "seed"
    return gettext("Without regularization the test accuracy is {accuracy} (mean over {seeds}).").format(
        accuracy=percent(analysis.cell(BASELINE)["test"]), seeds=counted(len(seeds), kind)
    )


def _change(analysis: Analysis, name: str) -> str:
    own, base = analysis.cell(name), analysis.cell(BASELINE)
    details = [_interval(analysis, name)]
    if own["sparsity/exact"] > 0.005:
        details.append(gettext("{share} of the weights exactly zero").format(share=percent(own["sparsity/exact"])))
    times = f"{own['time/trial'] / base['time/trial']:.1f}" if base["time/trial"] > 0 else "nan"
    if times not in ("1.0", "nan"):
        details.append(gettext("{times} times the training time").format(times=times))
    details += _lost(analysis, name)
    return gettext("{name} at lam {lam} by {size} points ({details})").format(
        name=code(name), lam=format_lam(analysis.lam(name)), size=f"{abs(_difference(analysis, name)):.2f}",
        details=semicolons(details),
    )  # fmt: skip


def _lost(analysis: Analysis, name: str) -> list[str]:
    cell = analysis.cell(name)
    lost = cell["diverged"] + cell["collapsed"]
    if not lost:
        return []
    trainings = counted(len(analysis.shown[name]), "training")
    return [gettext("{lost} of its {trainings} collapsed or diverged").format(lost=lost, trainings=trainings)]


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
            sentence = gettext("{better} is better than {worse} by {size} points ({interval})")
            found.append((size, sentence.format(
                better=code(first), worse=code(second), size=f"{size:.2f}", interval=described(interval)
            )))  # fmt: skip
    return [gettext("Against each other: {pairs}.").format(pairs=largest(found, _more_pairs))] if found else []


def _more_pairs(count: int) -> str:
    return ngettext("{count:,} more pair is told apart", "{count:,} more pairs are told apart", count).format(
        count=count
    )


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
        form = gettext("{name} ({ended} of {seeds})").format
        shown = (form(name=code(name), ended=pairs.ended, seeds=counted(pairs.planned, "fresh seed"))
                 for name, pairs in analysis.pairs.items() if name in waiting)  # fmt: skip
        found.append(gettext("Not settled yet: {names}.").format(names=join_and(shown)))
    if done and not design.confirm:
        sentence = gettext(
            "There is no verdict on {names}: {seeds} cannot both choose lam and judge the choice, which takes {needed} "
            "that had no say in it."
        )
        seeds = counted(len(design.selection), "seed")
        found.append(sentence.format(names=join_and(done, code), seeds=seeds, needed=needed))
    elif done:
        least, family = min(len(analysis.pairs[name]) for name in done), len(analysis.comparisons)
        alone = ngettext(
            "{seeds} is too few for a verdict on {names}: it takes {needed} or more.",
            "{seeds} are too few for a verdict on {names}: it takes {needed} or more.",
            least,
        )
        several = ngettext(
            "{seeds} is too few for a verdict on {names}: with {family} regularizers it takes {needed} or more.",
            "{seeds} are too few for a verdict on {names}: with {family} regularizers it takes {needed} or more.",
            least,
        )
        found.append((several if family > 1 else alone).format(
            seeds=counted(least, "fresh seed"), names=join_and(done, code), needed=needed, family=family
        ))  # fmt: skip
    commands = command.sweeps(runs, 0 if waiting else CONFIRM)
    if commands:
        (_, again), *more = commands
        others = [method for methods, _ in more for method in methods]
        line = code(again)
        if more:
            line = gettext("{command}; then {names} in the same way, with their own lams and scope").format(
                command=line, names=join_and(others, code)
            )
        if waiting:
            found.append(gettext("To train what is missing: {command}.").format(command=line))
        else:
            sentence = gettext("To judge on {count} fresh seeds: {command}.")
            found.append(sentence.format(count=CONFIRM, command=line))
    return found
