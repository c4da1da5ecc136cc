"""Gather what a report needs from the store, write its files, and put them beside the sweep's run."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from safetensors import SafetensorError
from safetensors.numpy import load_file

from regbench.errors import one_line
from regbench.files import atomic
from regbench.report import figures, load, markdown
from regbench.report.analysis import Analysis, analyse
from regbench.report.load import Runs
from regbench.tracking.store import Store


@dataclass(frozen=True)
class Material:
    """All that a report is made of; `weights` is method -> layer -> array, of one trial each, at the chosen lam."""

    runs: Runs
    analysis: Analysis
    epochs: pd.DataFrame
    layers: pd.DataFrame
    weights: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)


def gather(store: Store, sweep: str = "", condition: str = "", recipe: str = "") -> Material:
    """Return the material of the chosen trials (see `load.load`); raises UserError if there are none."""
    runs = load.load(store, sweep, condition, recipe)
    analysis = analyse(runs)
    chosen = runs.trials[[analysis.chosen(t.method) == t.lam for t in runs.trials.itertuples()]]
    shown = chosen[chosen["seed"].isin(analysis.seeds)]
    weights: dict[str, dict[str, np.ndarray]] = {}
    for trial in shown.sort_values("seed", kind="stable").drop_duplicates("method").itertuples():
        path = load.artifact(store, trial.artifacts, "weights/model.safetensors")
        try:
            found = load_file(path) if path is not None else {}
        except (OSError, SafetensorError) as error:
            load.log.warning("%s is left out: it is damaged (%s)", path, one_line(error))
            continue
        if found:
            weights[trial.method] = {name: w for name, w in found.items() if w.ndim >= 2}
    order = [method for method in analysis.methods if method in weights]
    return Material(
        runs,
        analysis,
        load.epochs(store, runs.trials),
        load.layers(store, shown),
        {name: weights[name] for name in order},
    )


def write(material: Material, folder: Path) -> Path:
    """Write report.md, figures/ (PNG and SVG) and CSV files into `folder`; return the report's path.

    Files are replaced one by one, the report last. The same material gives the same bytes.
    """
    runs, analysis = material.runs, material.analysis
    drawn = _draw(material)
    for name, figure in drawn.items():
        figures.save(figure, folder / "figures", name)
    tables = {
        "trials": runs.trials.drop(columns=["key", "recipe", "parent", "artifacts"]),
        "cells": analysis.cells,
        "comparisons": _comparisons(analysis),
        "epochs": material.epochs.drop(columns=["run_id"]),
        "layers": material.layers,
    }
    for name, table in tables.items():
        with atomic(folder / f"{name}.csv") as path:
            table.to_csv(path, index=False, float_format="%.6g", lineterminator="\n")
    report = folder / "report.md"
    with atomic(report) as path:
        path.write_text(markdown.report(runs, analysis, list(drawn), material.layers), encoding="utf-8")
    return report


def publish(store: Store, runs: Runs, folder: Path) -> str | None:
    """Make the report an artifact of the newest sweep's run; return that run's id, None if there is none."""
    if not runs.sweeps:
        return None
    store.client.log_artifacts(runs.sweeps[-1], str(folder), "report")
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
