"""A user's own classes, by import path."""

import importlib

from regbench.errors import UserError, one_line


def by_path(option: str, spec: str, accepted: str) -> object:
    """Return what `spec`, pkg.module:Name, names; raises UserError if it is no such path or cannot be imported."""
    module, colon, name = spec.partition(":")
    if not (colon and module and name):
        raise UserError(f"{option}={spec!r} is unknown; {accepted}")
    try:
        return getattr(importlib.import_module(module), name)
    except (Exception, SystemExit) as error:  # importing runs the user's own code: anything can come out of it
        raise UserError(f"{option}={spec!r} cannot be imported ({one_line(error)}); {accepted}") from error
