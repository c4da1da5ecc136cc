"""A command's options as the keywords of a Python function: the same names, checks and defaults, declared once."""

import difflib
import importlib.util
import inspect
import re
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import Field
from functools import wraps
from numbers import Number
from pathlib import Path

import numpy as np

from regbench import edited, startup
from regbench.click_fields import call, option_name, options, parameter
from regbench.errors import UserError, without_password
from regbench.networks import PACKAGED
from regbench.regularizers import REGISTRY

ACCEPTED = "text as on the command line, a number, True, False or None (the default)"
HOW = """\
Values are what the command takes, as text or as Python has it: numbers, True and False, paths, lists
for what takes several, and a class of yours that can be imported. None is the default."""
WIDTH = 100


def function(declared: type, *more: type) -> Callable[[Callable], Callable]:
    """Return a decorator that gives a function these options as its keywords; it is called as by click_fields.command.

    The function raises UserError for what a command refuses, a name that is no option, and a value that is none.
    """
    fields = {option_name(one): one for one in options(declared, *more)}

    def decorate(inner: Callable) -> Callable:
        @wraps(inner)
        def outer(**given: object) -> object:
            with plainly():
                for name in given:
                    _check_name(inner.__name__, name, list(fields))
                texts = {name: text(fields[name], value) for name, value in given.items() if value is not None}
                edited.forget(re.findall(r"([\w.]+):\w", f"{texts.get('reg', '')},{texts.get('model', '')}"))
                values = {one.name: _read(one, texts.get(name)) for name, one in fields.items()}
                return call(inner, declared, values)

        keywords = [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=one.metadata["settings"]["default"])
            for name, one in fields.items()
        ]
        returned = inner.__annotations__.get("return", inspect.Signature.empty)
        outer.__signature__ = inspect.Signature(keywords, return_annotation=returned)
        listed = (_described(name, one) for name, one in fields.items())
        outer.__doc__ = "\n\n".join([inspect.cleandoc(inner.__doc__), HOW, "\n".join(listed)])
        return outer

    return decorate


@contextmanager
def plainly() -> Iterator[None]:
    """Have a mistake of the user's be raised without what it came from, or passwords; refuse odd surroundings."""
    try:
        startup.check()
        yield
    except UserError as error:
        raise UserError(without_password(str(error))) from None


def text(one: Field, value: object) -> str:
    """Return a Python value as the command line has it; raises UserError for what stands for none."""
    name, several = option_name(one), "tuple" in str(one.type)
    if several and isinstance(value, Iterable) and not isinstance(value, str | bytes | Mapping):
        items = [_one(name, item) for item in value]
        # a single number would be how many fresh seeds there are
        return f"{items[0]}-{items[0]}" if name == "confirm" and len(items) == 1 else ",".join(items)
    return _one(name, value, " or a list of these" if several else "")


def _one(name: str, value: object, more: str = "") -> str:
    if inspect.isclass(value):
        return _import_path(name, value)
    if isinstance(value, bool | np.bool_):
        return str(value).lower()
    if isinstance(value, str | Number | Path):
        return str(value)
    hint = "give its class; " if hasattr(value, "forward") or type(value).__name__ in REGISTRY else ""
    raise UserError(f"{name} is of type {type(value).__name__}; {hint}accepted: {ACCEPTED}{more}")


def _import_path(name: str, cls: type) -> str:
    """Return how a class is named on the command line."""
    if name not in ("reg", "model"):
        raise UserError(f"{name} is the class {cls.__name__}; accepted: {ACCEPTED}")
    package, _, module = cls.__module__.rpartition(".")
    if REGISTRY.get(getattr(cls, "name", "")) is cls:
        return cls.name
    if package == "regbench.networks" and module in PACKAGED:
        return module
    if cls.__module__ == "__main__" or "<locals>" in cls.__qualname__ or not _can_be_found(cls.__module__):
        raise UserError(
            f"{name}: {cls.__name__} is written in the notebook or script itself, or within a function, where other "
            f"processes cannot import it and nothing tells later what was trained: put it into a file, as mine.py (in a "
            f"notebook by %%writefile mine.py), and give {name}='mine:{cls.__name__}'"
        )
    return f"{cls.__module__}:{cls.__qualname__}"


def _can_be_found(module: str) -> bool:
    # not among those that are imported: an edited one is forgotten, and imported again later
    try:
        return module in sys.modules or importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def _check_name(function: str, name: str, accepted: list[str]) -> None:
    if name not in accepted:
        close = difflib.get_close_matches(name.lower(), accepted, cutoff=0.5)
        meant = f"did you mean {' or '.join(close)}? " if close else ""
        raise UserError(f"{function} has no option {name!r}; {meant}accepted: {', '.join(accepted)}")


def _read(one: Field, given: str | None) -> object:
    param = parameter(one)
    return param.type_cast_value(None, param.default if given is None else given)


def _described(name: str, one: Field) -> str:
    settings = one.metadata["settings"]
    words = f"{name}={settings['default']!r}: {settings['help'] or f'{name}.'.replace('_', ' ').capitalize()}"
    return textwrap.fill(words, WIDTH, initial_indent="    ", subsequent_indent="        ")
