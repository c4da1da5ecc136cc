"""An experiment of the MLflow tracking store: checks that it can be written, finds it, searches its runs."""

from __future__ import annotations

import logging
import os
import shlex
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

from regbench.errors import UserError, one_line
from regbench.tracking import artifact_location, database, launcher, schema, settings
from regbench.tracking.outbox import Outbox

if TYPE_CHECKING:  # MLflow takes two seconds to import: functions import it, since a new store is empty without it
    from mlflow import MlflowClient
    from mlflow.entities import Run

DEFAULT_URI = "sqlite:///mlflow.db"
DEFAULT_EXPERIMENT = "regbench"
PAGE = 1000
MAX_NAME = 500  # characters of an experiment's name
WORDS = ("databricks", "databricks-uc", "uc")  # addresses that look like a folder's name
# beginnings of databases' addresses; their clients, and no server, write the files of runs
DATABASES = ("sqlite", "postgresql", "mysql", "mssql")


class Store:
    """One experiment of a tracking store. Nothing is written, nor a database file created, before `create`."""

    def __init__(self, experiment: str | None = None, write: bool = True) -> None:
        """Check the store that MLFLOW_TRACKING_URI names; `experiment` None means the one that the environment names.

        `notice` is a message about the environment, or "". `write` False is for reading only. Raises UserError if the
        store cannot be reached or written, is another program's, or if the experiment is deleted.
        """
        given = os.environ.get("MLFLOW_TRACKING_URI", "").strip() or DEFAULT_URI
        self._write, self.notice = write, ""
        self._file = database.file(given) if database.is_sqlite(given) else None
        # absolute, since MLflow keeps a connection per address: a relative path would go on meaning the first folder
        self.uri = given if self._file is None else database.address(self._file)
        if given.startswith("http"):
            self.uri = given.rstrip("/")
        elif ":" not in given and given not in WORDS:
            self.uri = str(Path(given).resolve())
        settings.check()
        if self._is_database:
            database.check_installed()
        self.empty = self._is_empty()
        # popped, since MLflow's own functions would use it for any new run
        self.launcher = self._find_launcher(os.environ.pop("MLFLOW_RUN_ID", None))
        if experiment is None:
            experiment = self._experiment_of_environment()
        self.chosen = experiment is not None
        self.experiment = DEFAULT_EXPERIMENT if experiment is None else experiment
        _check_name(self.experiment)
        self._location = ""  # the address of the experiment's files
        self.experiment_id = None if self.empty else self._find()

    @contextmanager
    def reporting(self) -> Iterator[None]:
        """Turn MLflow's errors into a UserError, after one retry instead of minutes of them."""
        from mlflow.exceptions import MlflowException
        from sqlalchemy.exc import SQLAlchemyError  # for a database's address, or a driver that is not installed

        # the user may have set other values for a slow server
        limits = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "20"}
        try:
            with settings.override({name: os.environ.get(name, value) for name, value in limits.items()}):
                yield
        except (MlflowException, SQLAlchemyError, ImportError, OSError, ValueError) as error:
            text = one_line(error)
            raise UserError(f"the tracking store {self.uri} does not work ({text[:160]}): {database.FIX}") from error

    @property
    def _is_database(self) -> bool:
        return self.uri.startswith(DATABASES)

    def _is_empty(self) -> bool:
        if self._file is not None:
            return database.is_empty(self._file, self._write)
        if self._is_database:
            with self.reporting():
                database.check_remote(self.uri)
        return False

    def refresh(self) -> None:
        """Look again for the database and the experiment, which another process may have created meanwhile."""
        self.empty = self._is_empty()
        if self.experiment_id is None and not self.empty:
            self.experiment_id = self._find()

    @cached_property
    def client(self) -> MlflowClient:
        from mlflow import MlflowClient

        _quiet()
        if self._file is not None and not self.empty:
            database.check_schema(self._file)
        return MlflowClient(self.uri)

    @cached_property
    def outbox(self) -> Outbox:
        """The results on disk that wait for this experiment."""
        return Outbox(self.uri, self.experiment)

    def create(self) -> str:
        """Return the experiment's id, created if it does not exist."""
        if self.experiment_id is None:
            # another process may have created it meanwhile, or create it now
            self.experiment_id = self._find() or self._create() or self._find()
        return self.experiment_id

    def _create(self) -> str | None:
        from mlflow.exceptions import MlflowException

        try:
            location = artifact_location.for_new() if self._is_database else None
            return self.client.create_experiment(self.experiment, location)
        except MlflowException as error:
            if error.error_code == "RESOURCE_ALREADY_EXISTS":
                return None
            raise

    def fingerprints(self) -> dict[str, set[str]]:
        """Return data set's name -> fingerprints of the data under that name in the experiment's sweeps."""
        found: dict[str, set[str]] = {}
        for run in self.search(schema.where(schema.KIND, "sweep")):
            tags = run.data.tags
            if schema.DATASET in tags and schema.FINGERPRINT in tags:
                found.setdefault(tags[schema.DATASET], set()).add(tags[schema.FINGERPRINT])
        return found

    def search(self, condition: str) -> list[Run]:
        """Return all runs of the experiment that meet `condition`, oldest first, in the same order in every store."""
        if self.experiment_id is None:
            return []
        with self.reporting():
            search = partial(self.client.search_runs, [self.experiment_id], condition)
            runs: list[Run] = list(_pages(partial(search, max_results=PAGE, order_by=["start_time ASC"])))
        if len({run.info.run_id for run in runs}) != len(runs):
            raise UserError(f"the store {self.uri} changed while its runs were listed; run the command again")
        return sorted(runs, key=lambda run: (run.info.start_time, schema.token(run)))

    def histories(self, run_ids: Sequence[str], name: str) -> Iterator[tuple[str, int, float]]:
        """Yield (run id, step, value) for every point of the metric `name` of these runs, by a request or more for each."""
        with self.reporting():
            for run_id in run_ids:
                for metric in self.client.get_metric_history(run_id, name):
                    yield run_id, metric.step, metric.value

    def check_files(self) -> None:
        """Raise UserError if the files of the experiment, or of a new one, cannot be written."""
        if self.experiment_id is None:
            if self._is_database:
                artifact_location.check_new(self.experiment)
        else:
            with self.reporting():
                used = self._holds_trials(self.experiment_id, finished=True)
                artifact_location.check_existing(self.experiment, self._location, used)

    @property
    def files(self) -> str:
        """The folder of the experiment's files where percent codes in its path have MLflow's pages show another, or ""."""
        folder = artifact_location.local_folder(self._location) if self._location else None
        return str(folder) if folder and "://" not in self._location and str(folder) != self._location else ""

    def choose_one_with_trials(self) -> None:
        """Use the only experiment that holds trials unless one was chosen; raises UserError if several hold trials."""
        if self.empty or (self.chosen and not self.launcher):
            return
        if self.launcher and self.experiment_id and self._holds_trials(self.experiment_id):
            return
        with self.reporting():
            names = {found.experiment_id: found.name for found in _pages(self.client.search_experiments)}
            holding = [name for experiment_id, name in names.items() if self._holds_trials(experiment_id)]
        if len(holding) > 1:
            listed = ", ".join(repr(name) for name in sorted(holding))
            raise UserError(f"several experiments of {self.uri} hold trials: choose one by experiment=<name>: {listed}")
        if holding:
            self.experiment = holding[0]
            self.experiment_id = self._find()

    def _holds_trials(self, experiment_id: str, finished: bool = False) -> bool:
        condition = schema.where(schema.KIND, "trial") + (" and attributes.status = 'FINISHED'" if finished else "")
        return bool(self.client.search_runs([experiment_id], condition, max_results=1))

    def attach(self, run_id: str, folder: Path, names: Sequence[str], artifact_path: str) -> None:
        """Make the files `names` in `folder` artifacts of a run, below `artifact_path`."""
        with self.reporting():
            for name in names:
                self.client.log_artifact(run_id, str(folder / name), (Path(artifact_path) / name).parent.as_posix())

    def change_note(self, run_id: str, change: Callable[[str], str]) -> None:
        """Make of a run's description what `change` makes of it."""
        with self.reporting():
            note = self.client.get_run(run_id).data.tags.get(schema.NOTE, "")
            if (changed := change(note)) != note:
                self.client.set_tag(run_id, schema.NOTE, changed)

    def name_launcher(self, kind: str) -> None:
        """Name the run that `mlflow run` started by the `kind` of a command that is not a sweep, and tag it so."""
        if self.launcher:
            with self.reporting():
                run = self.client.get_run(self.launcher)
                self.client.set_tag(self.launcher, schema.KIND, kind)
                if not launcher.has_own_name(run):
                    self.client.update_run(self.launcher, name=kind.replace("_", " "))

    def _find_launcher(self, run_id: str | None) -> str | None:
        """Return `run_id`, that of MLFLOW_RUN_ID, if `mlflow run` has started the run for this command, else None."""
        if not run_id:
            return None
        with self.reporting():
            run = launcher.find_run(None if self.empty else self.client, run_id, self.uri)
        if launcher.is_launcher(run):
            return run_id
        self.notice = (
            f"MLFLOW_RUN_ID names the run {run.info.run_name!r}, which `mlflow run` has not started for this command: it "
            "is left alone"
        )
        return None

    def _experiment_of_environment(self) -> str | None:
        """Return the name of the experiment of the run of `mlflow run`, or else of the environment's variables."""
        if self.launcher:
            with self.reporting():
                return self.client.get_experiment(self.client.get_run(self.launcher).info.experiment_id).name
        if not launcher.experiment_id():  # without importing MLflow
            return launcher.experiment_name()
        with self.reporting():
            return launcher.experiment_by_id(None if self.empty else self.client, self.uri)

    def _find(self) -> str | None:
        with self.reporting():
            found = self.client.get_experiment_by_name(self.experiment)
            if found is None and self.experiment.isdecimal():  # an id, as MLflow's pages and commands show
                every = _pages(self.client.search_experiments)
                found = next((one for one in every if one.experiment_id == self.experiment), None)
        if found is None:
            return None
        if found.lifecycle_stage != "active":
            raise UserError(
                f"experiment={self.experiment!r} is deleted in {self.uri}: choose another name, or bring it back with "
                f"MLFLOW_TRACKING_URI={shlex.quote(self.uri)} mlflow experiments restore -x {found.experiment_id}"
            )
        self.experiment, self._location = found.name, found.artifact_location
        return found.experiment_id


def _pages(search: Callable) -> Iterator:
    """Yield all that one of MLflow's searches finds, page by page."""
    page = search()
    yield from page
    while page.token:
        page = search(page_token=page.token)
        yield from page


def _check_name(experiment: str) -> None:
    """Raise UserError for a name that MLflow refuses, which it would do only after creating the database."""
    if not experiment.strip() or not experiment.isprintable() or len(experiment) > MAX_NAME:
        raise UserError(
            f"experiment={experiment[:80]!r} is not a name; accepted: 1 to {MAX_NAME} characters that can be printed"
        )


def _quiet() -> None:
    """Silence messages about the database's creation; to be called after MLflow's import, which sets levels too."""
    for name in ("alembic", "mlflow.tracking"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # failures of the database raise errors too, which are reported in one line
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
