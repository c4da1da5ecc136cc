from pathlib import Path

import pytest

from regbench.report import figures


@pytest.fixture
def quick(monkeypatch):
    """Figures that take no time: of all methods forest, of none alone another."""

    def save(figure: str, folder: Path, name: str) -> None:
        folder.mkdir(exist_ok=True, parents=True)
        for suffix in figures.SUFFIXES:
            (folder / f"{name}{suffix}").write_text(figure)

    monkeypatch.setattr(figures, "save", save)
    monkeypatch.setattr(
        figures, "draw", lambda material: {"forest" if material.analysis.comparisons else "gap_against_lam": "drawn"}
    )
