"""A sweep's own run: parent of its trials, with the environment as tags and the sweep as an artifact."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict

from mlflow.entities import Dataset
from mlflow.exceptions import MlflowException

from regbench import environment
from regbench.data.images import Images
from regbench.errors import TrackingError
from regbench.sweep import Sweep
from regbench.tracking import process, schema
from regbench.tracking.store import FinishedTrial, Store
from regbench.tracking.writer import Writer


class SweepRun:
    """Opens the parent run on entering, and on leaving writes what waits and ends it.

    The run that `mlflow run` started is the parent if it is in the store's experiment, else a new one is made.
    """

    def __init__(self, store: Store, sweep: Sweep, data: Images, device: str, engine: str, name: str) -> None:
        self._store, self._sweep, self._name = store, sweep, name
        self._tags = {"regbench.device": device, "regbench.engine": engine}
        self._data = data
        self._summary = ""
        self._outcome = "KILLED"
        self._launcher: str | None = None  # the run of `mlflow run`, where it is not the parent itself

    def __enter__(self) -> "SweepRun":
        with self._store.writing():
            self._open()
        return self

    def _open(self) -> None:
        client, experiment_id = self._store.client, self._store.create()
        launcher = self._store.launcher
        if launcher and client.get_run(launcher).info.experiment_id != experiment_id:
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
            self.run_id = client.create_run(experiment_id, tags=tags, run_name=self._name).info.run_id
        else:
            self.run_id = launcher
            client.update_run(launcher, name=self._name)
            for key, value in tags.items():
                client.set_tag(launcher, key, value)
        if self._launcher:
            client.set_tag(self._launcher, schema.KIND, "launcher")
            note = f"The sweep is run `{self.run_id}` of the experiment `{self._store.experiment}`."
            client.set_tag(self._launcher, schema.NOTE, note)
        client.log_dict(self.run_id, self._described(), schema.SWEEP_FILE)
        self.writer = Writer(
            client,
            experiment_id,
            self.run_id,
            {schema.SWEEP: self._sweep.id, **self._tags},
            _dataset(self._data),
        )

    def adopt(self, reused: Sequence[FinishedTrial]) -> None:
        """Put trials that are finished already into this sweep.

        Those of an earlier start of the same sweep that was cut off move here, so that one run lists the whole sweep;
        those of other sweeps stay where they are and are found by the tag.
        """
        client = self._store.client
        cut_off: dict[str, bool] = {}
        with self._store.writing():
            for trial in reused:
                if self._sweep.id not in trial.sweeps:
                    client.set_tag(trial.run_id, schema.SWEEP, " ".join(sorted({*trial.sweeps, self._sweep.id})))
                if trial.parent not in cut_off:
                    cut_off[trial.parent] = self._was_cut_off(trial.parent)
                if cut_off[trial.parent]:
                    client.set_tag(trial.run_id, schema.PARENT, self.run_id)

    def _was_cut_off(self, parent: str) -> bool:
        """Tell whether `parent` is an unfinished start of this sweep, which is then marked as continued, or gone."""
        client = self._store.client
        try:
            run = client.get_run(parent)
        except MlflowException:
            return True
        ours = run.data.tags.get(schema.SWEEP) == self._sweep.id and run.info.status in ("KILLED", "FAILED")
        if ours:
            client.set_tag(parent, schema.CONTINUED, self.run_id)
        return ours

    def end(self, summary: str, complete: bool) -> None:
        """Say how the sweep ended: its Markdown summary, and whether every trial has a result."""
        self._summary, self._outcome = summary, "FINISHED" if complete else "FAILED"

    def __exit__(self, kind: object, *_: object) -> None:
        outcome = "KILLED"
        try:
            self.writer.close()
            outcome = self._outcome
        finally:
            try:
                with self._store.writing():
                    if self._summary:
                        self._store.client.set_tag(self.run_id, schema.NOTE, self._summary)
                    # `mlflow run` leaves a run alone that has ended, and may itself have been killed
                    self._store.client.set_terminated(self.run_id, outcome)
            except TrackingError:
                # what ended the sweep is told, not that the store could not be told of it
                if kind is None and outcome != "KILLED":
                    raise

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


def _dataset(data: Images) -> Dataset:
    shapes = {part: list(getattr(data, f"{part}_images").shape) for part in ("train", "test")}
    return Dataset(
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
