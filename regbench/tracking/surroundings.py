"""What MLflow's environment variables ask for: the run that `mlflow run` has started, and the experiment."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from regbench.errors import UserError
from regbench.tracking import schema

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

# of each entry point of MLproject some parameters, which `mlflow run` logs for it
ENTRY_POINTS = ({"dataset", "data_dir", "dry_run"}, {"sweep", "recipe", "out"})
UNKNOWN = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")  # what a store says of an id that is none


def find_run(client: MlflowClient | None, run_id: str, uri: str) -> Run:
    """Return the run that MLFLOW_RUN_ID names; raises UserError if there is none, or it is deleted.

    `client` None means a store that holds nothing yet.
    """
    from mlflow.exceptions import MlflowException

    try:
        run = client.get_run(run_id) if client else None
    except MlflowException as error:
        if error.error_code not in UNKNOWN:
            raise
        run = None
    if run is None or run.info.lifecycle_stage != "active":
        what = "no run of" if run is None else "a run that is deleted in"
        raise UserError(f"MLFLOW_RUN_ID={run_id!r} is {what} {uri}: unset MLFLOW_RUN_ID{_whole_path()}")
    return run


def _whole_path() -> str:
    """Return what else may help: of a relative address `mlflow run` and the command it starts mean different files."""
    given = os.environ.get("MLFLOW_TRACKING_URI", "").strip()
    if not re.match(r"sqlite(\+\w+)?:///(?!/)", given, re.IGNORECASE):
        return ""
    return (
        f"; or, since `mlflow run` starts a command in the project's folder, give MLFLOW_TRACKING_URI={given!r} with its "
        "whole path, as in sqlite:////home/me/mlflow.db"
    )


def is_launcher(run: Run) -> bool:
    """Tell whether `mlflow run` has started the run for this command: any other is somebody else's."""
    tags, params = run.data.tags, set(run.data.params)
    return (
        run.info.status == "RUNNING"
        and tags.get("mlflow.source.type") == "PROJECT"
        and any(names <= params for names in ENTRY_POINTS)
        and schema.KIND not in tags  # of an earlier command
    )


def has_own_name(run: Run) -> bool:
    """Tell whether the user has named the run, as by `mlflow run --run-name`, and not MLflow: wise-owl-123."""
    from mlflow.utils.name_utils import _GENERATOR_NOUNS, _GENERATOR_PREDICATES

    predicate, _, rest = (run.info.run_name or "").partition("-")
    noun, _, number = rest.rpartition("-")
    made = predicate in _lower(_GENERATOR_PREDICATES) and noun in _lower(_GENERATOR_NOUNS) and number.isdigit()
    return bool(run.info.run_name) and not made


def _lower(words: list[str]) -> set[str]:
    return {word.lower() for word in words}


def experiment_id() -> str:
    """Return MLFLOW_EXPERIMENT_ID, "" if it is not set."""
    return os.environ.get("MLFLOW_EXPERIMENT_ID", "").strip()


def experiment_name() -> str | None:
    """Return MLFLOW_EXPERIMENT_NAME, None if it is not set."""
    return os.environ.get("MLFLOW_EXPERIMENT_NAME") or None


def experiment_by_id(client: MlflowClient | None, uri: str) -> str:
    """Return the name of the experiment of MLFLOW_EXPERIMENT_ID; `client` None means a store that holds nothing yet.

    Raises UserError if there is none, or if MLFLOW_EXPERIMENT_NAME names another.
    """
    from mlflow.exceptions import MlflowException

    given, name = experiment_id(), experiment_name()
    try:
        found = client.get_experiment(given).name if client else {"0": "Default"}.get(given)
    except MlflowException as error:
        if error.error_code not in UNKNOWN:
            raise
        found = None
    told = f"MLFLOW_EXPERIMENT_ID={given!r}"
    if found is None:
        raise UserError(f"{told} is no experiment of {uri}: unset it, or name the experiment by experiment=<name>")
    if name not in (None, found):
        raise UserError(
            f"{told} is the experiment {found!r}, but MLFLOW_EXPERIMENT_NAME={name!r}: unset one of the two"
        )
    return found
