"""The trainings that a contender has left behind, and what they show by regbench's own statistics.

Trainings are a table with a row for each: reg, lam, seed, the accuracies val and test (fractions), and whether it has a say
in the choice of lam (chooses) and in the verdict (judges).
"""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from mlflow import MlflowClient

from regbench.statistics.choice import choose
from regbench.statistics.paired import Noise, noise
from regbench.statistics.verdict import Comparison, judge
from regbench.trial import BASELINE

COLUMNS = ["reg", "lam", "seed", "val", "test", "chooses", "judges"]


@dataclass(frozen=True)
class Shown:
    """What trainings show of a regularizer, at the lam that they choose, against none."""

    lam: float
    comparison: Comparison
    noise: Noise


def shown(trainings: pd.DataFrame) -> dict[str, Shown]:
    """Return regularizer -> what is shown of it: paired by seed, tested and corrected as regbench does."""
    lams, pairs = {}, {}
    judging = trainings[trainings["judges"]].set_index(["reg", "lam", "seed"])["test"].sort_index()
    for reg, group in trainings[trainings["chooses"] & (trainings["reg"] != BASELINE)].groupby("reg"):
        lams[reg] = choose({lam: rows["val"].tolist() for lam, rows in group.groupby("lam")}).lam
        both = pd.DataFrame({"own": judging.loc[reg, lams[reg]], "base": judging.loc[BASELINE, 0.0]})
        pairs[reg] = both.dropna()
    found = judge({reg: both["own"] - both["base"] for reg, both in pairs.items()}, [len(next(iter(pairs.values())))])
    return {reg: Shown(lams[reg], found[reg], noise(pairs[reg]["own"], pairs[reg]["base"])) for reg in found}


def of_mlflow(experiment: str, folder: Path) -> pd.DataFrame:
    """Return the trainings of scripts that log reg, lam, seed, val_accuracy and test_accuracy: all choose and judge."""
    found = _finished(folder, experiment)
    return _table(
        reg=found["params.reg"],
        lam=found["params.lam"],
        seed=found["params.seed"],
        val=found["metrics.val_accuracy"],
        test=found["metrics.test_accuracy"],
        chooses=True,
        judges=True,
    )


def of_optuna(folder: Path) -> pd.DataFrame:
    """Return the trainings of the studies, on seed 0, which choose, and those of the winners, which judge."""
    found = of_mlflow("optuna", folder)
    return found.assign(chooses=found["seed"] == 0, judges=found["seed"] != 0)


def of_benchopt(folder: Path) -> pd.DataFrame:
    """Return the trainings in the file that benchopt writes; a repetition has the same seed for all."""
    found = pd.read_parquet(folder / "outputs" / "result.parquet")
    return _table(
        reg=found["p_solver_reg"],
        lam=found["p_solver_lam"],
        seed=found["idx_rep"],
        val=found["objective_val_accuracy"],
        test=found["objective_value"],
        chooses=True,
        judges=True,
    )


def of_regbench(folder: Path) -> pd.DataFrame:
    """Return the trials of a sweep: its grid chooses, fresh seeds judge."""
    found = _finished(folder, "regbench")
    found = found[found["tags.regbench.kind"] == "trial"]
    return _table(
        reg=found["params.regularizer"],
        lam=found["params.lam"],
        seed=found["params.seed"],
        val=found["metrics.val/accuracy"],
        test=found["metrics.test/accuracy"],
        chooses=found["tags.regbench.stage"] == "grid",
        judges=found["tags.regbench.stage"] == "confirm",
    )


def _table(**columns: object) -> pd.DataFrame:
    typed = pd.DataFrame(columns).astype({"lam": float, "seed": int})
    return typed[COLUMNS].sort_values(["reg", "lam", "seed"], ignore_index=True)


def _finished(folder: Path, experiment: str) -> pd.DataFrame:
    """Return the finished runs of an experiment in a folder's store."""
    # a client of its own: the process's tracking store stays what it is
    client = MlflowClient(f"sqlite:///{folder.resolve() / 'mlflow.db'}")
    where = [client.get_experiment_by_name(experiment).experiment_id]
    runs = client.search_runs(where, "attributes.status = 'FINISHED'", max_results=50_000)
    kinds = ("params", "metrics", "tags")
    return pd.DataFrame([
        {f"{kind}.{name}": value for kind in kinds for name, value in getattr(run.data, kind).items()} for run in runs
    ])  # fmt: skip
