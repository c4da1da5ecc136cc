"""Invented sweeps, as the report loads them."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from regbench.report.load import Runs
from regbench.statistics.looks import schedule

RECIPE = {"dataset": "digits", "train_size": "1437", "val_size": "143", "model": "notebook", "epochs": "20"}


def runs(rows: list[dict[str, object]], others: Sequence[tuple] = (), **fields: object) -> Runs:
    """Return runs with these trials (method, lam, seed, val/accuracy, test/accuracy, and more where it is given)."""
    defaults = {"outcome": "ok", "stage": "grid", "device": "cpu", "engine": "sequential", "ended": 0, "artifacts": "",
                "key": "", "recipe": "", "parent": "", "time/trial": 2.0}  # fmt: skip
    trials = pd.DataFrame(
        defaults | {"regularizer": row["method"], "run_id": str(index), "name": str(index)} | row
        for index, row in enumerate(rows)
    )
    columns = ["name", "method", "lam", "seed", "status", "outcome", "reason"]
    return Runs("regbench", trials, pd.DataFrame(others, columns=columns), RECIPE, {}, {}, **fields)


def fresh(
    differences: Mapping[str, Sequence[float]],
    planned: int | None = None,
    none: Sequence[float] | None = None,
    others: Sequence[tuple] = (),
) -> Runs:
    """Return a sweep with three seeds in the grid and fresh ones, from 3, with these differences to none in points.

    `none` are its accuracies in percent; a `planned` number of fresh seeds may be more than there are.
    """
    count = max(map(len, differences.values()))
    if none is None:
        none = [70.0] * count
    rows = [_trial("none", 0.0, seed, 70, 70) for seed in range(3)]
    rows += [_trial("none", 0.0, 3 + index, value, value, "confirm") for index, value in enumerate(none)]
    for method, values in differences.items():
        for lam, accuracy in ((1e-4, 71), (1e-3, 70)):
            rows += [_trial(method, lam, seed, accuracy, accuracy) for seed in range(3)]
        for index, value in enumerate(values):
            if np.isfinite(value):
                rows.append(_trial(method, 1e-4, 3 + index, 70, none[index] + value, "confirm"))
    planned = planned or count
    return runs(
        rows,
        others,
        confirm=tuple(range(3, 3 + planned)),
        looks=schedule(planned, len(differences)),
        choice=dict.fromkeys(differences, 1e-4),
    )


def grid(accuracies: Mapping[str, Mapping[float, Sequence[float]]], validation: object = None) -> Runs:
    """Return a grid alone with these accuracies in percent, [method][lam][seed]; on validation those of `validation`."""
    known = validation or accuracies
    return runs([
        _trial(method, lam, seed, known[method][lam][seed], value)
        for method, cells in accuracies.items()
        for lam, values in cells.items()
        for seed, value in enumerate(values)
        if np.isfinite(value)
    ])  # fmt: skip


def _trial(method: str, lam: float, seed: int, val: float, test: float, stage: str = "grid") -> dict[str, object]:
    row = {"method": method, "lam": lam, "seed": seed, "val/accuracy": val / 100, "test/accuracy": test / 100}
    return row | {"stage": stage, "outcome": "collapsed" if test <= 10 else "ok", "sparsity/exact": 0.0}
