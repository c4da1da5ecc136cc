"""Write a report's files, and put them beside the sweep's run."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from matplotlib.figure import Figure

from regbench.files import atomic
from regbench.report import figures, frames, output
from regbench.report.inputs import Material
from regbench.report.interactions import interactions
from regbench.report.interactive import charts
from regbench.report.page import page
from regbench.report.recipes import Side, sides
from regbench.report.render import render, render_overview
from regbench.report.vega import Chart
from regbench.results import with_figures
from regbench.tracking.store import Store

PLACE = "report"  # among the artifacts of the sweep's run


class Part(NamedTuple):
    """The content of a folder: figures and tables by name, and the report, which is made last.

    `charts` take the place of pictures on the report's page, by their addresses in the report.
    """

    figures: dict[str, Figure]
    tables: dict[str, pd.DataFrame]
    report: Callable[[], str]
    charts: Callable[[], Mapping[str, Sequence[Chart]]]

    @property
    def names(self) -> list[str]:
        """The names of its files."""
        drawn = [f"figures/{name}{suffix}" for name in self.figures for suffix in figures.SUFFIXES]
        return [*drawn, *(f"{name}.csv" for name in self.tables), output.PAGE, output.REPORT]

    def write(self, folder: Path) -> None:
        for name, figure in self.figures.items():
            figures.save(figure, folder / "figures", name)
        for name, table in self.tables.items():
            with atomic(folder / f"{name}.csv") as path:
                table.to_csv(path, index=False, float_format="%.6g", lineterminator="\n")
        text = self.report()
        content = page(text, self.charts(), lambda address: (folder / address).read_bytes())
        for name, written in ((output.PAGE, content), (output.REPORT, text)):
            with atomic(folder / name) as path:
                path.write_text(written, encoding="utf-8")


def write(materials: Sequence[Material], folder: Path) -> Path:
    """Write report.md, report.html, figures/ (PNG and SVG) and CSV files into `folder`; return report.md's path.

    Of several recipes each has all that in a folder of its own in there, beside a report on all of them. Files are
    replaced one by one, the report last; those of an earlier report that this one lacks are removed. The same materials
    give the same bytes. Raises UserError if it would overwrite what regbench has not written.
    """
    parts = {"": _single(materials[0])} if len(materials) == 1 else _several(sides(materials))
    with output.writing(folder, [f"{place}{name}" for place, part in parts.items() for name in part.names]):
        for place, part in parts.items():
            part.write(folder / place)
    return folder / output.REPORT


def publish(store: Store, materials: Sequence[Material], folder: Path) -> str | None:
    """Make the report's files artifacts of the newest sweep's run, and show its verdicts in the run's description.

    Returns that run's id, None if there is none.

    Raises UserError if they cannot be put there.
    """
    started = {run_id: start for material in materials for run_id, start in material.runs.sweeps.items()}
    if not started:
        return None
    newest = max(started, key=lambda run_id: (started[run_id], run_id))
    store.check_files()
    names = output.written(folder)
    store.attach(newest, folder, names, PLACE)
    forests = [f"{PLACE}/{name}" for name in names if name.endswith("figures/forest.png")]
    store.change_note(newest, lambda note: with_figures(note, newest, forests))
    return newest


def _single(material: Material) -> Part:
    runs, analysis, drawn = material.runs, material.analysis, figures.draw(material)
    tables = {
        # a run's id is a store's own: what identifies a trial is its key
        "trials": runs.trials.drop(columns=["run_id", "recipe", "parent", "artifacts"]),
        "cells": analysis.cells,
        "comparisons": frames.comparisons(analysis),
        **({"pairs": frames.contrasts(analysis)} if analysis.contrasts else {}),
        "epochs": material.epochs.drop(columns=["run_id"]),
        "layers": material.layers,
    }
    return Part(drawn, tables, lambda: render(material, drawn), lambda: {
        f"figures/{name}{figures.PICTURE}": found for name, found in charts(material).items()
    })  # fmt: skip


def _several(sides: Sequence[Side]) -> dict[str, Part]:
    parts = {f"{side.folder}/": _single(side.material) for side in sides}
    family = interactions([side.material for side in sides])
    rows = [
        {"recipe": side.material.runs.recipe_id, "folder": side.folder} | side.values | row
        for side in sides
        for row in frames.comparisons(side.material.analysis).to_dict("records")
    ]
    tables = {"recipes": pd.DataFrame(rows), "interactions": frames.interactions(sides, family)}
    drawn = [side.folder for side in sides if "forest" in parts[f"{side.folder}/"].figures]
    shown = {name: table for name, table in tables.items() if len(table)}
    return parts | {"": Part({}, shown, lambda: render_overview(sides, family, drawn), lambda: {
        f"{side.folder}/figures/forest{figures.PICTURE}": found
        for side in sides
        if (found := charts(side.material, ["forest"]).get("forest"))
    })}  # fmt: skip
