"""The files that a benchmark commits: its page and its numbers."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from regbench.files import atomic


def write(folder: Path, files: Mapping[str, str]) -> None:
    """Write name -> text into a folder, each atomically, with the same bytes on every system."""
    for name, text in files.items():
        with atomic(folder / name) as path:
            path.write_text(text, encoding="utf-8", newline="\n")


def known(place: Path, cell: Sequence[str]) -> dict[tuple, float]:
    """Return what an earlier run has left in a file: what names a training, by the columns `cell` -> its accuracy."""
    table = pd.read_csv(place, keep_default_na=False) if place.exists() else pd.DataFrame(columns=[*cell, "accuracy"])
    return {tuple(row[:-1]): row[-1] for row in table.itertuples(index=False)}
