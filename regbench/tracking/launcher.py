"""The run that `mlflow run` has started for this command, and the experiment that the environment names."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from regbench.errors import UserError
from regbench.tracking import schema

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

# some parameters of each entry point of MLproject, which `mlflow run` logs
ENTRY_POINTS = ({"dataset", "data_dir", "dry_run"}, {"sweep", "recipe", "out"})
UNKNOWN = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")  # a store's errors for an unknown id
T = TypeVar("T")


def find_run(client: MlflowClient | None, run_id: str, uri: str) -> Run:
    """Return the run that MLFLOW_RUN_ID names; `client` None means an empty store.

    Raises UserError if there is no such run, or it is deleted.
    """
    run = _unless_unknown(lambda: client.get_run(run_id)) if client else None
    if run is None or run.info.lifecycle_stage != "active":
        what = "not a run of" if run is None else "a run that is deleted in"
        raise UserError(f"MLFLOW_RUN_ID={run_id!r} is {what} {uri}: unset MLFLOW_RUN_ID{_absolute_path_hint()}")
    return run


def _unless_unknown(find: Callable[[], T]) -> T | None:
    """Return what `find` looks up by an id, None if the store does not know the id."""
    from mlflow.exceptions import MlflowException

    try:
        return find()
    except MlflowException as error:
        if error.error_code in UNKNOWN:
            return None
        raise


def _absolute_path_hint() -> str:
    """Return advice for a relative address, which `mlflow run` and the command it starts resolve differently."""
    given = os.environ.get("MLFLOW_TRACKING_URI", "").strip()
    if not re.match(r"sqlite(\+\w+)?:///(?!/)", given, re.IGNORECASE):
        return ""
    return (
        f"; or, since `mlflow run` starts a command in the project's folder, give MLFLOW_TRACKING_URI={given!r} with its "
        "whole path, as in sqlite:////home/me/mlflow.db"
    )


def is_launcher(run: Run) -> bool:
    """Return whether `mlflow run` has started the run for this command; any other run is left alone."""
    tags, params = run.data.tags, set(run.data.params)
    return (
        run.info.status == "RUNNING"
        and tags.get("mlflow.source.type") == "PROJECT"
        and any(names <= params for names in ENTRY_POINTS)
        and schema.KIND not in tags  # else an earlier command's
    )


def has_own_name(run: Run) -> bool:
    """Return whether the user has named the run, as by `mlflow run --run-name`; MLflow's names are like wise-owl-123."""
    from mlflow.utils.name_utils import _GENERATOR_NOUNS, _GENERATOR_PREDICATES

    predicates, nouns = ({word.lower() for word in words} for words in (_GENERATOR_PREDICATES, _GENERATOR_NOUNS))
    predicate, _, rest = (run.info.run_name or "").partition("-")
    noun, _, number = rest.rpartition("-")
    generated = predicate in predicates and noun in nouns and number.isdigit()
    return bool(run.info.run_name) and not generated


def experiment_id() -> str:
    """Return MLFLOW_EXPERIMENT_ID, "" if it is not set."""
    return os.environ.get("MLFLOW_EXPERIMENT_ID", "").strip()


def experiment_name() -> str | None:
    """Return MLFLOW_EXPERIMENT_NAME, None if it is not set."""
    return os.environ.get("MLFLOW_EXPERIMENT_NAME") or None


def experiment_by_id(client: MlflowClient | None, uri: str) -> str:
    """Return the name of the experiment of MLFLOW_EXPERIMENT_ID; `client` None means an empty store.

    Raises UserError if there is no such experiment, or if MLFLOW_EXPERIMENT_NAME names another.
    """
    given, name = experiment_id(), experiment_name()
    found = _unless_unknown(lambda: client.get_experiment(given).name) if client else {"0": "Default"}.get(given)
    setting = f"MLFLOW_EXPERIMENT_ID={given!r}"
    if found is None:
        raise UserError(f"{setting} is not an experiment of {uri}: unset it, or choose one by experiment=<name>")
    if name not in (None, found):
        raise UserError(
            f"{setting} is the experiment {found!r}, but MLFLOW_EXPERIMENT_NAME={name!r}: unset one of the two"
        )
    return found
