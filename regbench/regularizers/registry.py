"""Which regularizers there are, by name."""

import inspect
import sys
from functools import cache
from importlib.metadata import EntryPoint, entry_points

import numpy as np

from regbench import importing
from regbench.errors import UserError, one_line
from regbench.regularizers.after_step import DecoupledWeightDecay, ElasticNet, GroupLasso, L1Prox, MaxNorm
from regbench.regularizers.base import Regularizer
from regbench.regularizers.gradient import L1, L2, HoyerSquare, Unregularized, WeightDecay
from regbench.regularizers.network import Dropout, LabelSmoothing
from regbench.regularizers.pruning import IterativeMagnitude, OneShot, RandomPruning

REGISTRY: dict[str, type[Regularizer]] = {
    cls.name: cls
    for cls in (
        Unregularized,
        L1,
        L2,
        WeightDecay,
        L1Prox,
        DecoupledWeightDecay,
        ElasticNet,
        GroupLasso,
        MaxNorm,
        HoyerSquare,
        OneShot,
        RandomPruning,
        IterativeMagnitude,
        Dropout,
        LabelSmoothing,
    )
}


# where an installed package names its regularizers
GROUP = "regbench.regularizers"


def find(name: str) -> type[Regularizer]:
    """Return the regularizer called `name`: a packaged one, an import path's, or an installed package's.

    An import path pkg.module:Class has a colon and is imported, so that it must come from the user's own command line.
    Raises UserError if there is none, it cannot be imported, or it is no Regularizer.
    """
    if name in REGISTRY:
        return REGISTRY[name]
    path = "accepted: an import path pkg.module:Class"
    found = importing.by_path("reg", name, path) if ":" in name else _installed(name)
    if not (inspect.isclass(found) and issubclass(found, Regularizer)):
        raise UserError(f"reg={name!r} is not a subclass of regbench.regularizers.Regularizer; make it one")
    return found


def is_plugin(name: str) -> bool:
    """Tell whether `name` is not a packaged regularizer, but a user's or an installed package's."""
    return name not in REGISTRY


def is_known(name: str) -> bool:
    """Tell whether `name` can be found without importing a module that the user's command line has not named."""
    return name in REGISTRY or name in _entry_points() or name.partition(":")[0] in sys.modules


def own_lams(name: str) -> tuple[float, ...]:
    """Return the grid of lams of the regularizer called `name`; raises UserError if it has none, or as `find` does."""
    lams = getattr(find(name), "lams", None)
    if lams is None:
        raise UserError(
            f"reg={name!r} has no lams of its own; give them, as in lam=1e-4,1e-3, or to its class as `lams`"
        )
    try:
        grid = tuple(float(lam) for lam in lams)
    except (TypeError, ValueError):
        grid = ()
    # as on the command line: what float32 holds, and 0 only for `none`
    held = all(1e-45 <= lam <= 3e38 or not is_plugin(name) for lam in grid)
    if not grid or len(set(grid)) < len(grid) or not held:
        raise UserError(
            f"reg={name!r} has lams={lams!r}; accepted: a tuple of different finite numbers above 0, as in (1e-4, 1e-3)"
        )
    return grid


def check_lam(name: str, lam: float) -> None:
    """Raise UserError if the regularizer called `name` cannot take this lam; or as `find` does."""
    cls = find(name)
    if np.float32(lam) >= cls.below:  # as it is trained with: 0.99999999 is 1
        raise UserError(f"lam={lam:g} is too large for reg={name!r}; accepted: numbers above 0 and below {cls.below:g}")


def accepted() -> str:
    """Say what is accepted as a name."""
    return f"{', '.join([*REGISTRY, *_entry_points()])}, or an import path pkg.module:Class"


def _installed(name: str) -> object:
    if name not in _entry_points():
        raise UserError(f"reg={name!r} is unknown; accepted: {accepted()}")
    point = _entry_points()[name]
    try:
        return point.load()
    except (Exception, SystemExit) as error:  # a package's own code: anything can come out of it
        raise UserError(
            f"reg={name!r} cannot be imported ({one_line(error)}): it is {point.value} of an installed package; "
            "repair or uninstall that"
        ) from error


@cache
def _entry_points() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=GROUP) if point.name not in REGISTRY}
