"""Telling the tracking store of a run, so that doing it again after a failure changes nothing."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.exceptions import MlflowException

from regbench.errors import TrackingError
from regbench.tracking import outage, outbox, schema
from regbench.tracking.outbox import Outbox, Record

if TYPE_CHECKING:
    from regbench.tracking.store import Store


def one_run(client: MlflowClient, experiment_id: str, record: Record, new: bool = False) -> str:
    """Return the id of the record's run, made unless an earlier attempt has made it; `new`: there was none."""
    if not new:
        found = _runs(client, experiment_id, record.token)
        if found:
            return found[0]
    tags = record.tags | {schema.TOKEN: record.token}
    return client.create_run(experiment_id, record.start, tags, record.name).info.run_id


class Delivery:
    """Brings records into one experiment. Any method may raise what MLflow raises, and may then be called again.

    What the store has confirmed is not told again: a server that fails at every few requests would never be done.
    """

    def __init__(self, client: MlflowClient, experiment_id: str, box: Outbox) -> None:
        self._client, self._experiment_id, self._box = client, experiment_id, box
        self._known: dict[str, _Known] = defaultdict(_Known)  # by token

    def update(self, record: Record) -> None:
        """Have the run there, with its parameters and the metrics so far, unless somebody has deleted it."""
        # what the store refuses of it, it refuses of the result too
        with passed_over(lambda error: outage.gone(error) or outage.refused(error)):
            known = self._opened(record, new=not self._known[record.token].asked)
            self._log(known, record)

    def finish(self, folder: Path) -> str:
        """Bring a result that waits on disk, complete before the run's status says so, and remove it there.

        One that is damaged, or that the store refuses for what is in it, is set aside; return what to tell of that.
        """
        try:
            record = outbox.read(folder)
        except outbox.Damaged as error:
            return f"{error}: set aside in {self._box.set_aside(folder)}"
        try:
            try:
                self._bring(folder, record)
            except MlflowException as error:
                if not outage.gone(error):
                    raise
                # somebody has deleted the run meanwhile: a new one gets the result
                self._known.pop(record.token, None)
                self._bring(folder, record)
        except MlflowException as error:
            if not outage.refused(error):
                raise
            place = self._box.set_aside(folder)
            self._fail(record)
            return f"the result of {record.name or 'the sweep'} is refused ({outage.told(error)}): set aside in {place}"
        outbox.remove(folder)
        self._known.pop(record.token, None)
        return ""

    def _bring(self, folder: Path, record: Record) -> None:
        if record.run_id:
            with passed_over(outage.gone):  # else there is nothing left that could be told
                self._end(_Known(record.run_id), record)
        else:
            known = self._opened(record, new=False)
            for path in sorted((folder / outbox.FILES).iterdir()) if record.files else ():
                known.once(path.name, lambda path=path: self._client.log_artifact(known.run_id, path, record.files))
            if known.doubtful:
                # a server that answered too late may have made one run more
                for other in _runs(self._client, self._experiment_id, record.token):
                    if other != known.run_id:
                        self._client.delete_run(other)
            self._end(known, record)
            if record.replaces:
                with passed_over(outage.gone):
                    self._client.set_tag(record.replaces, schema.SUPERSEDED, known.run_id)

    def kill(self, record: Record) -> None:
        """Mark the run of a trial that did not end as KILLED, if there is one."""
        run_id = record.run_id or self._known[record.token].run_id
        if run_id:
            with passed_over(outage.gone):
                self._client.set_tag(run_id, schema.STATUS, "interrupted")
                self._client.set_terminated(run_id, "KILLED")

    def _fail(self, record: Record) -> None:
        """Mark the run of a result that was set aside as FAILED, as far as that can be told."""
        run_id = record.run_id or self._known.pop(record.token, _Known()).run_id
        if run_id:
            with suppress(Exception):  # else it is marked by the next start
                self._client.set_tag(run_id, schema.STATUS, "failed")
                self._client.set_tag(run_id, schema.REASON, "the tracking store refused the result")
                self._client.set_terminated(run_id, "FAILED")

    def _opened(self, record: Record, new: bool) -> _Known:
        """Have the record's run there with its parameters; `new`: it was not asked for before."""
        known = self._known[record.token]
        if not known.run_id:
            known.asked = True
            try:
                known.run_id = one_run(self._client, self._experiment_id, record, new)
            except Exception:
                known.doubtful = True
                raise
        params = [Param(name, value) for name, value in record.params.items()]
        inputs = [DatasetInput(Dataset(**record.dataset), [InputTag("mlflow.data.context", "training")])]
        known.once(".params", lambda: self._client.log_batch(known.run_id, params=params))
        known.once(".inputs", lambda: self._client.log_inputs(known.run_id, inputs))
        return known

    def _log(self, known: _Known, record: Record, tags: Mapping[str, str] | None = None) -> None:
        # the times are the record's, so that the store knows the points that it has already
        points = record.metrics[known.logged :]
        metrics = [Metric(*point) for point in points]
        run_tags = [RunTag(name, value) for name, value in (tags or {}).items()]
        if metrics or run_tags:
            self._client.log_batch(known.run_id, metrics=metrics, tags=run_tags)
            known.logged += len(points)

    def _end(self, known: _Known, record: Record) -> None:
        known.once(".metrics", lambda: self._log(known, record, record.result))
        self._client.set_terminated(known.run_id, record.status, record.end)


@dataclass
class _Known:
    """What the store is known to have of a run."""

    run_id: str = ""
    asked: bool = False  # for the run to be made
    doubtful: bool = False  # whether the store has made one without saying so
    logged: int = 0  # metrics
    done: set[str] = field(default_factory=set)

    def once(self, name: str, task: Callable[[], object]) -> None:
        if name not in self.done:
            task()
            self.done.add(name)


def deliver_first(store: Store, say: Callable[[str], None]) -> None:
    """Bring what earlier starts left on disk for the store's experiment; raises TrackingError if it cannot be brought.

    To be called while other starts are held off (Outbox.starting), which would train again what is being brought.
    """
    box = store.outbox
    waiting = box.claim()
    if not waiting:
        return
    brought = 0
    try:
        delivery = Delivery(store.client, store.create(), box)
        for folder in waiting:
            problem = outage.patiently(lambda folder=folder: delivery.finish(folder), say)
            if problem:
                say(problem)
            brought += not problem
    except TrackingError as error:
        raise TrackingError(f"{error}. {left(box)}") from error
    finally:
        box.close()
    say(f"{results(brought)} of an earlier start brought to the tracking store")


def left(box: Outbox) -> str:
    """Say what waits on disk, and what becomes of it."""
    count = len(box.waiting())
    if not count:
        return "What was finished is kept: the same command continues"
    verb = "waits" if count == 1 else "wait"
    return f"{results(count)} {verb} in {box.root}: the same command brings them to the store first, then continues"


def results(count: int) -> str:
    """Return "1 result", "2 results"."""
    return f"{count} result" if count == 1 else f"{count} results"


@contextmanager
def passed_over(which: Callable[[MlflowException], bool]) -> Iterator[None]:
    """Go on after an error of the store for which `which` holds."""
    try:
        yield
    except MlflowException as error:
        if not which(error):
            raise


def _runs(client: MlflowClient, experiment_id: str, token: str) -> list[str]:
    found = client.search_runs([experiment_id], f"tags.`{schema.TOKEN}` = '{token}'", order_by=["start_time ASC"])
    return sorted(run.info.run_id for run in found)
