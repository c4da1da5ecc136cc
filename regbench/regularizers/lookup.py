"""Which regularizers there are, by name."""

import importlib
import inspect
import math
import pkgutil
import re
import reprlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from numbers import Real
from pathlib import Path

import numpy as np

from regbench import importing
from regbench.click_fields import REAL
from regbench.errors import UserError, one_line
from regbench.regularizers.base import Regularizer
from regbench.regularizers.combination import Combination, combine

BASELINE = "none"
# where an installed package names its regularizers
GROUP = "regbench.regularizers"
ACCEPTED_LAMS = "accepted: numbers above 0"


def _packaged() -> Iterator[type[Regularizer]]:
    """Give the classes with a name of the modules of this package: those of a family, each in its module."""
    for module in pkgutil.iter_modules([str(Path(__file__).parent)]):
        if module.name not in ("base", "combination", "lookup", "contract"):
            for cls in vars(importlib.import_module(f"{__package__}.{module.name}")).values():
                if inspect.isclass(cls) and issubclass(cls, Regularizer) and "name" in vars(cls):
                    yield cls


# by name, none first
REGISTRY = {cls.name: cls for cls in sorted(_packaged(), key=lambda cls: (cls.name != BASELINE, cls.name))}


def find(name: str) -> type[Regularizer]:
    """Return the regularizer called `name`: a packaged one, an import path's, an installed package's, or a combination.

    A combination is written l1+weight_decay@1e-4: the first's lam is the trial's, what has an @ has its own. An import
    path pkg.module:Class has a colon and is imported, so that it must come from the user's own command line. Raises
    UserError if there is none, it cannot be imported, it is not a Regularizer, or cannot be combined.
    """
    if name in REGISTRY:
        return REGISTRY[name]
    if _parts(name) != [(name, None)]:
        return _combined(name)
    path = "accepted: an import path pkg.module:Class"
    found = importing.by_path("reg", name, path) if ":" in name else _installed(name)
    if isinstance(found, Regularizer):
        raise UserError(f"reg={name!r} is an instance of {type(found).__name__}; give the class itself")
    if not (inspect.isclass(found) and issubclass(found, Regularizer)):
        raise UserError(f"reg={name!r} is not a subclass of regbench.regularizers.Regularizer; make it one")
    return found


def is_plugin(name: str) -> bool:
    """Return whether `name` is not a packaged regularizer, but a user's or an installed package's, or has one in it."""
    return any(part not in REGISTRY for part in split(name))


def is_known(name: str) -> bool:
    """Return whether `name` can be found without importing a module that the user's command line has not named."""
    return all(
        part in REGISTRY or part in _entry_points() or part.partition(":")[0] in sys.modules for part in split(name)
    )


def split(name: str) -> list[str]:
    """Return the names of the parts of a combination, without their lams; a name that is none is its only part."""
    return [part for part, _ in _parts(name)]


def canonical(name: str) -> str:
    """Return the one text for a combination whose lams can be written in several ways; raises UserError for a bad lam."""
    if len(split(name)) == 1:
        return name
    return "+".join(part if lam is None else f"{part}@{format_lam(_lam(name, lam))}" for part, lam in _parts(name))


def format_lam(lam: float) -> str:
    """Return the shortest text for `lam`: 1e-4, 3.5e-5, 0.95, 0."""
    scientific = np.format_float_scientific(lam, trim="-", exp_digits=1).removesuffix("e+0")
    return min(scientific, np.format_float_positional(lam, trim="-"), key=len)


def cells(names: Sequence[str], lams: Sequence[float] | None, baseline: bool = True) -> list[tuple[str, float]]:
    """Return the regularizers and lams of a sweep; `lams` None means each regularizer's own grid.

    `none` comes first unless `baseline` is false and it is not in `names`. This is where lam is checked: raises UserError
    for a regularizer that does not exist, one that has no grid of its own where that is asked for, or a lam that one
    cannot take.
    """
    others = [name for name in names if name != BASELINE]
    if lams is not None and not others:
        raise UserError("lam has no meaning for reg=none alone; leave lam out, or name another regularizer")
    found = [(BASELINE, 0.0)] if baseline or BASELINE in names else []
    for name in others:
        cls = find(name)
        for lam in grid(cls, name) if lams is None else lams:
            if lams is not None and (wrong := _wrong(cls, name, lam)):
                raise UserError(f"lam={lam:g} {wrong}; {ACCEPTED_LAMS}{_bound(cls)}")
            found.append((name, lam))
    return found


