"""A sweep's own run: parent of its trials, with the environment as tags and the sweep as an artifact."""

import json
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, replace

from mlflow.exceptions import MlflowException

from regbench import environment
from regbench.data.images import Images
from regbench.errors import TrackingError
from regbench.sweep import Sweep
from regbench.tracking import outage, process, schema, surroundings
from regbench.tracking.delivery import one_run
from regbench.tracking.outbox import Record
from regbench.tracking.store import FinishedTrial, Store
from regbench.tracking.writer import Writer


class SweepRun:
    """Opens the parent run on entering, and on leaving writes what waits and ends it.

    The run that `mlflow run` started is the parent if it is in the store's experiment, else a new one is made.
    """

    def __init__(
        self, store: Store, sweep: Sweep, data: Images, device: str, engine: str, name: str, say: Callable[[str], None]
    ) -> None:
        self._store, self._sweep, self._name, self._say = store, sweep, name, say
        self._tags = {"regbench.device": device, "regbench.engine": engine, schema.USER: process.user()}
        self._data = data
        self._record = Record(uuid.uuid4().hex, name)
        self._end: tuple[str, str] | None = None  # summary and status
        self.run_id = ""
        self._launcher: str | None = None  # the run of `mlflow run`, where it is not the parent itself
        self._settings = ExitStack()

    def __enter__(self) -> "SweepRun":
        # for the time in which the writer works
        self._settings.enter_context(outage.one_attempt())
        try:
            outage.patiently(self._open, self._say)
        except BaseException as error:
            if self.run_id and isinstance(error, TrackingError) and not outage.transient(error.__cause__):
                with suppress(Exception):  # else it is marked by the next start
                    self._store.client.set_terminated(self.run_id, "KILLED")
            self._settings.close()
            raise
        self.writer = Writer(
            self._store.client,
            self._store.create(),
            self.run_id,
            schema.membership(self._sweep.id) | self._tags,
            _dataset(self._data),
            self._store.outbox,
            self._say,
        )
        return self

    def _open(self) -> None:
        client, experiment_id = self._store.client, self._store.create()
        launcher = self._store.launcher
        run = client.get_run(launcher) if launcher else None
        if run and run.info.experiment_id != experiment_id:
            self._launcher = launcher
            launcher = None
        tags = {
            schema.KIND: "sweep",
            schema.SWEEP: self._sweep.id,
            schema.OWNER: process.current(),
            schema.DATASET: self._data.name,
            schema.FINGERPRINT: self._data.fingerprint,
            **self._tags,
            **environment.tags(),
        }
        if launcher is None:
            tags[schema.SOURCE] = "regbench"
            self.run_id = one_run(client, experiment_id, replace(self._record, tags=tags))
        else:
            self.run_id = launcher
            if not surroundings.has_own_name(run):
                client.update_run(launcher, name=self._name)
            for key, value in tags.items():
                client.set_tag(launcher, key, value)
        if self._launcher:
            client.set_tag(self._launcher, schema.KIND, "launcher")
            note = f"The sweep is run `{self.run_id}` of the experiment `{self._store.experiment}`."
            client.set_tag(self._launcher, schema.NOTE, note)
        client.log_dict(self.run_id, self._described(), schema.SWEEP_FILE)

    def adopt(self, reused: Sequence[FinishedTrial]) -> None:
        """Put trials that are finished already into this sweep.

        Those of an earlier start of the same sweep that was cut off move here, so that one run lists the whole sweep;
        those of other sweeps stay where they are and are found by the tag.
        """
        client = self._store.client
        cut_off: dict[str, bool] = {}

        def move() -> None:
            for trial in reused:
                if self._sweep.id not in trial.sweeps:
                    for name, value in schema.membership(self._sweep.id).items():
                        client.set_tag(trial.run_id, name, value)
                if trial.parent not in cut_off:
                    cut_off[trial.parent] = self._was_cut_off(trial.parent)
                if cut_off[trial.parent]:
                    client.set_tag(trial.run_id, schema.PARENT, self.run_id)

        outage.patiently(move, self._say)

    def _was_cut_off(self, parent: str) -> bool:
        """Tell whether `parent` is an unfinished start of this sweep, which is then marked as continued, or gone."""
        client = self._store.client
        try:
            run = client.get_run(parent)
        except MlflowException as error:
            if outage.gone(error):
                return True
            raise
        ours = run.data.tags.get(schema.SWEEP) == self._sweep.id and run.info.status in ("KILLED", "FAILED")
        if ours:
            client.set_tag(parent, schema.CONTINUED, self.run_id)
        return ours

    def end(self, summary: str, complete: bool) -> None:
        """Say how the sweep ended: its Markdown summary, and whether every trial has a result."""
        self._end = summary, "FINISHED" if complete else "FAILED"

    def __exit__(self, kind: type | None, *_: object) -> None:
        try:
            try:
                # `mlflow run` leaves a run alone that has ended, and may itself have been killed
                if kind is None and self._end:
                    self.writer.end(*self._end)
            finally:
                self.writer.close(interrupted=kind is not None)
        except TrackingError as error:
            # what ended the sweep is told as such, and what the store lacks beside it
            if kind is None or issubclass(kind, TrackingError):
                raise
            self._say(str(error))
        finally:
            self._settings.close()

    def _described(self) -> Mapping[str, object]:
        return {
            "sweep": self._sweep.id,
            "dataset": {"name": self._data.name, "fingerprint": self._data.fingerprint},
            "recipes": {recipe.id: asdict(recipe) for recipe in self._sweep.recipes},
            "trials": [
                {
                    "key": trial.key,
                    "recipe": trial.recipe.id,
                    "regularizer": trial.regularizer,
                    "lam": trial.lam,
                    "scope": trial.scope,
                    "seed": trial.seed,
                }
                for trial in self._sweep.trials
            ],
        }


def _dataset(data: Images) -> dict[str, str]:
    """Return the data set as the arguments of MLflow's Dataset."""
    shapes = {part: list(getattr(data, f"{part}_images").shape) for part in ("train", "test")}
    return dict(
        name=data.name,
        digest=data.fingerprint[:16],
        source_type="local",
        source=json.dumps({"name": data.name}),
        schema=json.dumps(
            {
                "mlflow_tensorspec": {
                    "features": json.dumps(
                        [{"type": "tensor", "tensor-spec": {"dtype": "uint8", "shape": [-1, *shapes["train"][1:]]}}]
                    ),
                    "targets": json.dumps([{"type": "tensor", "tensor-spec": {"dtype": "int64", "shape": [-1]}}]),
                }
            }
        ),
        profile=json.dumps(
            {"classes": len(data.classes), "train_images": shapes["train"][0], "test_images": shapes["test"][0]}
        ),
    )
