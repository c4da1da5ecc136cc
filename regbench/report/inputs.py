"""The material of a report, gathered from the tracking store."""

from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from regbench.report import load
from regbench.report.analysis import Analysis, analyse
from regbench.report.load import Runs
from regbench.tracking.store import Store


@dataclass(frozen=True)
class Material:
    """The material of a report.

    `histograms` and `outputs` (see `load`) are those of the runs that have them, the latter at the chosen lams. `missing`
    are the addresses of files that could not be read.
    """

    runs: Runs
    analysis: Analysis
    epochs: pd.DataFrame
    layers: pd.DataFrame
    outputs: dict[str, tuple[str, np.ndarray]] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    histograms: pd.DataFrame = field(default_factory=pd.DataFrame)


def gather(store: Store, sweep: str = "", condition: str = "", recipe: str = "") -> tuple[Material, ...]:
    """Return the material of the chosen trials (see `load.load`) of each recipe; raises UserError if there are none.

    What it notes of them is in the language of the block (see `language.use`), as is the report that is made of it there.
    """
    return tuple(_gather(store, runs) for runs in load.load(store, sweep, condition, recipe))


def _gather(store: Store, runs: Runs) -> Material:
    analysis = analyse(runs)
    shown = pd.concat([analysis.at_chosen(runs.trials, method) for method in analysis.methods] or [runs.trials])
    missing: list[str] = []
    return Material(
        runs,
        analysis,
        load.epochs(store, runs.trials),
        load.layers(store, shown, missing),
        load.outputs(store, runs.trials[runs.trials["lam"] == runs.trials["method"].map(analysis.lam)]),
        tuple(missing),
        load.histograms(store, runs.trials),
    )
