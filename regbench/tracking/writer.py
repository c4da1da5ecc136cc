"""The one writer: results go to disk, and from there to the tracking store, in threads beside the training."""

import math
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import torch
from mlflow import MlflowClient

from regbench.errors import TrackingError
from regbench.sweep import Trial
from regbench.tracking import artifacts, outage, process, schema
from regbench.tracking.delivery import Delivery, left, passed_over, results
from regbench.tracking.outbox import Outbox, Record

# a trial that lasts longer than this is written at this pace, so that its curve is live
FLUSH_SECONDS = 15.0
# results that may wait to be put on disk: few weights are kept in memory
MAX_WAITING = 8
# a store that is away no longer than some seconds is not worth a line
SHORT = 3.0
# how long a store that is away is waited for after an interruption
INTERRUPTED_PATIENCE = 10.0


class Writer:
    """Writes a run per trial. Every method returns at once, but `finish` waits while MAX_WAITING results are in memory.

    A store that is away stops nothing: results wait on disk. Nor does a result that the store refuses for what is in it:
    that is set aside, which `close` tells. Raises TrackingError from any method once the disk has
    failed, or the store for a reason that does not pass.
    """

    def __init__(
        self,
        client: MlflowClient,
        experiment_id: str,
        parent: str,
        tags: Mapping[str, str],
        dataset: Mapping[str, str],
        box: Outbox,
        say: Callable[[str], None],
    ):
        self._client, self._parent, self._box, self._say = client, parent, box, say
        self._tags = {schema.PARENT: parent, schema.KIND: "trial", schema.SOURCE: "regbench", **tags}
        self._dataset = dict(dataset)
        self._open: dict[str, Record] = {}  # trial key -> what is known of a trial that runs
        self._flushed: dict[str, float] = {}
        self._error: Exception | None = None
        self._memory = threading.Semaphore(MAX_WAITING)
        self._disk = ThreadPoolExecutor(max_workers=1, thread_name_prefix="regbench-disk")
        self._delivery = Delivery(client, experiment_id, box)
        # what the store is to be told, in order: results, by their folders on disk, and news of trials that run
        self._work: deque[Path | Callable[[], object]] = deque()
        self._changed = threading.Condition()  # guards what follows
        self._sending = self._refused = self._ending = self._closed = False
        self._set_aside: list[str] = []  # what is to be told of results that the store refuses
        self._away: Exception | None = None  # what the store's last answer was, if it has to be asked again
        self._progress = time.monotonic()
        # a daemon, since a server that does not answer must not keep the program from ending
        threading.Thread(target=self._send, name="regbench-sender", daemon=True).start()

    def start(self, trial: Trial) -> None:
        """Open the trial's run, RUNNING."""
        self._check()
        record = Record(
            uuid.uuid4().hex,
            trial.name,
            start=_now(),
            tags=self._tags | {schema.KEY: trial.key, schema.RECIPE: trial.recipe.id, schema.OWNER: process.current()},
            params=schema.trial_params(trial),
            dataset=self._dataset,
        )
        self._open[trial.key], self._flushed[trial.key] = record, time.monotonic()
        self._tell(lambda: self._delivery.update(record))

    def epoch(self, trial: Trial, epoch: int, metrics: Mapping[str, float]) -> None:
        """Take an epoch's metrics; they are written with the trial's end, or every FLUSH_SECONDS."""
        self._check()
        record = self._open[trial.key]
        record.metrics += _metrics(metrics, epoch)
        if time.monotonic() - self._flushed[trial.key] > FLUSH_SECONDS:
            self._flushed[trial.key] = time.monotonic()
            self._tell(lambda: self._delivery.update(record))

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
        self._check()
        self._memory.acquire()  # before the trial counts as ended: an interruption may come while it waits
        record = self._open.pop(trial.key)
        record = replace(
            record,
            status="FINISHED",
            end=_now(),
            metrics=record.metrics + _metrics(metrics, trial.recipe.epochs),
            result={schema.STATUS: status}
            | ({schema.REASON: reason} if reason else {})
            | ({schema.NODE: node} if node else {}),
            files="weights",
            replaces=replaces or "",
        )
        # off the device, whose memory the next trials need
        taken = {name: w.detach().cpu() for name, w in weights.items()}
        self._keep(record, lambda folder: artifacts.write(folder, taken, layers, trial.name)).add_done_callback(
            lambda _: self._memory.release()
        )

    def fail(self, trial: Trial, reason: str) -> None:
        """Mark the trial's run FAILED; it is trained again when the sweep is run again."""
        self._check()
        tags = {schema.STATUS: "failed", schema.REASON: reason}
        self._keep(replace(self._open.pop(trial.key), status="FAILED", end=_now(), result=tags))

    def end(self, note: str, status: str) -> None:
        """Give the sweep's own run its description and status, after all trials."""
        self._check()
        record = Record(uuid.uuid4().hex, "", status, self._parent, end=_now(), result={schema.NOTE: note})
        self._keep(record)

    def close(self, interrupted: bool = False) -> None:
        """Wait until everything is written, up to PATIENCE seconds for a store that is away.

        If `interrupted`, up to INTERRUPTED_PATIENCE. The runs of trials that did not end are marked KILLED then, and the
        sweep's.
        """
        try:
            self._disk.shutdown(wait=True)
            if not interrupted:
                self._wait(outage.PATIENCE)
            if interrupted or (self._error and not self._away):
                parent = Record("", "", run_id=self._parent)
                for record in (*self._open.values(), parent):
                    self._tell(lambda record=record: self._delivery.kill(record))
                self._wait(INTERRUPTED_PATIENCE, hurried=True)
            elif self._set_aside:
                self._tell(self._fail)
                self._wait(INTERRUPTED_PATIENCE, hurried=True)
        finally:
            with self._changed:
                self._closed = True
                self._changed.notify_all()
            self._box.close()
        self._check()
        if self._set_aside and not interrupted:
            more = f", and {results(len(self._set_aside) - 1)} more" if len(self._set_aside) > 1 else ""
            raise TrackingError(f"{self._set_aside[0]}{more}; the others are there. The same command trains it again")

    def _wait(self, patience: float, hurried: bool = False) -> None:
        """Wait until the store has all, but not longer than `patience` seconds while it fails.

        One that is at work may take longer, as for weights on a slow line, but not if `hurried`.
        """
        said = False
        with self._changed:
            self._progress, self._ending = time.monotonic(), True
            while self._work or self._sending:
                self._changed.wait(timeout=0.2)
                if self._away and not said:
                    said = True
                    self._say(f"waiting for the tracking store, up to {patience:.0f} s ({outage.told(self._away)})")
                if (self._away or hurried) and time.monotonic() - self._progress > patience:
                    break
            if self._box.waiting():
                self._error = self._error or self._away or TimeoutError("the tracking store did not answer")

    def _check(self) -> None:
        if self._error is not None:
            raise TrackingError(f"{outage.told(self._error)}. {left(self._box)}") from self._error

    def _keep(self, record: Record, write: Callable[[Path], None] | None = None) -> Future:
        return self._disk.submit(self._put, record, write)

    def _put(self, record: Record, write: Callable[[Path], None] | None) -> None:
        try:
            folder = self._box.put(record, write)
        except Exception as error:
            self._error = self._error or error
            self._tell(lambda: self._delivery.kill(record))
        else:
            self._tell(folder)

    def _finish(self, folder: Path) -> None:
        problem = self._delivery.finish(folder)
        if problem:
            self._set_aside.append(problem)
            self._say(problem)

    def _tell(self, work: Path | Callable[[], object]) -> None:
        with self._changed:
            self._work.append(work)
            self._changed.notify_all()

    # what follows runs in the sender

    def _send(self) -> None:
        pause, said, beat = outage.SOON, False, time.monotonic()
        while True:
            with self._changed:
                self._sending = False
                self._changed.notify_all()
                if self._away:
                    self._changed.wait_for(lambda: self._closed, timeout=pause)
                else:
                    self._changed.wait_for(lambda: self._closed or self._work, timeout=FLUSH_SECONDS)
                if self._closed:
                    return
                if time.monotonic() - beat > FLUSH_SECONDS and not self._ending:
                    beat = time.monotonic()
                    self._work.append(self._beat)
                if not self._work:
                    continue
                work, self._sending = self._work.popleft(), True
            try:
                if not isinstance(work, Path):
                    work()
                elif not self._refused:
                    self._finish(work)
            except Exception as error:
                with self._changed:
                    if not outage.transient(error):
                        self._error, self._refused, self._away = self._error or error, True, None
                        continue
                    if self._away is None:
                        self._progress = time.monotonic()  # it was at work until now
                    self._away = error
                    # a result is tried again; news are not, since the result will hold them
                    self._work = deque(item for item in (work, *self._work) if isinstance(item, Path))
                pause = min(2 * pause, outage.LATE)
                if not said and pause > SHORT:
                    said = True
                    self._say(
                        f"the tracking store is away ({outage.told(error)}): training goes on, results wait in "
                        f"{self._box.root}"
                    )
                continue
            with self._changed:
                self._away, self._progress = None, time.monotonic()
            if said:
                self._say("the tracking store is back")
            pause, said = outage.SOON, False

    def _beat(self) -> None:
        with passed_over(outage.gone):  # the trials are worth having without their sweep's run
            self._client.set_tag(self._parent, schema.HEARTBEAT, str(_now()))

    def _fail(self) -> None:
        with passed_over(outage.gone):
            self._client.set_terminated(self._parent, "FAILED")


def _now() -> int:
    return int(time.time() * 1000)


def _metrics(values: Mapping[str, float], step: int) -> list[tuple[str, float, int, int]]:
    now = _now()
    # MLflow would store an infinity as 1.8e308; NaN it keeps
    return [(name, value if math.isfinite(value) else math.nan, now, step) for name, value in values.items()]
