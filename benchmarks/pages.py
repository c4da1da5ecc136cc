"""The files that a benchmark commits: its page and its numbers."""

from collections.abc import Mapping
from pathlib import Path

from regbench.files import atomic


def write(folder: Path, files: Mapping[str, str]) -> None:
    """Write name -> text into a folder, each atomically, with the same bytes on every system."""
    for name, text in files.items():
        with atomic(folder / name) as path:
            path.write_text(text, encoding="utf-8", newline="\n")
