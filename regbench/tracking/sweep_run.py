"""A sweep's own run: parent of its trials, with the environment as tags and the sweep as an artifact."""

import uuid
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import replace
from functools import cache

from mlflow.exceptions import MlflowException

from regbench.errors import TrackingError
from regbench.tracking import launcher, retry, schema
from regbench.tracking.delivery import find_or_create_run
from regbench.tracking.finished import FinishedTrial
from regbench.tracking.outbox import Record
from regbench.tracking.store import Store
from regbench.tracking.writer import Writer
from regbench.trial import Trial


class SweepRun:
    """A context that opens the parent run, and on leaving writes what waits and ends the run.

    The run that `mlflow run` started is the parent if it is in the store's experiment, else a new one is created.
    """

    def __init__(self, store: Store, context: schema.SweepContext, name: str, report: Callable[[str], None]) -> None:
        self._store, self._context, self._name, self._report = store, context, name, report
        self._record = Record(uuid.uuid4().hex, name)
        self._end: tuple[str, str] | None = None  # summary and status
        self.run_id = ""
        self._settings = ExitStack()

    def __enter__(self) -> "SweepRun":
        # for as long as the writer works
        self._settings.enter_context(retry.single_attempt())
        try:
            retry.retry(self._open, self._report)
        except BaseException as error:
            if self.run_id and isinstance(error, TrackingError) and not retry.transient(error.__cause__):
                with suppress(Exception):  # else the next start marks it
                    self._store.client.set_terminated(self.run_id, "KILLED")
            self._settings.close()
            raise
        self.writer = Writer(self._store, self.run_id, self._context, self._report)
        return self

    def _open(self) -> None:
        client, experiment_id, launched = self._store.client, self._store.create(), self._store.launcher
        tags = self._context.sweep_tags()
        run = client.get_run(launched) if launched else None
        if run and run.info.experiment_id == experiment_id:
            self.run_id = launched
            if not launcher.has_own_name(run):
                client.update_run(launched, name=self._name)
            tags.pop(schema.SOURCE)  # there it names the project
            self._set_tags(launched, tags)
        else:
            self.run_id = find_or_create_run(client, experiment_id, replace(self._record, tags=tags))
            if launched:
                self._set_tags(launched, schema.launcher_tags(self.run_id, self._store.experiment))
        client.log_dict(self.run_id, self._context.sweep_file(), schema.SWEEP_FILE)

    def _set_tags(self, run_id: str, tags: Mapping[str, str]) -> None:
        for name, value in tags.items():
            self._store.client.set_tag(run_id, name, value)

    def adopt(self, reused: Mapping[Trial, FinishedTrial]) -> None:
        """Add trials that are finished already to this sweep.

        Those of an interrupted start of the same sweep are moved here, so that one run lists the whole sweep; those of
        other sweeps stay where they are and are found by the tag.
        """
        sweep, interrupted = self._context.sweep.id, cache(self._was_interrupted)

        def move() -> None:
            for trial, found in reused.items():
                if sweep not in found.sweeps:
                    self._set_tags(found.run_id, schema.membership(sweep, self._context.stage(trial)))
                if interrupted(found.parent):
                    self._set_tags(found.run_id, {schema.PARENT: self.run_id})

        retry.retry(move, self._report)

    def _was_interrupted(self, parent: str) -> bool:
        """Return whether `parent` is an unfinished start of this sweep, which is then tagged as continued, or deleted."""
        client = self._store.client
        if not parent:  # brought from another store, where it was deleted
            return True
        try:
            run = client.get_run(parent)
        except MlflowException as error:
            if retry.gone(error):
                return True
            raise
        ours = run.data.tags.get(schema.SWEEP) == self._context.sweep.id and run.info.status in ("KILLED", "FAILED")
        if ours:
            client.set_tag(parent, schema.CONTINUED, self.run_id)
        return ours

    def end(self, summary: str, complete: bool) -> None:
        """Set the sweep's Markdown summary, and whether every trial has a result."""
        self._end = summary, "FINISHED" if complete else "FAILED"

    def __exit__(self, kind: type | None, *_: object) -> None:
        try:
            try:
                # ended here also if it is `mlflow run`'s own, which may have been killed; it leaves an ended run alone
                if kind is None and self._end:
                    self.writer.end(*self._end)
            finally:
                self.writer.close(interrupted=kind is not None)
        except TrackingError as error:
            # another error ended the sweep and is raised; what the store lacks is only reported
            if kind is None or issubclass(kind, TrackingError):
                raise
            self._report(str(error))
        finally:
            self._settings.close()
