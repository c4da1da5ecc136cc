"""Gather what a report needs from the store, write its files, and put them beside the sweep's run."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from safetensors import SafetensorError
from safetensors.numpy import load_file

from regbench.errors import one_line
from regbench.files import atomic
from regbench.report import figures, load, markdown, output
from regbench.report.analysis import Analysis, analyse
from regbench.report.load import Runs
from regbench.tracking.store import Store


@dataclass(frozen=True)
class Material:
    """All that a report is made of; `weights` is method -> layer -> array, of one trial each, at the chosen lam.

    `missing` are the addresses of files that could not be read.
    """

    runs: Runs
    analysis: Analysis
    epochs: pd.DataFrame
    layers: pd.DataFrame
    weights: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)
    missing: tuple[str, ...] = ()


def gather(store: Store, sweep: str = "", condition: str = "", recipe: str = "") -> Material:
    """Return the material of the chosen trials (see `load.load`); raises UserError if there are none."""
    runs = load.load(store, sweep, condition, recipe)
    analysis = analyse(runs)
    chosen = runs.trials[[analysis.chosen(t.method) == t.lam for t in runs.trials.itertuples()]]
    shown = chosen[chosen["seed"].isin(analysis.seeds)]
    weights: dict[str, dict[str, np.ndarray]] = {}
    missing: list[str] = []
    for trial in shown.sort_values("seed", kind="stable").drop_duplicates("method").itertuples():
        path = load.artifact(store, trial.artifacts, "weights/model.safetensors", missing)
        try:
            found = load_file(path) if path is not None else {}
        except (OSError, SafetensorError) as error:
            load.log.warning("%s is left out: it is damaged (%s)", path, one_line(error))
            missing.append(str(path))
            continue
        if found:
            weights[trial.method] = {name: w for name, w in found.items() if w.ndim >= 2}
    order = [method for method in analysis.methods if method in weights]
    return Material(
        runs,
        analysis,
        load.epochs(store, runs.trials),
        load.layers(store, shown, missing),
        {name: weights[name] for name in order},
        tuple(missing),
    )


def write(material: Material, folder: Path) -> Path:
    """Write report.md, figures/ (PNG and SVG) and CSV files into `folder`; return the report's path.

    Files are replaced one by one, the report last; those of an earlier report that this one lacks are removed. The same
    material gives the same bytes. Raises UserError if it would overwrite what regbench has not written.
    """
    runs, analysis = material.runs, material.analysis
    drawn = _draw(material)
    tables = {
        "trials": runs.trials.drop(columns=["key", "recipe", "parent", "artifacts"]),
        "cells": analysis.cells,
        "comparisons": _comparisons(analysis),
        "epochs": material.epochs.drop(columns=["run_id"]),
        "layers": material.layers,
    }
    report = folder / output.REPORT
    names = [f"figures/{name}{suffix}" for name in drawn for suffix in figures.SUFFIXES]
    names += [*(f"{name}.csv" for name in tables), report.name]
    with output.writing(folder, names):
        for name, figure in drawn.items():
            figures.save(figure, folder / "figures", name)
        for name, table in tables.items():
            with atomic(folder / f"{name}.csv") as path:
                table.to_csv(path, index=False, float_format="%.6g", lineterminator="\n")
        text = markdown.report(runs, analysis, list(drawn), material.layers, told_missing(material))
        with atomic(report) as path:
            path.write_text(text, encoding="utf-8")
    return report


def told_missing(material: Material) -> str:
    """Say which figures are left out since files of trials cannot be read; "" if all are there."""
    if not material.missing:
        return ""
    lost = ["layer_sparsity"] * material.layers.empty + ["weight_histograms", "output_bars"] * (not material.weights)
    count = "1 file" if len(material.missing) == 1 else f"{len(material.missing)} files"
    what = f"left out for it: {', '.join(lost)}" if lost else "figures lack these trials"
    return (
        f"{count} of trials missing or damaged, as after a folder was moved or deleted (the first: {material.missing[0]}); "
        f"{what}."
    )


def publish(store: Store, runs: Runs, folder: Path) -> str | None:
    """Make the report's files artifacts of the newest sweep's run; return that run's id, None if there is none.

    Raises UserError if they cannot be put there.
    """
    if not runs.sweeps:
        return None
    store.check_files()
    store.attach(runs.sweeps[-1], folder, output.written(folder), "report")
    return runs.sweeps[-1]


def _draw(material: Material) -> dict[str, figures.Figure]:
    analysis, trials = material.analysis, material.runs.trials
    if analysis.cells.empty:
        return {}
    drawn = {
        "accuracy_against_lam": figures.accuracy_against_lam(analysis, trials),
        "gap_against_lam": figures.gap_against_lam(analysis, trials),
        "accuracy_against_compression": figures.accuracy_against_compression(analysis),
    }
    pruned = figures.prune_curves(analysis)
    if pruned is not None:
        drawn["prune_curves"] = pruned
    if analysis.comparisons:
        drawn["forest"] = figures.forest(analysis)
    if not material.epochs.empty:
        drawn["learning_curves"] = figures.learning_curves(analysis, material.epochs)
    if not material.layers.empty:
        drawn["layer_sparsity"] = figures.layer_sparsity(analysis, material.layers)
    if material.weights:
        palette = figures.colours(analysis.methods)
        every = {method: np.concatenate([w.flatten() for w in layers.values()]) for method, layers in
                 material.weights.items()}  # fmt: skip
        drawn["weight_histograms"] = figures.weight_histograms(every, palette)
        # the last layer in the model's order, which the table of layers keeps and a file of tensors does not
        last = material.layers["layer"].iloc[-1] if len(material.layers) else sorted(next(iter(every)))[-1]
        outputs = {method: layers[last] for method, layers in material.weights.items() if last in layers}
        if outputs:
            drawn["output_bars"] = figures.output_bars(outputs, palette, last.removesuffix(".weight"))
    return drawn


def _comparisons(analysis: Analysis) -> pd.DataFrame:
    rows = []
    for method, found in analysis.comparisons.items():
        row: dict[str, object] = {"method": method, "lam": found.selection.lam, "edge": found.selection.edge or ""}
        for name in ("validation", "test", "difference", "apparent", "held_out", "improvement"):
            interval = getattr(found, name)
            row |= {name: interval.mean, f"{name}_low": interval.low, f"{name}_high": interval.high}
        row |= {
            "p": found.p_value,
            "p_adjusted": found.p_adjusted,
            "seeds": found.test.n,
            "verdict": str(found.verdict),
        }
        rows.append(row)
    return pd.DataFrame(rows)
