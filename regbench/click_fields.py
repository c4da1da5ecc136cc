"""An option, declared once: as a field of a dataclass, from which the command line, its checks and its help come."""

import re
from collections.abc import Callable, Mapping
from dataclasses import Field, field, fields, is_dataclass
from typing import Any

import click

from regbench.errors import UserError

AUTO, ALL = "auto", "all"
# as people write numbers: Python's own float takes 1_000 and the digits of all scripts too
WHOLE, REAL = r"\d+", r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?"


class Value(click.ParamType):
    """A type of click's that takes texts of one pattern only, and whose refusals say what is accepted.

    `words` are texts that stand for a value, such as auto.
    """

    def __init__(self, inner: click.ParamType, pattern: str, problem: str, accepted: str, **words: object) -> None:
        self.inner, self.pattern, self.problem, self.words, self.name = inner, pattern, problem, words, inner.name
        self.accepted = ", or ".join([accepted, *words])

    def convert(self, value: object, param: click.Parameter | None, context: click.Context | None) -> object:
        text = str(value).strip()
        if text in self.words:
            return self.words[text]
        if re.fullmatch(self.pattern, text, re.ASCII | re.IGNORECASE):
            try:
                return self.inner.convert(text, param, context)
            except click.BadParameter:  # whose message does not say what is accepted
                pass
        raise UserError(f"{flag(param)}={value!r} {self.problem}; accepted: {self.accepted}")


class Several(click.ParamType):
    """A comma list of what another type takes, as a tuple without repetitions."""

    def __init__(self, inner: click.ParamType) -> None:
        self.inner, self.name = inner, inner.name

    def convert(self, value: object, param: click.Parameter | None, context: click.Context | None) -> object:
        found: list[object] = []
        for item in str(value).split(","):
            one = self.inner.convert(item, param, context)
            if one in found:
                raise UserError(f"{flag(param)}={value!r}: {item.strip()} is given more than once; write it once")
            found.append(one)
        return tuple(found)


def whole(low: int, high: int, **words: object) -> Value:
    """Return the type of a whole number from `low` to `high`."""
    accepted = f"a whole number from {low} to {high}"
    return Value(click.IntRange(low, high), WHOLE, "is out of range", accepted, **words)


def images(**words: object) -> Value:
    """Return the type of a number of images."""
    return Value(click.IntRange(0, 10**12), WHOLE, "is not a number of images", "0 or more", **words)


def real(limits: click.FloatRange, accepted: str) -> Value:
    """Return the type of a number within `limits`, which `accepted` says in words."""
    return Value(limits, REAL, "is out of range", f"a number {accepted}")


def choice(*names: str) -> Value:
    """Return the type of one of these names."""
    return Value(click.Choice(names), ".*", "is unknown", ", ".join(names))


def switch() -> Value:
    """Return the type of true or false."""
    return Value(click.BOOL, ".+", "is neither", "true or false")


def flag(param: click.Parameter | None) -> str:
    """Return an option's name as it is written on the command line."""
    return param.opts[0].lstrip("-") if param else "value"


def option(
    default: object, kind: click.ParamType | Callable[[str], object], description: str = "", name: str = ""
) -> Any:
    """Return the field of a dataclass that is an option, called `name` if not as the field; `default` may be its text."""

    def value() -> object:
        return click.types.convert_type(kind)(default) if isinstance(default, str) else default

    settings = {"type": kind, "default": default, "show_default": default != "", "help": description}
    return field(default_factory=value, metadata={"name": name, "settings": settings})


def command(declared: type, *more: type) -> Callable[[Callable], click.Command]:
    """Return a decorator that makes a click command of a function: the options are the fields of these dataclasses.

    The function gets an instance of `declared`, and the options of the other classes by name, but those that `declared`
    has too.
    """

    def decorate(function: Callable) -> click.Command:
        def main(**values: object) -> None:
            call(function, declared, values)

        main.__doc__, main.__name__ = function.__doc__, function.__name__
        params = [parameter(one) for one in options(declared, *more)]
        return click.command(params=params, context_settings={"help_option_names": ["-h", "--help"]})(main)

    return decorate


def call(function: Callable, declared: type, values: Mapping[str, object]) -> object:
    """Return what a function gives for the values of all options, by field: see `command` for what it gets."""
    own = {one.name for one in _options(declared)}
    others = {name: value for name, value in values.items() if name not in own}
    return function(declared(**{name: values[name] for name in own}), **others)


def options(declared: type, *more: type) -> list[Field]:
    """Return the fields of dataclasses that are options, in the order in which they are shown.

    Those of the class from which `declared` comes in the end, which several commands share, are the last.
    """
    own = {one.name for one in _options(declared)}
    *_, root = [base for base in declared.__mro__ if is_dataclass(base)]
    inherited = _options(root) if root is not declared else []
    first = [one for one in _options(declared) if one.name not in {base.name for base in inherited}]
    others = [one for cls in more for one in _options(cls) if one.name not in own]
    return [*first, *others, *inherited]


def parameter(one: Field) -> click.Option:
    """Return the option of the command line that a field is."""
    return click.Option([f"--{option_name(one)}", one.name], **one.metadata["settings"])


def option_name(one: Field) -> str:
    """Return the name by which the user knows a field that is an option."""
    return one.metadata["name"] or one.name


def _options(cls: type) -> list[Field]:
    return [one for one in fields(cls) if "settings" in one.metadata]
