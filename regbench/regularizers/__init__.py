"""Regularizers: small classes, a module for each family, found by being there."""

from regbench.regularizers.base import Regularizer
from regbench.regularizers.lookup import (
    ACCEPTED_LAMS,
    BASELINE,
    REGISTRY,
    accepted,
    canonical,
    cells,
    find,
    format_lam,
    grid,
    is_known,
    is_plugin,
    split,
)

# every packaged class by its own name, so that it is declared once: where it is written
globals().update({cls.__name__: cls for cls in REGISTRY.values()})
