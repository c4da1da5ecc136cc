"""A report's folder: which of its files regbench has written, so that nobody else's is overwritten or published."""

import hashlib
import json
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from regbench.errors import UserError
from regbench.files import atomic

LIST = ".regbench-report.json"  # name -> sha256 of what was written, "" while it is being written
REPORT, PAGE = "report.md", "report.html"
# in the text of every report, also of one from before there was a list
MARKS = ("# Regularization on ", "\n## How to read it\n")


@contextmanager
def writing(folder: Path, names: Collection[str]) -> Iterator[None]:
    """Have the block write these files, and afterwards remove those of an earlier report that are left over.

    Raises UserError, before anything is written, if one of them is there that regbench has not written, or that was
    changed since.
    """
    known = _known(folder)
    earlier = known is None and _is_report(folder / REPORT)
    for name in names:
        path = folder / name
        if (path.exists() or path.is_symlink()) and not earlier and not _is_ours(path, (known or {}).get(name)):
            raise UserError(
                f"{path} is not as regbench has written it and would be overwritten: move it away, or give another folder"
            )
    known = known or {}
    _keep(folder, known | dict.fromkeys(names, ""))
    yield
    for name in known.keys() - set(names):
        if _is_ours(folder / name, known[name]):
            (folder / name).unlink()
            with suppress(OSError):  # something else is in the folder
                for parent in [*Path(name).parents][:-1]:
                    (folder / parent).rmdir()
    _keep(folder, {name: _digest(folder / name) for name in names})


def written(folder: Path) -> list[str]:
    """Return the names of the files that the folder's report consists of."""
    return sorted(_known(folder) or {})


def _known(folder: Path) -> dict[str, str] | None:
    try:
        found = json.loads((folder / LIST).read_text(encoding="utf-8"))
        return {name: digest for name, digest in found.items() if isinstance(digest, str) and _is_below(name)}
    except (OSError, ValueError, AttributeError):  # there is none, or it is not ours
        return None


def _keep(folder: Path, digests: dict[str, str]) -> None:
    with atomic(folder / LIST) as path:
        path.write_text(json.dumps(dict(sorted(digests.items())), indent=1), encoding="utf-8")


def _is_below(name: str) -> bool:
    return not Path(name).is_absolute() and ".." not in Path(name).parts


def _is_ours(path: Path, digest: str | None) -> bool:
    regular = path.is_file() and not path.is_symlink()
    return digest is not None and regular and (digest == "" or digest == _digest(path))


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _is_report(path: Path) -> bool:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return False
    return text.startswith(MARKS[0]) and MARKS[1] in text
