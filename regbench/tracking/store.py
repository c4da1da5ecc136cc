"""The MLflow tracking store: opened after a check that it can be written, searched page by page."""

from __future__ import annotations

import json
import logging
import os
import shlex
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

from regbench.errors import UserError, one_line
from regbench.sweep import Recipe, Trial
from regbench.tracking import database, history, places, process, schema, settings, surroundings
from regbench.tracking.outbox import Outbox

if TYPE_CHECKING:  # MLflow takes two seconds to import: the functions do it, since a new store is empty without it
    from mlflow import MlflowClient
    from mlflow.entities import Run

DEFAULT_URI = "sqlite:///mlflow.db"
DEFAULT_EXPERIMENT = "regbench"
PAGE = 1000
SILENT = 600_000  # ms
MAX_NAME = 500  # characters of an experiment's name
WORDS = ("databricks", "databricks-uc", "uc")  # addresses that look like a folder's name
# addresses of databases, whose client puts the files of runs where it is itself told to
DATABASES = ("sqlite", "postgresql", "mysql", "mssql")


@dataclass(frozen=True)
class FinishedTrial:
    """A trial's run that ended: `status` is ok, diverged or collapsed; `parent` the sweep's run it is listed under."""

    run_id: str
    status: str
    metrics: dict[str, float]
    parent: str
    sweeps: frozenset[str]


