"""A user's file that Python imports in place of a library's module of the same name, such as random.py or torch.py.

This module imports only what Python has loaded before it starts a program: anything else may be such a file.
"""

import os
import sys
from collections.abc import Iterator
from importlib.machinery import PathFinder
from types import ModuleType, TracebackType


def install_hook() -> None:
    """Have an error that such a file causes end the program with one line that names the file."""
    usual = sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        file = culprit(error)
        if not file:
            usual(kind, error, trace)
            return
        print(f"error: {message(file, error)}", file=sys.stderr)
        raise SystemExit(2)

    sys.excepthook = hook


def message(file: str, error: BaseException) -> str:
    """Return the message for an error that such a file causes, on one line."""
    return f"{file} is imported in place of a library's module of this name: rename it ({' '.join(str(error).split())})"


def culprit(error: BaseException) -> str:
    """Return the file that is imported in a library's place, and lacks what the error is about; "" if none is."""
    if not isinstance(error, ImportError | AttributeError):
        return ""
    return next((file for name, file in _imported(error) if _hides_another(name, file)), "")


def _imported(error: ImportError | AttributeError) -> Iterator[tuple[str, str]]:
    """Yield name and file of the module that the error is about, and of those whose import it ended."""
    if isinstance(error, ImportError):
        yield error.name or "", error.path or ""
    elif isinstance(error.obj, ModuleType):
        yield error.obj.__name__, getattr(error.obj, "__file__", None) or ""
    trace = error.__traceback__
    while trace:
        code = trace.tb_frame.f_code
        if code.co_name == "<module>":
            yield str(trace.tb_frame.f_globals.get("__name__")), code.co_filename
        trace = trace.tb_next


def _hides_another(name: str, file: str) -> bool:
    """Return whether another module of this name would be found elsewhere, if `file` were not there."""
    if not file or "." in name or "-packages" in file:
        return False
    folder = os.path.dirname(file)
    folder = os.path.realpath(os.path.dirname(folder) if os.path.basename(file) == "__init__.py" else folder)
    others = [path for path in sys.path if os.path.realpath(path) != folder]
    return PathFinder.find_spec(name, others) is not None
