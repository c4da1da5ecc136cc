"""The report on several recipes side by side: its tables and sentences."""

from collections.abc import Collection, Mapping, Sequence

from regbench.report.interactions import Interaction
from regbench.report.language import gettext, ngettext
from regbench.report.recipes import Side
from regbench.report.tables import columns, interval_and_p, listed, table, verdict
from regbench.report.text import code, described, difference, escape, join_and, largest, number, percent, semicolons
from regbench.statistics.verdict import Verdict
from regbench.trial import BASELINE, format_lam

Family = Mapping[tuple[str, int, int], Interaction]


def side_by_side(sides: Sequence[Side]) -> str:
    """Return a row per regularizer and recipe; the difference is that of the two accuracies as they are shown."""
    header = columns(gettext(
        "regularizer | {parameters} | lam | seeds | test | {none} | difference, pp | interval | adjusted p | verdict"
    ).format(parameters=" | ".join(map(code, sides[0].values)), none=code(BASELINE)))  # fmt: skip
    rows = []
    for method in dict.fromkeys(name for side in sides for name in side.material.analysis.comparisons):
        for side in sides:
            analysis = side.material.analysis
            if method in analysis.comparisons:
                comparison, pairs, choice = (
                    found[method] for found in (analysis.comparisons, analysis.pairs, analysis.design.choices)
                )
                test, none = pairs.means
                rows.append((
                    code(method), *map(escape, side.values.values()), format_lam(choice.lam), str(len(pairs)),
                    percent(test), percent(none), number(difference(test, none), "+.2f"), *interval_and_p(comparison),
                    verdict(comparison),
                ))  # fmt: skip
    return table(header, rows) if rows else ""


def interactions(sides: Sequence[Side], family: Family) -> str:
    """Return a row per regularizer and pair of recipes; what is shown adds up; "" where there is none to show."""
    header = columns(gettext(
        "regularizer | first | second | lams | seeds | difference in the first, pp | in the second, pp | change, pp | "
        "interval | adjusted p | verdict"
    ))  # fmt: skip
    rows = []
    for (method, *pair), found in listed(family).items():
        both = [sides[place] for place in pair]
        lams = (format_lam(side.material.analysis.design.choices[method].lam) for side in both)
        rows.append((
            code(method), *(code(side.label) for side in both), ", ".join(lams), str(len(found.accuracies)),
            *(number(value, "+.2f") for value in (*found.gains, found.change)),
            *interval_and_p(found.comparison, found.change), found.verdict,
        ))  # fmt: skip
    return table(header, rows) if rows else ""


def differing(parameters: Mapping[str, Collection[str]]) -> str:
    """Return in what the recipes differ: "lr: 0.01 and 0.02; augment: none and flip_crop"."""
    return semicolons(
        f"{code(name)}: {join_and(values, lambda value: code(value) if value else '-')}"
        for name, values in parameters.items()
    )


def dependence(sides: Sequence[Side], family: Family) -> str:
    """Return the sentence on what is shown to depend on the recipe, the largest changes first; "" if nothing is judged."""
    if not family or all(found.comparison.verdict == Verdict.TOO_FEW for found in family.values()):
        return ""
    forms = {
        Verdict.BETTER: gettext("that of {name} is {size} points larger with {second} than with {first} ({interval})"),
        Verdict.WORSE: gettext("that of {name} is {size} points smaller with {second} than with {first} ({interval})"),
    }
    found = []
    for (method, first, second), one in family.items():
        if one.comparison.verdict in forms and not one.comparison.trivial:
            found.append((abs(one.change), forms[one.comparison.verdict].format(
                name=code(method), size=f"{abs(one.change):.2f}", first=code(sides[first].label),
                second=code(sides[second].label), interval=described(one.comparison.difference, one.change),
            )))  # fmt: skip
    if not found:
        return gettext("No difference to {none} is shown to be larger with one of them than with another.").format(
            none=code(BASELINE)
        )
    sentence = gettext("The difference to {none} depends on it: {changes}.")
    return sentence.format(none=code(BASELINE), changes=largest(found, _more_changes))


def _more_changes(count: int) -> str:
    return ngettext("{count:,} more change is shown", "{count:,} more changes are shown", count).format(count=count)
