"""Runs of a tracking store -> tidy frames: a row per trial, a row per trial and epoch."""

import json
import logging
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.utils.search_utils import SearchUtils
from safetensors import SafetensorError
from safetensors.numpy import load_file

from regbench.errors import UserError, one_line
from regbench.tracking import finished, schema
from regbench.tracking.store import Store
from regbench.trial import NEUTRAL, method, parse_seeds

T = TypeVar("T")
log = logging.getLogger(__name__)
THREADS = 8  # to download a server's files
CURVES = ("train/loss", "val/loss", "train/accuracy", "val/accuracy")  # metrics of an epoch
OWN = ("regularizer", "lam", "seed", "scope")  # parameters of a trial that are not part of its recipe


@dataclass(frozen=True)
class Runs:
    """The trials of one recipe, in an experiment.

    trials: a row per finished trial (run_id, method, regularizer, lam, seed, stage, outcome, device, ended (ms),
    artifacts (their address), and every final metric under its own name); its stage is `grid` if it is one of the grid
    in any of the sweeps looked at, else `confirm`. others: a row per run that is not a finished trial (name, method,
    lam, seed, status, outcome, reason). recipe: parameter -> text, the same for all trials; recipe_id: its id.
    environment: tag -> texts, of the sweeps' own runs. sweeps: the ids of these runs, oldest first -> their start (ms).
    confirm: fresh seeds in order, of all sweeps looked at. looks: after how many of them the newest is judged. choice:
    method -> chosen lam, the newest one; chosen_on: method -> the seeds that choice is from. These four are empty for a
    grid alone.
    """

    experiment: str
    trials: pd.DataFrame
    others: pd.DataFrame
    recipe: dict[str, str]
    environment: dict[str, tuple[str, ...]]
    sweeps: dict[str, int]
    recipe_id: str = ""
    foreign: int = 0  # runs of the experiment that regbench did not make
    outdated: int = 0  # trials left out for a newer one of the same method, lam and seed, trained with other code
    unreported: int = 0  # runs of recipes of which no trial has finished
    confirm: tuple[int, ...] = ()
    looks: tuple[int, ...] = ()
    rates: str = ""  # the learning rates of the newest sweep, as an option, if it has several
    choice: dict[str, float] = field(default_factory=dict)
    chosen_on: dict[str, frozenset[int]] = field(default_factory=dict)

    def with_outcome(self, outcome: str) -> list[str]:
        """Return the names of the finished trials that came out so."""
        return sorted(self.trials.loc[self.trials["outcome"] == outcome, "name"])

    def unfinished(self) -> list[tuple[str, str, list[str]]]:
        """Return (status, reason, names) of the runs that are not finished trials."""
        groups = self.others.groupby(["status", "reason"], sort=True)["name"]
        return [(status, reason, list(names)) for (status, reason), names in groups]


