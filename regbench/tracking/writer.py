"""The only writer of runs: results go to disk, and from there to the tracking store, in threads beside the training."""

import json
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

from regbench.errors import TrackingError
from regbench.tracking import artifacts, retry, schema
from regbench.tracking.delivery import Delivery, describe_pending, format_results, ignoring
from regbench.tracking.outbox import Record
from regbench.tracking.store import Store
from regbench.trial import Trial, format_lam

FLUSH_SECONDS = 15.0  # between two updates of a running trial's curves
MAX_WAITING = 8  # results in memory that may wait for the disk: weights are large
REPORTED_PAUSE = 3.0  # pause between attempts from which on an outage is reported
INTERRUPTED_PATIENCE = 10.0  # seconds to wait for a store that is away, after an interruption


class Writer:
    """Writes a run per trial. Every method returns at once, but `finish` waits while MAX_WAITING results are in memory.

    An outage of the store stops nothing: results wait on disk. Nor does a result whose content the store rejects: it is
    set aside, and `close` raises TrackingError for it. Raises TrackingError from any method once the disk has failed, or
    the store for a reason that does not pass.
    """

    def __init__(self, store: Store, parent: str, context: schema.SweepContext, report: Callable[[str], None]) -> None:
        """`parent` is the id of the sweep's own run; `report` gets messages for the user."""
        self._client, self._outbox, self._parent, self._report = store.client, store.outbox, parent, report
        self._context, self._dataset = context, context.dataset()
        self._open: dict[str, Record] = {}  # trial key -> record of a running trial
        self._flushed: dict[str, float] = {}
        self._error: Exception | None = None
        self._memory = threading.Semaphore(MAX_WAITING)
        self._disk = ThreadPoolExecutor(max_workers=1, thread_name_prefix="regbench-disk")
        self._delivery = Delivery(store)
        # what to send to the store, in order: results, by their folders on disk, and updates of running trials
        self._queue: deque[Path | Callable[[], object]] = deque()
        self._changed = threading.Condition()  # guards what follows
        self._sending = self._stopped = self._ending = self._closed = False
        self._set_aside: list[str] = []  # messages about results that the store rejects
        self._outage: Exception | None = None  # the store's last failure, while it is retried
        self._progress = time.monotonic()
        # a daemon, since a server that does not answer must not keep the program from ending
        threading.Thread(target=self._send, name="regbench-sender", daemon=True).start()

    def start(self, trial: Trial) -> None:
        """Open the trial's run, RUNNING."""
        self._check()
        record = Record(
            uuid.uuid4().hex,
            self._context.sweep.name(trial),
            start=_now(),
            tags=self._context.trial_tags(trial, self._parent),
            params=schema.trial_params(trial),
            dataset=self._dataset,
        )
        self._open[trial.key], self._flushed[trial.key] = record, time.monotonic()
        self._enqueue(lambda: self._delivery.update(record))

    def epoch(self, trial: Trial, epoch: int, metrics: Mapping[str, float]) -> None:
        """Record an epoch's metrics; they are written at the trial's end, or every FLUSH_SECONDS."""
        self._check()
        record = self._open[trial.key]
        record.metrics += _metrics(metrics, epoch)
        if time.monotonic() - self._flushed[trial.key] > FLUSH_SECONDS:
            self._flushed[trial.key] = time.monotonic()
            self._enqueue(lambda: self._delivery.update(record))

    def finish(
        self,
        trial: Trial,
        metrics: Mapping[str, float],
        weights: Mapping[str, torch.Tensor],
        layers: Sequence[Mapping[str, object]],
        tags: Mapping[str, str],
        replaces: str = "",
    ) -> None:
        """Write the final metrics and artifacts, then mark the run FINISHED: what is FINISHED is complete.

        `layers` are rows of measures, one for each of the `weights` that is a trained matrix; `tags` are
        `schema.outcome_tags`; `replaces` is the id of an earlier finished run.
        """
        self._check()
        self._memory.acquire()  # first, since an interruption during the wait must find the trial open
        opened = self._open.pop(trial.key)
        kept = self._context.keeps_weights(trial)
        record = replace(
            opened,
            status="FINISHED",
            end=_now(),
            metrics=opened.metrics + _metrics(metrics, trial.recipe.epochs),
            result=dict(tags) | ({} if kept else {schema.KEPT: schema.LEFT_OUT}),
            files=schema.WEIGHTS,
            withheld=[] if kept else [schema.MODEL],  # on disk all the same: the pictures are drawn from it
            replaces=replaces,
        )
        # off the device, whose memory the next trials need
        taken = {name: w.detach().cpu() for name, w in weights.items()}
        classes = self._context.data.classes
        saved = self._submit(record, lambda folder: artifacts.write(folder, taken, layers, opened.metrics, classes))
        saved.add_done_callback(lambda _: self._memory.release())

    def fail(self, trial: Trial, reason: str) -> None:
        """Mark the trial's run FAILED; the sweep's next start trains it again."""
        self._check()
        tags = schema.outcome_tags("failed", reason)
        self._submit(replace(self._open.pop(trial.key), status="FAILED", end=_now(), result=tags))

    def choose(
        self, lams: Mapping[str, float], means: Mapping[str, Mapping[float, float]], chosen_by: str = ""
    ) -> None:
        """Write to the sweep's run which lams, by method, are trained on fresh seeds.

        `means` are the mean validation accuracies, by method and lam, that led to them; of an earlier start's choice its
        run `chosen_by` has them.
        """
        self._check()
        tags = {schema.CHOICE: schema.choice(self._context.sweep, lams)} | (
            {schema.CHOSEN_BY: chosen_by} if chosen_by else {}
        )
        rows = {name: {format_lam(lam): mean for lam, mean in found.items()} for name, found in means.items()}

        def write(folder: Path) -> None:
            (folder / schema.CHOICE_FILE).write_text(json.dumps({"lams": lams, "validation": rows}, indent=1))

        self._submit(Record(uuid.uuid4().hex, "", run_id=self._parent, result=tags), write if means else None)

    def end(self, note: str, status: str) -> None:
        """Write the sweep's own description and status, after all trials."""
        self._check()
        self._submit(Record(uuid.uuid4().hex, "", status, self._parent, end=_now(), result={schema.NOTE: note}))

    def close(self, interrupted: bool = False) -> None:
        """Wait until everything is written, up to PATIENCE seconds for a store that is away.

        If `interrupted`, wait up to INTERRUPTED_PATIENCE, and mark the runs of unfinished trials and the sweep KILLED.
        """
        try:
            self._disk.shutdown(wait=True)
            if not interrupted:
                self._wait(retry.PATIENCE)
            if interrupted or (self._error and not self._outage):
                parent = Record("", "", run_id=self._parent)
                for record in (*self._open.values(), parent):
                    self._enqueue(lambda record=record: self._delivery.kill(record))
                self._wait(INTERRUPTED_PATIENCE, hurried=True)
            elif self._set_aside:
                self._enqueue(self._mark_failed)
                self._wait(INTERRUPTED_PATIENCE, hurried=True)
        finally:
            with self._changed:
                self._closed = True
                self._changed.notify_all()
            self._delivery.close()
            self._outbox.close()
        self._check()
        if self._set_aside and not interrupted:
            more = f", and {format_results(len(self._set_aside) - 1)} more" if len(self._set_aside) > 1 else ""
            raise TrackingError(f"{self._set_aside[0]}{more}; the others are there. The same command trains it again")

    def _wait(self, patience: float, hurried: bool = False) -> None:
        """Wait until the store has everything, but not longer than `patience` seconds while it fails.

        A store that works may take longer, as for weights on a slow line, but not if `hurried`.
        """
        reported = False
        with self._changed:
            self._progress, self._ending = time.monotonic(), True
            while self._queue or self._sending:
                self._changed.wait(timeout=0.2)
                if self._outage and not reported:
                    reported = True
                    self._report(
                        f"waiting for the tracking store, up to {patience:.0f} s ({retry.describe(self._outage)})"
                    )
                if (self._outage or hurried) and time.monotonic() - self._progress > patience:
                    break
            if self._outbox.folders():
                self._error = self._error or self._outage or TimeoutError("the tracking store did not answer")

    def _check(self) -> None:
        if self._error is not None:
            raise TrackingError(f"{retry.describe(self._error)}. {describe_pending(self._outbox)}") from self._error

    def _submit(self, record: Record, write: Callable[[Path], None] | None = None) -> Future:
        return self._disk.submit(self._save, record, write)

    def _save(self, record: Record, write: Callable[[Path], None] | None) -> None:
        try:
            folder = self._outbox.put(record, write)
            self._delivery.prepare(folder, record)
        except Exception as error:
            self._error = self._error or error
            self._enqueue(lambda: self._delivery.kill(record))
        else:
            self._enqueue(folder)

    def _enqueue(self, work: Path | Callable[[], object]) -> None:
        with self._changed:
            self._queue.append(work)
            self._changed.notify_all()

    # the following methods run in the sender's thread

    def _send(self) -> None:
        pause, reported, heartbeat = retry.FIRST_PAUSE, False, time.monotonic()
        while True:
            with self._changed:
                self._sending = False
                self._changed.notify_all()
                if self._outage:
                    self._changed.wait_for(lambda: self._closed, timeout=pause)
                else:
                    self._changed.wait_for(lambda: self._closed or self._queue, timeout=FLUSH_SECONDS)
                if self._closed:
                    return
                if time.monotonic() - heartbeat > FLUSH_SECONDS and not self._ending:
                    heartbeat = time.monotonic()
                    self._queue.append(self._send_heartbeat)
                if not self._queue:
                    continue
                work, self._sending = self._queue.popleft(), True
            try:
                if not isinstance(work, Path):
                    work()
                elif not self._stopped and (problem := self._delivery.finish(work)):
                    self._set_aside.append(problem)
                    self._report(problem)
            except Exception as error:
                with self._changed:
                    if not retry.transient(error):
                        self._error, self._stopped, self._outage = self._error or error, True, None
                        continue
                    if self._outage is None:
                        self._progress = time.monotonic()  # it worked until now
                    self._outage = error
                    # only results are retried: they contain what the updates would have written
                    self._queue = deque(item for item in (work, *self._queue) if isinstance(item, Path))
                pause = min(2 * pause, retry.LONGEST_PAUSE)
                if not reported and pause > REPORTED_PAUSE:
                    reported = True
                    self._report(
                        f"the tracking store is away ({retry.describe(error)}): training goes on, results wait in "
                        f"{self._outbox.root}"
                    )
                continue
            with self._changed:
                self._outage, self._progress = None, time.monotonic()
            if reported:
                self._report("the tracking store is back")
            pause, reported = retry.FIRST_PAUSE, False

    def _send_heartbeat(self) -> None:
        with ignoring(retry.gone):  # the trials are kept even if their sweep's run is deleted
            self._client.set_tag(self._parent, schema.HEARTBEAT, str(_now()))

    def _mark_failed(self) -> None:
        with ignoring(retry.gone):
            self._client.set_terminated(self._parent, "FAILED")


def _now() -> int:
    return int(time.time() * 1000)


def _metrics(values: Mapping[str, float], step: int) -> list[tuple[str, float, int, int]]:
    now = _now()
    # MLflow would store an infinity as 1.8e308, but keeps NaN
    return [(name, value if math.isfinite(value) else math.nan, now, step) for name, value in values.items()]