class Store:
    """One experiment of a tracking store. Nothing is written, nor a database file made, before `create`."""

    def __init__(self, experiment: str | None = None, write: bool = True) -> None:
        """Check the store that MLFLOW_TRACKING_URI names; `experiment` None means what the surroundings ask for.

        `notice` is what is to be told of them, if anything. `write` False is for what reads only. Raises UserError if the
        store cannot be reached or written, is another program's, or if the experiment is deleted.
        """
        given = os.environ.get("MLFLOW_TRACKING_URI", "").strip() or DEFAULT_URI
        self._write, self.notice = write, ""
        self._file = database.file(given) if database.is_sqlite(given) else None
        # absolute: MLflow keeps one connection per address, and a relative path would go on meaning the first folder
        self.uri = given if self._file is None else database.address(self._file)
        if given.startswith("http"):
            self.uri = given.rstrip("/")
        elif ":" not in given and given not in WORDS:
            self.uri = str(Path(given).resolve())
        settings.check()
        if self._is_database:
            database.check_installed()
        self.empty = self._is_empty()
        # popped, since MLflow's own functions would take any new run for this one
        self.launcher = self._launched_by(os.environ.pop("MLFLOW_RUN_ID", None))
        surrounding = self._surrounding() if experiment is None else None
        self.chosen = experiment is not None or surrounding is not None
        self.experiment = experiment if experiment is not None else surrounding or DEFAULT_EXPERIMENT
        _check_name(self.experiment)
        self._location = ""  # where the experiment keeps its files
        self.experiment_id = None if self.empty else self._find()

    def _is_empty(self) -> bool:
        if self._file is not None:
            return database.is_empty(self._file, self._write)
        if self.uri.startswith(DATABASES):
            with _reported(self.uri):
                database.check_remote(self.uri)
        return False

    def look_again(self) -> None:
        """See what another process may have made since the store was opened: the database, the experiment."""
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
        """Where results wait for this experiment."""
        return Outbox(self.uri, self.experiment)

    def create(self) -> str:
        """Return the experiment's id, made if it is not there yet."""
        if self.experiment_id is None:
            # another process may have made it meanwhile, or make it now
            self.experiment_id = self._find() or self._make() or self._find()
        return self.experiment_id

    def _make(self) -> str | None:
        from mlflow.exceptions import MlflowException

        try:
            return self.client.create_experiment(self.experiment, places.new() if self._is_database else None)
        except MlflowException as error:
            if error.error_code == "RESOURCE_ALREADY_EXISTS":
                return None
            raise

    def finished(self, recipes: Iterable[Recipe]) -> dict[str, FinishedTrial]:
        """Return trial key -> run of all trials of `recipes` that ended and were not trained again on request."""
        return self._finished(schema.RECIPE, (recipe.id for recipe in recipes))

    def finished_of(self, trials: Iterable[Trial]) -> dict[str, FinishedTrial]:
        """Return of these trials what `finished` would, by a search for each, however many are finished."""
        return self._finished(schema.KEY, (trial.key for trial in trials))

    def _finished(self, tag: str, values: Iterable[str]) -> dict[str, FinishedTrial]:
        runs = [
            run
            for value in values
            for run in self.search(f"attributes.status = 'FINISHED' and tags.`{tag}` = '{value}'")
        ]
        return {key: _finished(run) for key, run in counted(runs).items()}

    def fingerprints(self) -> dict[str, set[str]]:
        """Return a data set's name -> the fingerprints of what sweeps of the experiment were trained on."""
        found: dict[str, set[str]] = {}
        for run in self.search(f"tags.`{schema.KIND}` = 'sweep'"):
            tags = run.data.tags
            if schema.DATASET in tags and schema.FINGERPRINT in tags:
                found.setdefault(tags[schema.DATASET], set()).add(tags[schema.FINGERPRINT])
        return found

    def search(self, condition: str) -> list[Run]:
        """Return all runs of the experiment that meet `condition`, oldest first, however many pages they fill."""
        if self.experiment_id is None:
            return []
        with _reported(self.uri):
            search = partial(self.client.search_runs, [self.experiment_id], condition)
            runs: list[Run] = list(_pages(partial(search, max_results=PAGE, order_by=["start_time ASC"])))
        if len({run.info.run_id for run in runs}) != len(runs):
            raise UserError(f"the store {self.uri} changed while its runs were listed; run the command again")
        return runs

    def histories(self, run_ids: Sequence[str], name: str) -> Iterator[tuple[str, int, float]]:
        """Give (run id, step, value) for every point of the metric `name` of these runs."""
        with _reported(self.uri):
            yield from history.points(self.client, run_ids, name)

    @property
    def _is_database(self) -> bool:
        return self.uri.startswith(DATABASES)

    def check_files(self) -> None:
        """Raise UserError if the experiment's files cannot be put where it keeps them, or would be if it were made."""
        if self.experiment_id is None:
            if self._is_database:
                places.check_new(self.experiment)
        else:
            with _reported(self.uri):
                places.check(self.experiment, self._location, self._holds_trials(self.experiment_id, finished=True))

    @property
    def files(self) -> str:
        """Where the experiment keeps its files, if not where MLflow's pages say: its folder's name has percent codes."""
        place = places.local(self._location) if self._location else None
        return str(place) if place and "://" not in self._location and str(place) != self._location else ""

    def choose_one_with_trials(self) -> None:
        """Where nothing chose the experiment, take the only one that holds trials; raises UserError if several do."""
        if self.empty or (self.chosen and not self.launcher):
            return
        if self.launcher and self.experiment_id and self._holds_trials(self.experiment_id):
            return
        with _reported(self.uri):
            names = {found.experiment_id: found.name for found in _pages(self.client.search_experiments)}
            holding = [name for experiment_id, name in names.items() if self._holds_trials(experiment_id)]
        if len(holding) > 1:
            told = ", ".join(repr(name) for name in sorted(holding))
            raise UserError(f"several experiments of {self.uri} hold trials: choose one with experiment=<name>: {told}")
        if holding:
            self.experiment = holding[0]
            self.experiment_id = self._find()

    def _holds_trials(self, experiment_id: str, finished: bool = False) -> bool:
        condition = f"tags.`{schema.KIND}` = 'trial'" + (" and attributes.status = 'FINISHED'" if finished else "")
        return bool(self.client.search_runs([experiment_id], condition, max_results=1))

    def attach(self, run_id: str, folder: Path, names: Sequence[str], place: str) -> None:
        """Make files in `folder` artifacts of a run, below `place`, under their names."""
        with _reported(self.uri):
            for name in names:
                below = Path(name).parent.as_posix()
                self.client.log_artifact(run_id, str(folder / name), place if below == "." else f"{place}/{below}")

    def name_launcher(self, kind: str) -> None:
        """Name the run that `mlflow run` started for what is no sweep, so that nobody takes it for one."""
        if self.launcher:
            with _reported(self.uri):
                run = self.client.get_run(self.launcher)
                self.client.set_tag(self.launcher, schema.KIND, kind)
                if not surroundings.has_own_name(run):
                    self.client.update_run(self.launcher, name=kind.replace("_", " "))

    def close_abandoned(self, keys: Iterable[str]) -> list[Run]:
        """Mark runs whose process is dead as KILLED and return them; on another machine, if it is silent for SILENT.

        A sweep that was only cut off from the store for that long still ends its runs properly.
        Raises UserError if a living process on this machine is training one of `keys`.
        """
        keys, mine = set(keys), process.current()
        running = [run for run in self.search("attributes.status = 'RUNNING'") if schema.OWNER in run.data.tags]
        for run in running:
            owner = run.data.tags[schema.OWNER]
            if owner != mine and process.alive(owner) and not keys.isdisjoint(self._keys(run)):
                pid = owner.rsplit(":", 2)[1]
                raise UserError(
                    f"process {pid} is training trials of this sweep at this moment ({run.info.run_name}): wait for "
                    "it, or end it, then run the same command again; it continues where that one stopped"
                )
        abandoned = _abandoned(running)
        with _reported(self.uri):
            for run in abandoned:
                self.client.set_tag(run.info.run_id, schema.STATUS, "interrupted")
                self.client.set_terminated(run.info.run_id, "KILLED")
        return abandoned

    def _keys(self, run: Run) -> set[str]:
        """Return the keys of the trials that a running process works on: a trial's own, or all of a sweep's."""
        from mlflow.exceptions import MlflowException

        if schema.KEY in run.data.tags:
            return {run.data.tags[schema.KEY]}
        try:
            path = self.client.download_artifacts(run.info.run_id, schema.SWEEP_FILE)
            return {trial["key"] for trial in json.loads(Path(path).read_text())["trials"]}
        except (MlflowException, OSError):  # it has only just started
            return set()

    def _launched_by(self, run_id: str | None) -> str | None:
        """Return MLFLOW_RUN_ID's run if `mlflow run` has started it for this command; another run is left alone."""
        if not run_id:
            return None
        with _reported(self.uri):
            run = surroundings.find_run(None if self.empty else self.client, run_id, self.uri)
        if surroundings.is_launcher(run):
            return run_id
        self.notice = (
            f"MLFLOW_RUN_ID names the run {run.info.run_name!r}, which `mlflow run` has not started for this command: it "
            "is left alone"
        )
        return None

    def _surrounding(self) -> str | None:
        """Return the name of the experiment that the run of `mlflow run`, or else the environment, asks for."""
        if self.launcher:
            with _reported(self.uri):
                return self.client.get_experiment(self.client.get_run(self.launcher).info.experiment_id).name
        if not surroundings.experiment_id():  # nor is MLflow imported
            return surroundings.experiment_name()
        with _reported(self.uri):
            return surroundings.experiment_by_id(None if self.empty else self.client, self.uri)

    def _find(self) -> str | None:
        with _reported(self.uri):
            found = self.client.get_experiment_by_name(self.experiment)
            if found is None and self.experiment.isdecimal():  # an id, as MLflow's pages and commands show it
                found = next(
                    (one for one in _pages(self.client.search_experiments) if one.experiment_id == self.experiment),
                    None,
                )
        if found is None:
            return None
        if found.lifecycle_stage != "active":
            raise UserError(
                f"experiment={self.experiment!r} is deleted in {self.uri}: choose another name, or bring it back with "
                f"MLFLOW_TRACKING_URI={shlex.quote(self.uri)} mlflow experiments restore -x {found.experiment_id}"
            )
        self.experiment, self._location = found.name, found.artifact_location
        return found.experiment_id


