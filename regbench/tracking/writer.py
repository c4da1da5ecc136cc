"""The one writer: a background thread that puts trials into the store while the next ones train."""

import math
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import torch
from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag

from regbench.errors import TrackingError, one_line
from regbench.sweep import Trial
from regbench.tracking import artifacts, process, schema

# a trial that lasts longer than this is written at this pace, so that its curve is live
FLUSH_SECONDS = 15.0
# results that may wait to be written: little is lost in a crash, and few weights are kept in memory
MAX_WAITING = 8


class Writer:
    """Writes a run per trial. Every method returns at once, but `finish` waits while MAX_WAITING results are pending.

    Raises TrackingError from any method once a write has failed.
    """

    def __init__(
        self, client: MlflowClient, experiment_id: str, parent: str, tags: Mapping[str, str], dataset: Dataset
    ):
        self._client, self._experiment_id = client, experiment_id
        self._tags = {schema.PARENT: parent, schema.KIND: "trial", schema.SOURCE: "regbench", **tags}
        self._dataset = dataset
        self._runs: dict[str, str] = {}  # trial key -> run id; used by the thread alone
        self._buffer: dict[str, list[Metric]] = {}
        self._flushed: dict[str, float] = {}
        self._error: Exception | None = None
        self._waiting = threading.Semaphore(MAX_WAITING)
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="regbench-writer")

    def start(self, trial: Trial) -> None:
        """Open the trial's run, RUNNING."""
        self._buffer[trial.key], self._flushed[trial.key] = [], time.monotonic()
        self._submit(self._create, trial, _now())

    def epoch(self, trial: Trial, epoch: int, metrics: Mapping[str, float]) -> None:
        """Take an epoch's metrics; they are written with the trial's end, or every FLUSH_SECONDS."""
        self._buffer[trial.key] += _metrics(metrics, epoch)
        if time.monotonic() - self._flushed[trial.key] > FLUSH_SECONDS:
            self._flushed[trial.key] = time.monotonic()
            self._submit(self._log, trial.key, self._take(trial))

    def finish(
        self,
        trial: Trial,
        metrics: Mapping[str, float],
        weights: Mapping[str, torch.Tensor],
        layers: Sequence[Mapping[str, object]],
        status: str,
        reason: str,
        replaces: str | None = None,
        node: str = "",
    ) -> None:
        """Write the final metrics and artifacts, then mark the run FINISHED: what is FINISHED is complete.

        `layers` are rows of measures, one for each of the `weights` that is a trained matrix; `replaces` is the id of an
        earlier finished run; `node` the machine of a cluster that trained it.
        """
        final = self._take(trial) + _metrics(metrics, trial.recipe.epochs)
        tags = {schema.STATUS: status} | ({schema.REASON: reason} if reason else {})
        tags |= {schema.NODE: node} if node else {}
        # off the device, whose memory the next trials need
        taken = {name: w.detach().cpu() for name, w in weights.items()}
        self._waiting.acquire()
        self._submit(self._finish, trial, final, taken, layers, tags, replaces).add_done_callback(
            lambda _: self._waiting.release()
        )

    def fail(self, trial: Trial, reason: str) -> None:
        """Mark the trial's run FAILED; it is trained again when the sweep is run again."""
        tags = {schema.STATUS: "failed", schema.REASON: reason}
        self._submit(self._end, trial, self._take(trial), tags, "FAILED")

    def close(self) -> None:
        """Wait until everything is written; runs of trials that did not end are marked KILLED."""
        if self._error is None:
            self._submit(self._kill_open)
        self._thread.shutdown(wait=True)
        self._check()

    def _take(self, trial: Trial) -> list[Metric]:
        taken, self._buffer[trial.key] = self._buffer[trial.key], []
        return taken

    def _submit(self, task: Callable[..., None], *args: object) -> Future:
        self._check()
        return self._thread.submit(self._run, task, *args)

    def _run(self, task: Callable[..., None], *args: object) -> None:
        try:
            # after a failure nothing more is written: a later call could mark as finished what is not complete
            if self._error is None:
                task(*args)
        except Exception as error:
            self._error = error

    def _check(self) -> None:
        if self._error is not None:
            raise TrackingError(one_line(self._error)) from self._error

    # what follows runs in the thread

    def _create(self, trial: Trial, start_time: int) -> None:
        tags = self._tags | {
            schema.KEY: trial.key,
            schema.RECIPE: trial.recipe.id,
            schema.OWNER: process.current(),
        }
        run = self._client.create_run(self._experiment_id, start_time=start_time, tags=tags, run_name=trial.name)
        self._runs[trial.key] = run.info.run_id
        self._client.log_batch(
            run.info.run_id, params=[Param(name, value) for name, value in schema.trial_params(trial).items()]
        )
        context = [InputTag("mlflow.data.context", "training")]
        self._client.log_inputs(run.info.run_id, [DatasetInput(self._dataset, context)])

    def _log(self, key: str, metrics: list[Metric], tags: Mapping[str, str] | None = None) -> None:
        run_tags = [RunTag(name, value) for name, value in (tags or {}).items()]
        self._client.log_batch(self._runs[key], metrics=metrics, tags=run_tags)

    def _finish(
        self,
        trial: Trial,
        metrics: list[Metric],
        weights: Mapping[str, torch.Tensor],
        layers: Sequence[Mapping[str, object]],
        tags: Mapping[str, str],
        replaces: str | None,
    ) -> None:
        with tempfile.TemporaryDirectory(prefix="regbench-") as folder:
            artifacts.write(Path(folder), weights, layers, trial.name)
            self._client.log_artifacts(self._runs[trial.key], folder, "weights")
        run_id = self._runs[trial.key]
        self._end(trial, metrics, tags, "FINISHED")
        if replaces:
            self._client.set_tag(replaces, schema.SUPERSEDED, run_id)

    def _end(self, trial: Trial, metrics: list[Metric], tags: Mapping[str, str], status: str) -> None:
        self._log(trial.key, metrics, tags)
        self._client.set_terminated(self._runs.pop(trial.key), status)

    def _kill_open(self) -> None:
        for run_id in self._runs.values():
            self._client.set_tag(run_id, schema.STATUS, "interrupted")
            self._client.set_terminated(run_id, "KILLED")
        self._runs.clear()


def _now() -> int:
    return int(time.time() * 1000)


def _metrics(values: Mapping[str, float], step: int) -> list[Metric]:
    now = _now()
    # MLflow would store an infinity as 1.8e308; NaN it keeps
    return [Metric(name, value if math.isfinite(value) else math.nan, now, step) for name, value in values.items()]