def load(store: Store, sweep: str = "", condition: str = "", recipe: str = "") -> tuple[Runs, ...]:
    """Return the trials of the store's experiment, of one `sweep` (its id) or of those that meet an MLflow filter.

    Those of each recipe are apart, in the order in which recipes were first trained; a `recipe` (its id) chooses one.
    One of which no trial has finished is left out, unless there is no other. Raises UserError if there are no trials.
    """
    if store.experiment_id is None:
        raise UserError(f"there is no experiment {store.experiment!r} in {store.uri}; accepted: {_names(store)}")
    _check_filter(condition)
    every = store.search("")
    found = [run for run in every if run.data.tags.get(schema.KIND) == "trial"]
    if condition:
        found = store.search(f"tags.`{schema.KIND}` = 'trial' and {condition}")
    if sweep:
        found = [run for run in found if sweep in schema.stages(run.data.tags)]
    if not found:
        asked = " that meets what was asked for" if sweep or condition else ""
        raise UserError(
            f"the experiment {store.experiment!r} in {store.uri} holds no trial{asked} ({len(every)} runs in all); "
            "train some with mlflow run, or choose another experiment, sweep or filter"
        )
    rows, recipes = pd.DataFrame([_row(run, sweep) for run in found]), _recipes(found)
    if recipe:
        rows = rows[rows["recipe"] == recipe]
        if rows.empty:
            raise UserError(f"recipe={recipe!r} is that of no trial; accepted: {', '.join(sorted(recipes))}")
    trials = rows[rows["run_id"].isin({run.info.run_id for run in finished.newest(found).values()})]
    # trained again since the code has changed, by a sweep that found no trial with its key: the newest counts
    newest_last = trials.sort_values("ended", kind="stable")
    outdated = trials[newest_last.duplicated(["recipe", "method", "lam", "seed"], keep="last").reindex(trials.index)]
    trials = trials.drop(outdated.index)
    others = rows[(rows["status"] != "FINISHED") & ~rows["key"].isin(set(trials["key"]))]
    names = list(dict.fromkeys(trials["recipe"] if len(trials) else rows["recipe"]))
    found = []
    for name in names:
        own = rows[rows["recipe"] == name]
        sweeps = set().union(*own["sweeps"]) if not sweep else {sweep}
        parent_ids = set(own["parent"])
        parents = [run for run in every if run.info.run_id in parent_ids]
        unfinished = others.loc[
            others["recipe"] == name, ["name", "method", "lam", "seed", "status", "outcome", "reason"]
        ]
        found.append(Runs(
            store.experiment,
            trials[trials["recipe"] == name].drop(columns=["status", "reason", "sweeps"]).reset_index(drop=True),
            unfinished.reset_index(drop=True),
            recipes[name],
            _environment(parents),
            {run.info.run_id: run.info.start_time for run in parents},
            recipe_id=name,
            foreign=sum(schema.KIND not in run.data.tags for run in every),
            outdated=int((outdated["recipe"] == name).sum()),
            unreported=int((~others["recipe"].isin(names)).sum()),
            **_fresh([run for run in every if run.data.tags.get(schema.SWEEP) in sweeps], own, name),
        ))  # fmt: skip
    return tuple(found)


def epochs(store: Store, trials: pd.DataFrame) -> pd.DataFrame:
    """Return a row per trial and epoch: run_id, method, lam, seed, epoch and the metrics of CURVES.

    From the runs' epochs.csv; of a run that has none, as one of an earlier version, by asking the store.
    """
    found = files(store, trials, schema.EPOCHS, _read_epochs, [])
    tables = {trial.run_id: table.assign(run_id=trial.run_id) for trial, table in found}
    unread = [run_id for run_id in trials["run_id"] if run_id not in tables]
    points = [(run_id, step, name, value) for name in CURVES for run_id, step, value in store.histories(unread, name)]
    if points:
        long = pd.DataFrame(points, columns=["run_id", "epoch", "name", "value"])
        # a point that was written twice (a server that answered too late, and was asked again) counts once
        long = long.drop_duplicates(["run_id", "epoch", "name"])
        tables[""] = long.pivot(index=["run_id", "epoch"], columns="name", values="value").reset_index()
    columns = ["run_id", "method", "lam", "seed", "epoch", *CURVES]
    if not tables:
        return pd.DataFrame(columns=columns)
    known = trials[["run_id", "method", "lam", "seed"]].assign(index=range(len(trials)))
    rows = known.merge(pd.concat(tables.values()).reindex(columns=["run_id", "epoch", *CURVES]), on="run_id")
    return rows.sort_values(["index", "epoch"])[columns].reset_index(drop=True)


def layers(store: Store, trials: pd.DataFrame, missing: list[str]) -> pd.DataFrame:
    """Return a row per trial and layer from the runs' layers.csv; trials without one are left out, and put in `missing`."""
    found = files(store, trials, schema.LAYERS, pd.read_csv, missing)
    tables = [table.assign(method=trial.method, lam=trial.lam, seed=trial.seed) for trial, table in found]
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()


def histograms(store: Store, trials: pd.DataFrame) -> pd.DataFrame:
    """Return method, lam, seed, layer, low, high and count: a row per bin of a layer, of the first seed of each cell.

    The layer ALL_LAYERS is all of them together. From the runs' histograms.csv; a trial that has none, as one of an earlier
    version, is left out.
    """
    first = trials.sort_values("seed", kind="stable").drop_duplicates(["method", "lam"]).sort_index()
    found = files(store, first, schema.COUNTS, _read_counts, [])
    tables = [table.assign(method=trial.method, lam=trial.lam, seed=trial.seed) for trial, table in found]
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()


