"""A user's own classes, by import path."""

import importlib
import inspect
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from operator import attrgetter
from pathlib import Path, PurePosixPath
from types import ModuleType

from regbench.errors import UserError, one_line

_caches: list[Callable] = []


def cached(function: Callable) -> Callable:
    """Cache a function of import paths, until `forget` is called: what it gives goes by the code behind them."""
    _caches.append(cache(function))
    return _caches[-1]


def forget() -> None:
    """Have every `cached` function look anew."""
    for one in _caches:
        one.cache_clear()


def by_path(option: str, spec: str, accepted: str) -> object:
    """Return what `spec`, pkg.module:Name or pkg.module:Outer.Inner, names.

    Raises UserError if it is not such a path, cannot be imported, or names nothing there.
    """
    module, colon, name = spec.rpartition(":")
    if not (colon and module and name):
        raise UserError(f"{option}={spec!r} is unknown; {accepted}")
    if is_file(module):
        raise UserError(f"{option}={spec!r} is the path of a file; write {for_file(module, name)}")
    try:
        with settings_kept():
            found = importlib.import_module(module)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # importing runs the user's own code: anything can come out of it
        raise UserError(
            f"{option}={spec!r} cannot be imported ({_import_problem(module, error)}); {accepted}"
        ) from error
    try:
        return attrgetter(name)(found)
    except Exception as error:
        raise UserError(f"{option}={spec!r} cannot be imported ({_missing_name(found, name)}); {accepted}") from error


@contextmanager
def settings_kept() -> Iterator[None]:
    """Restore torch's global settings after a user's code: they would change other trials, but not their keys."""
    torch = _torch()
    before = torch and (torch.get_default_dtype(), torch.get_default_device(), torch.is_grad_enabled())
    try:
        yield
    finally:
        torch = _torch()
        if torch:
            kind, device, grad = before or (torch.float32, torch.device("cpu"), True)
            torch.set_default_dtype(kind)
            torch.set_grad_enabled(grad)
            if torch.get_default_device() != device:
                torch.set_default_device(None if device.type == "cpu" else device)


def _torch() -> ModuleType | None:
    """Return torch if it has been imported, and is not a user's file of the same name."""
    torch = sys.modules.get("torch")
    return torch if hasattr(torch, "get_default_device") else None


def is_file(text: str) -> bool:
    """Return whether `text` is how a file is named, and not a module."""
    return text.endswith(".py") or "/" in text or "\\" in text


def for_file(path: str, name: str) -> str:
    """Return what to write instead of a file's path for what is called `name` in it."""
    file = PurePosixPath(path.replace("\\", "/"))
    folder = "that folder" if file.parent == PurePosixPath() else file.parent
    return f"{file.name.removesuffix('.py')}:{name}, started in {folder} or with PYTHONPATH={folder}"


def _import_problem(module: str, error: BaseException) -> str:
    if isinstance(error, ModuleNotFoundError) and error.name:
        if module == error.name or module.startswith(f"{error.name}."):
            return f"{one_line(error)}; start in the folder that it is in, or with PYTHONPATH=that folder"
        return f"{one_line(error)}, which {module} imports"
    if isinstance(error, SystemExit):
        return f"{module} ends Python with {error.code} when it is imported; put that under if __name__ == '__main__'"
    return f"{type(error).__name__}: {one_line(error)}{_advice(error)}"


def _advice(error: BaseException) -> str:
    if isinstance(error, NameError) and error.name == "get_ipython":
        return "; leave out what only a notebook has"
    if isinstance(error, SyntaxError | ValueError) and re.search("null bytes|can't decode|Non-UTF-8", str(error)):
        return "; save it as UTF-8"
    if isinstance(error, SyntaxError) and (error.text or "").lstrip().startswith(("%", "!")):
        return f"; leave out what only a notebook has, {error.text.strip()!r}"
    return ""


def _missing_name(module: ModuleType, name: str) -> str:
    """Return that a module has no `name`, which file it is, and which classes it has."""
    file = getattr(module, "__file__", None)
    own = [key for key, value in vars(module).items() if inspect.isclass(value) and value.__module__ == module.__name__]
    classes = f"; its classes: {', '.join(own[:5])}" if own else ""
    mine = Path(f"{module.__name__.replace('.', '/')}.py")
    if file and mine.exists() and not mine.samefile(file):
        classes = f", and not your {mine}: give that another name"
    return f"module {module.__name__!r} has no attribute {name!r}: it is {file or 'a folder'}{classes}"
