"""Files that are either there in full or not at all."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from platformdirs import user_cache_path, user_state_path

from regbench.errors import UserError


def cache_folder() -> Path:
    """Return the folder for what can be made again at any time: REGBENCH_CACHE, else the user's cache folder.

    Raises UserError if REGBENCH_CACHE can be no folder, as `state_folder` does.
    """
    return _chosen() or user_cache_path("regbench")


def state_folder() -> Path:
    """Return the folder for what must not get lost between two starts: REGBENCH_CACHE, else the user's state folder."""
    return _chosen() or user_state_path("regbench")


def _chosen() -> Path | None:
    root = os.environ.get("REGBENCH_CACHE")
    try:
        return Path(os.path.abspath(Path(root).expanduser())) if root else None
    except (RuntimeError, OSError) as error:  # ~name of a user who is not there, or the working folder is gone
        raise UserError(
            f"REGBENCH_CACHE={root!r} is not a folder; accepted: a path; or unset REGBENCH_CACHE"
        ) from error


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path`; move it there when the block ends well, remove it when it does not.

    The parent folder is created. Raises OSError if it cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        # mkstemp gives mode 600; the finished file gets what any other new file would get
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextmanager
def folder(path: Path) -> Iterator[Path]:
    """Make the folder `path` for the block; if the block fails, remove what was made as far as it is empty."""
    made = [folder for folder in (path, *path.parents) if not folder.exists()]
    path.mkdir(parents=True, exist_ok=True)
    try:
        yield path
    except BaseException:
        for folder in made:
            with suppress(OSError):
                folder.rmdir()
        raise
