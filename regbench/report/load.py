"""Runs of a tracking store -> tidy frames: a row per trial, a row per trial and epoch."""

import json
import logging
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.utils.search_utils import SearchUtils

from regbench.errors import UserError, one_line
from regbench.sweep import BASELINE
from regbench.tracking import schema
from regbench.tracking.store import Store, counted

log = logging.getLogger(__name__)
# what a row per epoch holds; each costs a query, or one per run where the store has no bulk query
CURVES = ("train/loss", "val/loss", "train/accuracy", "val/accuracy")
# parameters of a trial that are not part of its recipe
OWN = ("regularizer", "lam", "seed", "scope")


@dataclass(frozen=True)
class Runs:
    """What is known of an experiment's trials.

    trials: a row per finished trial (run_id, method, regularizer, lam, seed, outcome, device, ended (ms), artifacts
    (their address), and every final metric under its own name). others: a row per run that is no finished trial
    (name, status, reason).
    recipe: parameter -> text, the same for all trials. environment: tag -> texts, of the sweeps' own runs.
    """

    experiment: str
    trials: pd.DataFrame
    others: pd.DataFrame
    recipe: dict[str, str]
    environment: dict[str, tuple[str, ...]]
    sweeps: tuple[str, ...]  # run ids of the sweeps' own runs, oldest first
    foreign: int = 0  # runs of the experiment that regbench did not make
    outdated: int = 0  # trials left out for a newer one of the same method, lam and seed, trained with other code


def load(store: Store, sweep: str = "", condition: str = "", recipe: str = "") -> Runs:
    """Return the trials of the store's experiment, of one `sweep` (its id) or of those that meet an MLflow filter.

    Raises UserError if there are none, or if they are of several recipes and `recipe` (its id) does not choose one.
    """
    if store.experiment_id is None:
        raise UserError(f"there is no experiment {store.experiment!r} in {store.uri}; accepted: {_names(store)}")
    _check_filter(condition)
    every = store.search("")
    found = [run for run in every if run.data.tags.get(schema.KIND) == "trial"]
    if condition:
        found = store.search(f"tags.`{schema.KIND}` = 'trial' and {condition}")
    if sweep:
        found = [run for run in found if sweep in schema.sweeps(run.data.tags)]
    if not found:
        asked = " that meets what was asked for" if sweep or condition else ""
        raise UserError(
            f"the experiment {store.experiment!r} in {store.uri} holds no trial{asked} ({len(every)} runs in all); "
            "train some with mlflow run, or choose another experiment, sweep or filter"
        )
    rows = pd.DataFrame([_row(run) for run in found])
    if recipe:
        rows = rows[rows["recipe"] == recipe]
        if rows.empty:
            raise UserError(f"recipe={recipe!r} is that of no trial; accepted: {', '.join(sorted(_recipes(found)))}")
    trials = rows[rows["run_id"].isin({run.info.run_id for run in counted(found).values()})]
    # trained again since the code has changed, by a sweep that found no trial with its key: the newest counts
    newest_last = trials.sort_values(["ended", "run_id"])
    outdated = newest_last.duplicated(["recipe", "method", "lam", "seed"], keep="last")
    trials = trials[~outdated.reindex(trials.index)].reset_index(drop=True)
    _refuse_mixed(trials, found)
    recipes = _recipes(found)
    chosen = recipes[trials["recipe"].iloc[0]] if len(trials) else next(iter(recipes.values()))
    others = rows[(rows["status"] != "FINISHED") & ~rows["key"].isin(set(trials["key"]))]
    others = others[["name", "status", "outcome", "reason"]].reset_index(drop=True)
    parent_ids = set(rows["parent"])
    parents = [run for run in every if run.info.run_id in parent_ids]
    return Runs(
        store.experiment,
        trials.drop(columns=["status", "reason"]),
        others,
        chosen,
        _environment(parents),
        tuple(run.info.run_id for run in parents),
        sum(schema.KIND not in run.data.tags for run in every),
        int(outdated.sum()),
    )


def epochs(store: Store, trials: pd.DataFrame) -> pd.DataFrame:
    """Return a row per trial and epoch: run_id, method, lam, seed, epoch and the metrics of CURVES."""
    run_ids = trials["run_id"].tolist()
    points = [(run_id, step, name, value) for name in CURVES for run_id, step, value in store.histories(run_ids, name)]
    if not points:
        return pd.DataFrame(columns=["run_id", "method", "lam", "seed", "epoch", *CURVES])
    long = pd.DataFrame(points, columns=["run_id", "epoch", "name", "value"])
    # a point that was written twice (a server that answered too late, and was asked again) counts once
    wide = long.drop_duplicates(["run_id", "epoch", "name"]).pivot(
        index=["run_id", "epoch"], columns="name", values="value"
    )
    known = trials[["run_id", "method", "lam", "seed"]].assign(place=range(len(trials)))
    rows = known.merge(wide.reindex(columns=CURVES).reset_index(), on="run_id").sort_values(["place", "epoch"])
    return rows[["run_id", "method", "lam", "seed", "epoch", *CURVES]].reset_index(drop=True)


