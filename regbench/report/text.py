"""Numbers, intervals and names as the report's Markdown shows them."""

import math
import re
from collections.abc import Callable, Iterable

from regbench.report.statistics import LEVEL, Interval

INTERVAL = f"{100 * LEVEL:g} % interval"


def escape(text: object) -> str:
    """Return text that Markdown and HTML show as it is, on one line."""
    line = " ".join(str(text).split())
    line = line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    line = re.sub(r"([\\`*_\[\]#|~$])", r"\\\1", line)
    # a number, bullet or rule at the beginning of a line
    return re.sub(r"^(\d{1,9}(?=[.)](\s|$))|(?=[-+=]([-+=\s]|$)))", r"\1\\", line)


def code(name: str) -> str:
    """Return a name as code; one with characters that code cannot show in a table is escaped instead."""
    return f"`{name}`" if re.fullmatch(r"[\w .=+:,/-]+", name, re.ASCII) else escape(name)


def bold(text: str, strong: bool = True) -> str:
    return f"**{text}**" if strong else text


def join_and(items: Iterable, form: Callable[..., str] = str) -> str:
    """Return "a, b and c", each item as `form` writes it."""
    *first, last = map(form, items)
    return f"{', '.join(first)} and {last}" if first else last


def number(value: float, form: str = ".2f") -> str:
    """Return a number in one of Python's formats, "-" where it is not finite."""
    return format(value, form) if math.isfinite(value) else "-"


def percent(value: float) -> str:
    return number(value, ".2%")


def points(value: float) -> str:
    """Return a difference of fractions as percentage points, with its sign."""
    return number(100 * value, "+.2f")


def bounds(interval: Interval, form: Callable[[float], str] = points) -> str:
    """Return an interval's bounds, "-" where there are none."""
    return f"{form(interval.low)} to {form(interval.high)}" if math.isfinite(interval.low) else "-"


def unwrap(text: str) -> str:
    """Return paragraphs with each on one line."""
    return re.sub(r"(?<=\S)\n(?=\S)", " ", text)
