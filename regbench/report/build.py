"""Write a report's files, and put them beside the sweep's run."""

from dataclasses import asdict
from pathlib import Path

import pandas as pd

from regbench.files import atomic
from regbench.report import figures, output
from regbench.report.analysis import Analysis
from regbench.report.inputs import Material
from regbench.report.load import Runs
from regbench.report.render import render
from regbench.statistics.verdict import Comparison
from regbench.tracking.store import Store


def write(material: Material, folder: Path) -> Path:
    """Write report.md, figures/ (PNG and SVG) and CSV files into `folder`; return the report's path.

    Files are replaced one by one, the report last; those of an earlier report that this one lacks are removed. The same
    material gives the same bytes. Raises UserError if it would overwrite what regbench has not written.
    """
    runs, analysis = material.runs, material.analysis
    drawn = figures.draw(material)
    tables = {
        "trials": runs.trials.drop(columns=["key", "recipe", "parent", "artifacts"]),
        "cells": analysis.cells,
        "comparisons": _comparisons(analysis),
        **({"pairs": _contrasts(analysis)} if analysis.contrasts else {}),
        "epochs": material.epochs.drop(columns=["run_id"]),
        "layers": material.layers,
    }
    names = [f"figures/{name}{suffix}" for name in drawn for suffix in figures.SUFFIXES]
    names += [*(f"{name}.csv" for name in tables), output.REPORT]
    with output.writing(folder, names):
        for name, figure in drawn.items():
            figures.save(figure, folder / "figures", name)
        for name, table in tables.items():
            with atomic(folder / f"{name}.csv") as path:
                table.to_csv(path, index=False, float_format="%.6g", lineterminator="\n")
        with atomic(folder / output.REPORT) as path:
            path.write_text(render(material, drawn), encoding="utf-8")
    return folder / output.REPORT


def publish(store: Store, runs: Runs, folder: Path) -> str | None:
    """Make the report's files artifacts of the newest sweep's run; return that run's id, None if there is none.

    Raises UserError if they cannot be put there.
    """
    if not runs.sweeps:
        return None
    store.check_files()
    store.attach(runs.sweeps[-1], folder, output.written(folder), "report")
    return runs.sweeps[-1]


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


def _judged(found: Comparison) -> dict[str, object]:
    interval = found.difference
    return {
        "difference": interval.mean, "low": interval.low, "high": interval.high, "level": interval.level,
        "p_adjusted": found.p_adjusted, "looked": found.looked, "verdict": str(found.verdict),
    }  # fmt: skip
