"""The material of a report, gathered from the tracking store."""

from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from safetensors.numpy import load_file

from regbench.report import load
from regbench.report.analysis import Analysis, analyse
from regbench.report.load import Runs
from regbench.tracking import schema
from regbench.tracking.store import Store


@dataclass(frozen=True)
class Material:
    """The material of a report; `weights` is method -> layer -> array, of one trial each, at the chosen lam; on
    a fresh seed where there is one.

    `histograms` (see `load.histograms`) are those of the runs that have them. `missing` are the addresses of files that
    could not be read, `unkept` the methods of which no weights were kept.
    """

    runs: Runs
    analysis: Analysis
    epochs: pd.DataFrame
    layers: pd.DataFrame
    weights: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    histograms: pd.DataFrame = field(default_factory=pd.DataFrame)
    unkept: tuple[str, ...] = ()


def gather(store: Store, sweep: str = "", condition: str = "", recipe: str = "") -> tuple[Material, ...]:
    """Return the material of the chosen trials (see `load.load`) of each recipe; raises UserError if there are none.

    What it notes of them is in the language of the block (see `language.use`), as is the report that is made of it there.
    """
    return tuple(_gather(store, runs) for runs in load.load(store, sweep, condition, recipe))


def _gather(store: Store, runs: Runs) -> Material:
    analysis = analyse(runs)
    shown = pd.concat([analysis.at_chosen(runs.trials, method) for method in analysis.methods] or [runs.trials])
    kept = shown[~shown["run_id"].isin(runs.weightless)]
    first = kept.sort_values("seed", kind="stable").drop_duplicates("method")
    missing: list[str] = []
    found = load.files(store, first, schema.MODEL, load_file, missing)
    weights = {trial.method: {name: w for name, w in tensors.items() if w.ndim >= 2} for trial, tensors in found}
    return Material(
        runs,
        analysis,
        load.epochs(store, runs.trials),
        load.layers(store, shown, missing),
        {method: weights[method] for method in analysis.methods if method in weights},
        tuple(missing),
        load.histograms(store, runs.trials),
        tuple(dict.fromkeys(method for method in shown["method"] if method not in set(first["method"]))),
    )