def _pages(ask: Callable) -> Iterator:
    """Give all that one of MLflow's searches finds, however many pages it fills."""
    token = None
    while True:
        page = ask(page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def counted(runs: Iterable[Run]) -> dict[str, Run]:
    """Return trial key -> the one of these runs that counts: the newest that finished and was not replaced on request.

    Two sweeps at once may finish one trial twice.
    """
    finished = (run for run in runs if run.info.status == "FINISHED")
    ours = [run for run in finished if schema.KEY in run.data.tags and schema.SUPERSEDED not in run.data.tags]
    # of two that ended in the same millisecond any will do, but everybody takes the same
    ours.sort(key=lambda run: (run.info.end_time or 0, run.info.run_id))
    return {run.data.tags[schema.KEY]: run for run in ours}


def _finished(run: Run) -> FinishedTrial:
    tags = run.data.tags
    return FinishedTrial(
        run_id=run.info.run_id,
        status=tags.get(schema.STATUS, ""),
        metrics=dict(run.data.metrics),
        parent=tags.get(schema.PARENT, ""),
        sweeps=schema.sweeps(tags),
    )


def _abandoned(running: Sequence[Run]) -> list[Run]:
    now = time.time() * 1000
    heard = {run.info.run_id: int(run.data.tags.get(schema.HEARTBEAT, run.info.start_time)) for run in running}

    def dead(run: Run) -> bool:
        here = process.alive(run.data.tags[schema.OWNER])
        last = max(heard[run.info.run_id], heard.get(run.data.tags.get(schema.PARENT, ""), 0))
        return now - last > SILENT if here is None else not here

    return [run for run in running if dead(run)]


def _check_name(experiment: str) -> None:
    """Raise UserError for a name that MLflow refuses, which it would do after it had made the database."""
    if not experiment.strip() or not experiment.isprintable() or len(experiment) > MAX_NAME:
        raise UserError(
            f"experiment={experiment[:80]!r} is no name; accepted: 1 to {MAX_NAME} characters that can be printed"
        )


@contextmanager
def _reported(uri: str) -> Iterator[None]:
    """Turn what MLflow raises into a UserError, after one retry instead of minutes of them."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError  # of a database's address, or a driver that is not installed

    # a user who knows the server to be slow may have said so
    limits = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "20"}
    try:
        with settings.during({name: os.environ.get(name, value) for name, value in limits.items()}):
            yield
    except (MlflowException, SQLAlchemyError, ImportError, OSError, ValueError) as error:
        text = one_line(error)
        raise UserError(f"the tracking store {uri} does not work ({text[:160]}): {database.FIX}") from error


def _quiet() -> None:
    """Keep the database's set-up messages off the screen; to be called after MLflow's import, which sets levels too."""
    for name in ("alembic", "mlflow.tracking"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # a database that fails raises, and is told in one line
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
