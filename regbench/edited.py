"""A user's own modules that were edited after they had been imported, as in a notebook whose kernel goes on.

A trial is recognised by its code as it is in the files; what is trained has to be that.
"""

import importlib
import sys
from collections.abc import Iterable
from contextlib import suppress
from importlib.util import cache_from_source
from pathlib import Path

import psutil

from regbench import identity, importing

_seen: dict[str, str] = {}  # module name -> hash of its code when it was last looked at


def forget(modules: Iterable[str]) -> None:
    """Have these modules, and what they import of the user's, be imported anew if one of their files has changed."""
    importlib.invalidate_caches()  # of folders in which a file is new
    now = identity.sources(name for name in modules if not identity.is_library(name))
    loaded = {name: getattr(sys.modules[name], "__file__", None) for name in now if name in sys.modules}
    if any(file and _changed(name, now[name], file) for name, file in loaded.items()):
        for name, file in loaded.items():
            del sys.modules[name]
            if file:
                # of a source of the same size and second it would be taken for the newer one's
                with suppress(OSError, NotImplementedError, ValueError):
                    Path(cache_from_source(file)).unlink()
        importing.forget()
    _seen.update(now)


def _changed(name: str, digest: str, file: str) -> bool:
    if name in _seen:
        return _seen[name] != digest
    try:
        # whoever imported it may have done so before the file was written
        return Path(file).stat().st_mtime > psutil.Process().create_time()
    except OSError:
        return False