def grid(cls: type[Regularizer], name: str) -> tuple[float, ...]:
    """Return the lams of a class, which messages call `name`: of a tuple, a list, an array, a tensor, a range.

    Raises UserError if it has none, or what cannot be one.
    """
    lams, accepted = getattr(cls, "lams", None), "accepted: a tuple of different numbers, as in (1e-4, 1e-3)"
    if lams is None:
        raise UserError(
            f"reg={name!r} has no lams of its own; give them, as in lam=1e-4,1e-3, or to its class as `lams`"
        )
    try:
        if isinstance(lams, str | bytes | Mapping | Iterator):  # the last would be empty when it is read again
            raise TypeError
        found = tuple(_number(lam) for lam in lams)
    except Exception as error:  # anything can stand there
        plain = isinstance(lams, str | int | float | tuple | list | dict)
        shown = reprlib.repr(lams) if plain else f"a {type(lams).__name__}"
        raise UserError(f"reg={name!r} has {shown} as lams; {accepted}, in the class itself") from error
    for lam in found:
        if wrong := _wrong(cls, name, lam):
            raise UserError(f"reg={name!r} has {lam:g} in its lams, which {wrong}; {accepted}")
        if found.count(lam) > 1:
            raise UserError(f"reg={name!r} has {lam:g} more than once in its lams; {accepted}")
    if not found:
        raise UserError(f"reg={name!r} has empty lams; {accepted}")
    return found


def accepted() -> str:
    """Say what is accepted as a name."""
    names = ", ".join([*REGISTRY, *_entry_points()])
    return f"{names}, an import path pkg.module:Class, or a combination as l1+weight_decay@1e-4"


def _wrong(cls: type[Regularizer], name: str, lam: float) -> str:
    """Return why a regularizer cannot take this lam; "" if it can."""
    bound = cls.lam_upper_bound
    if not isinstance(bound, Real):
        raise UserError(
            f"reg={name!r} has lam_upper_bound={bound!r}; accepted: a number that every lam must be less than"
        )
    if cls is REGISTRY[BASELINE]:
        return ""
    if not (math.isfinite(lam) and lam > 0):
        return "is not a finite number above 0" + ("; for lam 0 take reg=none" if lam == 0 else "")
    # below lies what some processors take for 0
    if not float(np.finfo(np.float32).tiny) <= lam <= float(np.finfo(np.float32).max):
        return "is outside what float32 holds in full, 1.2e-38 to 3.4e38"
    if np.float32(lam) >= bound:  # as it is trained with: 0.99999999 is 1
        return f"is too large for reg={name!r}"
    return ""


def _parts(name: str) -> list[tuple[str, str | None]]:
    """Return the names in a combination, each with the text of its lam; None where there is none."""
    if name in _entry_points():
        return [(name, None)]
    # before a digit a plus is the sign of an exponent
    parts = [part.strip().partition("@") for part in re.split(r"\+(?!\d)", name)]
    return [(part.strip(), lam.strip() if at else None) for part, at, lam in parts]


@importing.cached
def _combined(name: str) -> type[Combination]:
    parts = _parts(name)
    wrong = ""
    if any(part in ("", BASELINE) for part, _ in parts):
        wrong = f"each part is a regularizer other than {BASELINE}"
    elif [lam is None for _, lam in parts] != [True] + [False] * (len(parts) - 1):
        wrong = "its first part's lam is swept, and each of the others has its own after an @"
    elif len(set(split(name))) < len(parts):
        wrong = "each part is in it once"
    if wrong:
        raise UserError(f"reg={name!r} is no combination: {wrong}; accepted: as in l1+weight_decay@1e-4")
    found = [(find(part), None if lam is None else _lam(name, lam)) for part, lam in parts]
    for (part, _), (cls, lam) in zip(parts, found, strict=True):
        if lam is not None and (problem := _wrong(cls, part, lam)):
            raise UserError(f"reg={name!r}: {part}@{lam:g} {problem}; {ACCEPTED_LAMS}{_bound(cls)}")
    try:
        return combine(name, found)
    except ValueError as error:
        raise UserError(f"reg={name!r} cannot be combined: {error}; leave one of them out") from error


def _lam(name: str, text: str) -> float:
    if not re.fullmatch(REAL, text, re.ASCII | re.IGNORECASE):
        raise UserError(f"reg={name!r}: {text!r} after an @ is not a number; {ACCEPTED_LAMS}, as in weight_decay@1e-4")
    return float(text)


def _bound(cls: type[Regularizer]) -> str:
    return f" and below {cls.lam_upper_bound:g}" if math.isfinite(cls.lam_upper_bound) else ""


def _installed(name: str) -> object:
    if name not in _entry_points():
        raise UserError(f"reg={name!r} is unknown; {_meant(name)}accepted: {accepted()}")
    point = _entry_points()[name]
    try:
        with importing.settings_kept():
            return point.load()
    except (Exception, SystemExit) as error:  # a package's own code: anything can come out of it
        raise UserError(
            f"reg={name!r} cannot be imported ({one_line(error)}): it is {point.value} of an installed package; "
            "repair or uninstall that"
        ) from error


def _meant(name: str) -> str:
    """Say how a path without a colon is written with one; "" if it is not a path."""
    if importing.is_file(name):
        return f"of a file write {importing.for_file(name, 'Class')}; "
    module, dot, last = name.rpartition(".")
    return f"write {module}:{last}; " if dot and module and last else ""


def _number(lam: object) -> float:
    """Return a lam; 1e-4 for the float32 nearest to it, which is 9.9999997e-5."""
    single = str(getattr(lam, "dtype", "")).endswith("float32")
    return float(str(np.float32(float(lam)))) if single else float(lam)


@cache
def _entry_points() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=GROUP) if point.name not in REGISTRY}