def outputs(store: Store, trials: pd.DataFrame) -> dict[str, tuple[str, np.ndarray]]:
    """Return method -> name and weights of the output layer, of the method's first seed among the trials.

    From the runs' output.safetensors; a trial that has none, as one of an earlier version, is left out.
    """
    first = trials.sort_values("seed", kind="stable").drop_duplicates("method").sort_index()
    found = files(store, first, schema.OUTPUT, load_file, [])
    return {trial.method: (name, w.astype(np.float64)) for trial, held in found for name, w in held.items()}


def files(
    store: Store, trials: pd.DataFrame, name: str, read: Callable[[Path], T], missing: list[str]
) -> Iterator[tuple[Any, T]]:
    """Yield each trial with what `read` makes of its file `name`; `missing` gets those that are gone or damaged."""

    def fetch(trial: Any) -> tuple[T | None, list[str]]:
        lost: list[str] = []
        local = artifact(store, trial.artifacts, f"{schema.WEIGHTS}/{name}", lost)
        try:
            return (None if local is None else read(local)), lost
        except (OSError, ValueError, KeyError, SafetensorError) as error:
            log.warning("%s is left out: it is damaged (%s)", local, one_line(error))
            return None, [str(local)]

    rows = list(trials.itertuples())
    with ThreadPoolExecutor(THREADS) as pool:
        for trial, (content, lost) in zip(rows, pool.map(fetch, rows), strict=True):
            missing += lost
            if content is not None and len(content):
                yield trial, content


def _read_epochs(path: Path) -> pd.DataFrame:
    """Return a run's epochs.csv, numbers as exact as they were written; raises ValueError or KeyError for another file."""
    table = pd.read_csv(path, dtype=str).astype(float).astype({"epoch": int})
    return table.drop_duplicates("epoch").reindex(columns=["epoch", *CURVES])


def _read_counts(path: Path) -> pd.DataFrame:
    """Return a run's histograms.csv; raises ValueError or KeyError for another file."""
    kinds = {"layer": str, "low": float, "high": float, "count": int}
    return pd.read_csv(path, keep_default_na=False)[[*kinds]].astype(kinds)


def artifact(store: Store, root: str, path: str, missing: list[str]) -> Path | None:
    """Return a local copy of the artifact `path` below a run's `root`; None if it is gone, which `missing` gets then."""
    try:
        # by the address, since a look-up by the run's id takes three more requests to a server; and by its two parts,
        # since a folder's name may contain characters that have a meaning in an address
        return Path(get_artifact_repository(root, tracking_uri=store.uri).download_artifacts(path))
    except (MlflowException, OSError):
        missing.append(f"{root.rstrip('/')}/{path}")
        return None


def _check_filter(condition: str) -> None:
    try:
        SearchUtils.parse_search_filter(condition)
    except MlflowException as error:
        raise UserError(
            f"filter={condition!r} is not an MLflow filter ({one_line(error)[:160]}); accepted: comparisons joined by "
            "`and`, as in params.regularizer != 'l1'"
        ) from error


def _row(run: Run, sweep: str) -> dict[str, object]:
    """Return a trial's row; its stage is that in `sweep`, or in all its sweeps if that is empty."""
    tags, params = run.data.tags, run.data.params
    stages = schema.stages(tags)
    grid = not stages or schema.GRID in ([stages[sweep]] if sweep else stages.values())
    row = {
        "run_id": run.info.run_id,
        "name": run.info.run_name,
        "status": run.info.status,
        "outcome": tags.get(schema.STATUS, ""),
        "reason": tags.get(schema.REASON, ""),
        "key": tags.get(schema.KEY, ""),
        "recipe": tags.get(schema.RECIPE, ""),
        "parent": tags.get(schema.PARENT, ""),
        "sweeps": stages,
        "stage": schema.GRID if grid else schema.CONFIRMATION,
        "device": tags.get(schema.DEVICE, ""),
        "engine": tags.get(schema.ENGINE, ""),
        "ended": run.info.end_time or 0,
        "artifacts": run.info.artifact_uri,
        "method": method(params.get("regularizer", ""), params.get("scope", "")),
        "regularizer": params.get("regularizer", ""),
        "scope": params.get("scope", ""),
        "lam": _number(run, "lam", float, "nan"),
        "seed": _number(run, "seed", int, "-1"),
    }
    # sorted, since each store has an order of its own
    return row | {name: value for name, value in sorted(run.data.metrics.items()) if name not in row}


