"""regbench: weight regularizers compared on image classification, tracked in MLflow.

`regbench.sweep`, `regbench.notebook` and `regbench.load` are for scripts and notebooks; the commands do the same.
"""

import sys

__version__ = "0.1.0"
# what is taken from modules when it is asked for, since every module of the package imports this one first
_LATE = {"UserError": "errors", "load": "api.loading", "notebook": "api.experiments", "sweep": "api.sweeps"}

if sys.argv[:1] == ["-m"]:  # python -m has not come to the program itself, and so to none of its imports
    import regbench.shadowed_modules

    regbench.shadowed_modules.install_hook()


def __getattr__(name: str) -> object:
    if name not in _LATE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"{__name__}.{_LATE[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_LATE})
