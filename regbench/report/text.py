"""Numbers, intervals and names as the report's Markdown shows them."""

import math
import re
from collections.abc import Callable, Iterable

from regbench.report.language import gettext, ngettext
from regbench.statistics.paired import Interval
from regbench.statistics.verdict import Verdict

MOST = 3  # differences that a sentence names


def escape(text: object) -> str:
    """Return text that Markdown and HTML show as it is, on one line."""
    line = " ".join(str(text).split())
    line = line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    line = re.sub(r"([\\`*_\[\]#|~$])", r"\\\1", line)
    # a number, bullet or rule at the beginning of a line
    return re.sub(r"^(\d{1,9}(?=[.)](\s|$))|(?=[-+=]([-+=\s]|$)))", r"\1\\", line)


def code(name: str) -> str:
    """Return a name as code; one with characters that code cannot show in a table is escaped instead."""
    return f"`{name}`" if re.fullmatch(r"[\w .=+@:,/*?!'\[\]-]+", name, re.ASCII) else escape(name)


def bold(text: str, strong: bool = True) -> str:
    return f"**{text}**" if strong else text


def join_and(items: Iterable, form: Callable[..., str] = str) -> str:
    """Return "a, b and c", each item as `form` writes it."""
    *first, last = map(form, items)
    return gettext("{first} and {last}").format(first=gettext(", ").join(first), last=last) if first else last


def counted(number: int, noun: str) -> str:
    """Return "1 seed", "2 seeds", and so on, of the nouns that are named here."""
    forms = {
        "seed": ngettext("{count:,} seed", "{count:,} seeds", number),
        "fresh seed": ngettext("{count:,} fresh seed", "{count:,} fresh seeds", number),
        "training": ngettext("{count:,} training", "{count:,} trainings", number),
    }
    return forms[noun].format(count=number)


def semicolons(items: Iterable[str]) -> str:
    """Return "a; b; c"."""
    return gettext("; ").join(items)


def largest(found: Iterable[tuple[float, str]], others: Callable[[int], str]) -> str:
    """Return what is said of the largest of sizes, and of how many others there are: "a; b; c; 2 more pairs are told"."""
    said = [text for _, text in sorted(found, key=lambda pair: -pair[0])]
    more = len(said) - MOST
    return semicolons([*said[:MOST], *([others(more)] if more > 0 else [])])


def in_words(verdict: Verdict) -> str:
    """Return a verdict in the language of the report."""
    words = {
        Verdict.BETTER: gettext("better"),
        Verdict.WORSE: gettext("worse"),
        Verdict.EQUIVALENT: gettext("equivalent"),
        Verdict.NO_DIFFERENCE: gettext("no difference shown"),
        Verdict.TOO_FEW: gettext("too few seeds"),
    }
    return words[verdict]


def number(value: float, form: str = ".2f") -> str:
    """Return a number in one of Python's formats, "-" where it is not finite."""
    return format(value, form) if math.isfinite(value) else "-"


def hundredths(value: float, towards: Callable[[float], int] | None = None) -> float:
    """Return a fraction as percent of two decimals, halves up: so that differences of equal size are shown as equal.

    `towards` is math.floor or math.ceil for one that is rounded down or up.
    """
    scaled = round(10_000 * value, 6)  # without the noise of binary fractions
    return (towards or math.floor)(scaled + (0 if towards else 0.5)) / 100 if math.isfinite(value) else value


def percent(value: float) -> str:
    return f"{number(hundredths(value))}%" if math.isfinite(value) else "-"


def points(value: float) -> str:
    """Return a difference of fractions as percentage points, with its sign."""
    return number(hundredths(value), "+.2f")


def difference(a: float, b: float) -> float:
    """Return a - b, fractions, in percentage points as they are shown: exactly the difference of both as shown."""
    return round(hundredths(a) - hundredths(b), 2) + 0.0


def bounds(interval: Interval, shown: float = math.nan) -> str:
    """Return an interval's bounds in percentage points, rounded away from each other; "-" where there are none.

    So rounded they hold the difference as it is shown, and never claim more than the interval does. One of more than two
    numbers as they are shown may lie a hundredth further out: then the interval is shown up to it, if it is given.
    """
    if not interval.bounded:
        return "-"
    low, high = hundredths(interval.low, math.floor), hundredths(interval.high, math.ceil)
    if math.isfinite(shown):
        low, high = min(low, shown), max(high, shown)
    return gettext("{low} to {high}").format(low=f"{low + 0.0:+.2f}", high=f"{high + 0.0:+.2f}")


def described(interval: Interval, shown: float = math.nan) -> str:
    """Return "98.5 % interval -1.17 to -0.48"; `shown` is as in `bounds`."""
    return gettext("{level} interval {bounds}").format(level=level(interval), bounds=bounds(interval, shown))


def level(interval: Interval) -> str:
    """Return an interval's level in percent, with two digits of what is left of 100 %: 95 %, 98.3 %, 99.58 %."""
    left = 100 * (1 - interval.level)
    digits = max(0, 1 - math.floor(math.log10(left)))
    return f"{float(f'{100 - left:.{digits}f}'):.12g} %"


def duration(seconds: float) -> str:
    """Return a time in the unit that suits it; "-" where it is not known."""
    for form, limit, next_unit in (
        (gettext("{time} s"), 60, 60), (gettext("{time} min"), 60, 60), (gettext("{time} h"), 48, 24),
        (gettext("{time} days"), math.inf, 1),
    ):  # fmt: skip
        if seconds < limit:
            return form.format(time=f"{seconds:.{0 if seconds >= 10 else 1}f}")
        seconds /= next_unit
    return "-"


def unwrap(text: str) -> str:
    """Return paragraphs with each on one line.

    Japanese sentences follow each other without a space, but for what follows bold, which would not be taken for bold then.
    """
    text = re.sub(r"(?<=。)\n(?=\S)", "", text)
    return re.sub(r"(?<=\S)\n(?=\S)", " ", text)


def paragraph(sentences: Iterable[str]) -> str:
    return unwrap("\n".join(sentences))