def _fresh(sweeps: list[Run], rows: pd.DataFrame, recipe: str) -> dict[str, Any]:
    """Return what the runs of sweeps, oldest first, hold of a recipe's fresh seeds, by the fields of `Runs`.

    A sweep of one recipe has chosen {method: lam}, one of several {recipe id: {method: lam}}.
    """
    confirm: set[int] = set()
    looks: tuple[int, ...] = ()
    single = True  # whether all were to be judged once, after all of their fresh seeds
    rates = ""
    choice: dict[str, float] = {}
    chosen_on: dict[str, frozenset[int]] = {}
    for run in sweeps:
        tags = run.data.tags
        rates = tags.get(schema.RATES, "")
        try:
            if schema.CONFIRM in tags:
                own = parse_seeds(tags[schema.CONFIRM])
                looks = tuple(map(int, tags[schema.LOOKS].split(",")))
                confirm |= set(own)
                single &= looks == (len(own),)
            chosen = json.loads(tags.get(schema.CHOICE, "{}"))
            if any(isinstance(value, dict) for value in chosen.values()):
                chosen = chosen.get(recipe, {})
            chosen = {name: float(lam) for name, lam in chosen.items()}
        except (KeyError, ValueError, TypeError, AttributeError) as error:
            raise UserError(
                f"the tags {schema.CONFIRM}, {schema.LOOKS} or {schema.CHOICE} of run {run.info.run_id} are not as "
                f"regbench has written them ({one_line(error)}): restore them, or delete the run"
            ) from error
        if chosen:
            grid = rows["sweeps"].map(lambda stages, id=tags[schema.SWEEP]: stages.get(id) == schema.GRID)
            choice |= chosen
            chosen_on |= dict.fromkeys(chosen, frozenset(rows.loc[grid, "seed"]))
    if confirm and single:  # of lists that were shared out: what they have together is judged once too
        looks = (len(confirm),)
    return {"confirm": tuple(sorted(confirm)), "looks": looks, "rates": rates, "choice": choice, "chosen_on": chosen_on}


def _number(run: Run, name: str, kind: type, missing: str) -> float | int:
    text = run.data.params.get(name, missing)
    try:
        return kind(text)
    except ValueError as error:
        raise UserError(
            f"run {run.info.run_id} has {name}={text!r}, which is not a number: it is not a trial of regbench; "
            "delete it, or leave it out with filter"
        ) from error


def _recipes(runs: Iterable[Run]) -> dict[str, dict[str, str]]:
    """Return recipe id -> its parameters and the data's fingerprint."""
    found: dict[str, dict[str, str]] = {}
    # of runs of earlier versions, which had not these options
    unsaid = {name: str(value) for name, value in NEUTRAL.items()}
    for run in runs:
        params = unsaid | {name: value for name, value in run.data.params.items() if name not in OWN}
        data = {item.dataset.digest for item in run.inputs.dataset_inputs} if run.inputs else set()
        found.setdefault(run.data.tags.get(schema.RECIPE, ""), params | {"data": ", ".join(sorted(data))})
    return found


def _environment(parents: list[Run]) -> dict[str, tuple[str, ...]]:
    shown = ("env.", "git.", schema.DEVICE, schema.ENGINE, schema.VERSION, schema.FINGERPRINT)
    found: dict[str, set[str]] = {}
    for run in parents:
        for name, value in run.data.tags.items():
            if name.startswith(shown):
                found.setdefault(name, set()).add(value)
    return {name: tuple(sorted(values)) for name, values in sorted(found.items())}


def _names(store: Store) -> str:
    if store.empty:
        return "none, the store is empty"
    return ", ".join(json.dumps(found.name) for found in store.client.search_experiments())
