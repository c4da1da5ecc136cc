"""Write a report's files, and put them beside the sweep's run."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from matplotlib.figure import Figure

from regbench.files import atomic
from regbench.report import figures, output
from regbench.report.analysis import Analysis
from regbench.report.inputs import Material
from regbench.report.interactions import Interaction, interactions
from regbench.report.interactive import charts
from regbench.report.language import ENGLISH, use
from regbench.report.page import page
from regbench.report.recipes import Side, sides
from regbench.report.render import render, render_overview
from regbench.report.vega import Chart
from regbench.statistics.verdict import Comparison
from regbench.tracking.store import Store


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
    """Make the report's files artifacts of the newest sweep's run; return that run's id, None if there is none.

    Raises UserError if they cannot be put there.
    """
    started = {run_id: start for material in materials for run_id, start in material.runs.sweeps.items()}
    if not started:
        return None
    newest = max(started, key=lambda run_id: (started[run_id], run_id))
    store.check_files()
    store.attach(newest, folder, output.written(folder), "report")
    return newest


def _single(material: Material) -> Part:
    runs, analysis, drawn = material.runs, material.analysis, figures.draw(material)
    tables = {
        "trials": runs.trials.drop(columns=["key", "recipe", "parent", "artifacts"]),
        "cells": analysis.cells,
        "comparisons": _comparisons(analysis),
        **({"pairs": _contrasts(analysis)} if analysis.contrasts else {}),
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
        for row in _comparisons(side.material.analysis).to_dict("records")
    ]
    tables = {"recipes": pd.DataFrame(rows), "interactions": _interactions(sides, family)}
    drawn = [side.folder for side in sides if "forest" in parts[f"{side.folder}/"].figures]
    shown = {name: table for name, table in tables.items() if len(table)}
    return parts | {"": Part({}, shown, lambda: render_overview(sides, family, drawn), lambda: {
        f"{side.folder}/figures/forest{figures.PICTURE}": found
        for side in sides
        if (found := charts(side.material, ["forest"]).get("forest"))
    })}  # fmt: skip


def _comparisons(analysis: Analysis) -> pd.DataFrame:
    rows = []
    for method, found in analysis.comparisons.items():
        pairs, choice = analysis.pairs[method], analysis.design.choices[method]
        test, none = pairs.means
        row = {
            "method": method,
            "lam": choice.lam,
            "edge": choice.edge,
            "seeds": len(pairs),
            "test": test,
            "none": none,
        }
        rows.append(row | _judged(found) | asdict(pairs.noise))
    return pd.DataFrame(rows)


def _contrasts(analysis: Analysis) -> pd.DataFrame:
    rows = []
    for (method, other), (found, pairs) in analysis.contrasts.items():
        lam, lam_other = analysis.lam(method), analysis.lam(other)
        test, test_other = pairs.means
        row = {"method": method, "lam": lam, "other": other, "lam_other": lam_other, "seeds": len(pairs),
               "test": test, "test_other": test_other}  # fmt: skip
        rows.append(row | _judged(found) | asdict(pairs.noise))
    return pd.DataFrame(rows)


@use(ENGLISH)  # the words of the verdicts in CSV files are for programs
def _interactions(sides: Sequence[Side], family: Mapping[tuple[str, int, int], Interaction]) -> pd.DataFrame:
    rows = []
    for (method, *pair), found in family.items():
        first, second = (sides[place] for place in pair)
        lam, lam_second = (side.material.analysis.lam(method) for side in (first, second))
        four = found.accuracies
        own, none, own_second, none_second = four.mean(axis=0) if len(four) else [math.nan] * 4
        row = {"method": method, "first": first.folder, "second": second.folder, "lam": lam, "lam_second": lam_second,
               "seeds": len(four), "test": own, "none": none, "test_second": own_second,
               "none_second": none_second}  # fmt: skip
        rows.append(row | _judged(found.comparison) | {"verdict": found.verdict})
    return pd.DataFrame(rows)


def _judged(found: Comparison) -> dict[str, object]:
    interval = found.difference
    return {
        "difference": interval.mean, "low": interval.low, "high": interval.high, "level": interval.level,
        "p_adjusted": found.p_adjusted, "looked": found.looked, "verdict": str(found.verdict),
    }  # fmt: skip