def layers(store: Store, trials: pd.DataFrame, missing: list[str] | None = None) -> pd.DataFrame:
    """Return a row per trial and layer from the runs' layers.csv; trials without one are left out, and put in `missing`."""
    missing = [] if missing is None else missing
    tables = []
    for trial in trials.itertuples():
        path = artifact(store, trial.artifacts, "weights/layers.csv", missing)
        try:
            table = pd.read_csv(path) if path is not None else pd.DataFrame()
        except (OSError, ValueError) as error:
            log.warning("%s is left out: it is damaged (%s)", path, one_line(error))
            missing.append(str(path))
            continue
        if not table.empty:
            tables.append(table.assign(method=trial.method, lam=trial.lam, seed=trial.seed))
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()


def artifact(store: Store, root: str, path: str, missing: list[str]) -> Path | None:
    """Return a local copy of the artifact `path` below a run's `root`; None if it is gone, which `missing` gets then."""
    try:
        # by the address, since asking by the run's id takes a server three requests more; and by its two parts, since a
        # folder's name may hold what an address gives a meaning to
        return Path(get_artifact_repository(root, tracking_uri=store.uri).download_artifacts(path))
    except (MlflowException, OSError):
        missing.append(f"{root.rstrip('/')}/{path}")
        return None


def method(regularizer: str, scope: str) -> str:
    """Return the name under which a regularizer is compared: with its scope unless that is the default."""
    return regularizer if scope in ("weights", "") or regularizer == BASELINE else f"{regularizer} scope={scope}"


def _check_filter(condition: str) -> None:
    try:
        SearchUtils.parse_search_filter(condition)
    except MlflowException as error:
        raise UserError(
            f"filter={condition!r} is no MLflow filter ({one_line(error)[:160]}); accepted: comparisons joined by `and`, "
            "as in params.regularizer != 'l1'"
        ) from error


def _row(run: Run) -> dict[str, object]:
    tags, params = run.data.tags, run.data.params
    row = {
        "run_id": run.info.run_id,
        "name": run.info.run_name,
        "status": run.info.status,
        "outcome": tags.get(schema.STATUS, ""),
        "reason": tags.get(schema.REASON, ""),
        "key": tags.get(schema.KEY, ""),
        "recipe": tags.get(schema.RECIPE, ""),
        "parent": tags.get(schema.PARENT, ""),
        "device": tags.get("regbench.device", ""),
        "engine": tags.get("regbench.engine", ""),
        "ended": run.info.end_time or 0,
        "artifacts": run.info.artifact_uri,
        "method": method(params.get("regularizer", ""), params.get("scope", "")),
        "regularizer": params.get("regularizer", ""),
        "lam": _number(run, "lam", float, "nan"),
        "seed": _number(run, "seed", int, "-1"),
    }
    return row | {name: value for name, value in run.data.metrics.items() if name not in row}


def _number(run: Run, name: str, kind: type, missing: str) -> float | int:
    text = run.data.params.get(name, missing)
    try:
        return kind(text)
    except ValueError as error:
        raise UserError(
            f"run {run.info.run_id} has {name}={text!r}, which is no number: it is no trial of regbench; delete it, or "
            f"leave it out with filter"
        ) from error


def _recipes(runs: Iterable[Run]) -> dict[str, dict[str, str]]:
    """Return recipe id -> its parameters and the data's fingerprint."""
    found: dict[str, dict[str, str]] = {}
    for run in runs:
        params = {name: value for name, value in run.data.params.items() if name not in OWN}
        data = {item.dataset.digest for item in run.inputs.dataset_inputs} if run.inputs else set()
        found.setdefault(run.data.tags.get(schema.RECIPE, ""), params | {"data": ", ".join(sorted(data))})
    return found


def _refuse_mixed(trials: pd.DataFrame, runs: list[Run]) -> None:
    recipes = {name: params for name, params in _recipes(runs).items() if name in set(trials["recipe"])}
    if len(recipes) < 2:
        return
    names = sorted({name for params in recipes.values() for name in params})
    differing = {name: sorted({params.get(name, "") for params in recipes.values()}) for name in names}
    told = "; ".join(f"{name}: {', '.join(values)}" for name, values in differing.items() if len(values) > 1)
    raise UserError(
        f"the trials are of {len(recipes)} recipes and cannot be pooled; they differ in {told}; "
        f"choose one with recipe=<id>: {', '.join(sorted(recipes))}"
    )


def _environment(parents: list[Run]) -> dict[str, tuple[str, ...]]:
    shown = ("env.", "git.", "regbench.device", "regbench.engine", "regbench.version", "regbench.fingerprint")
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
