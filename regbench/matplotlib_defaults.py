"""Figures that are the same for everybody, whatever a user's matplotlibrc says."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import matplotlib

# a backend is chosen once for the whole process
DEFAULTS = {name: value for name, value in matplotlib.rcParamsDefault.items() if not name.startswith("backend")}


@contextmanager
def defaults(settings: Mapping[str, object] | None = None) -> Iterator[None]:
    """Draw with matplotlib's defaults and `settings`; afterwards the settings are as before."""
    with matplotlib.rc_context(DEFAULTS | dict(settings or {})):
        yield
