"""Telling the tracking store of a run, so that doing it again after a failure changes nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.exceptions import MlflowException

from regbench.errors import TrackingError
from regbench.tracking import outage, outbox, schema
from regbench.tracking.outbox import Record

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
    """Brings records into one experiment. Any method may raise what MLflow raises, and may then be called again."""

    def __init__(self, client: MlflowClient, experiment_id: str) -> None:
        self._client, self._experiment_id = client, experiment_id
        self._runs: dict[str, str] = {}  # token -> id of a run that has its parameters
        self._asked: set[str] = set()  # tokens for which a run was asked for
        self._doubtful: set[str] = set()  # those for which the store may have made one without saying so
        self._logged: dict[str, int] = {}  # token -> how many metrics the store is known to have

    def update(self, record: Record) -> str:
        """Have the run there, with its parameters and the metrics so far; return its id."""
        run_id = self._opened(record, new=record.token not in self._asked)
        done, metrics = self._logged.get(record.token, 0), list(record.metrics)
        if metrics[done:]:
            self._client.log_batch(run_id, metrics=_metrics(metrics[done:]))
            self._logged[record.token] = len(metrics)
        return run_id

    def finish(self, folder: Path) -> None:
        """Bring a result that waits on disk, complete before the run's status says so, and remove it there."""
        record = outbox.read(folder)
        if record.run_id:
            with _unless_gone():  # else there is nothing left that could be told
                self._end(record, record.run_id)
        else:
            run_id = self._opened(record, new=False)
            if record.files:
                self._client.log_artifacts(run_id, str(folder / outbox.FILES), record.files)
            if record.token in self._doubtful:
                # a server that answered too late may have made one run more
                for other in _runs(self._client, self._experiment_id, record.token):
                    if other != run_id:
                        self._client.delete_run(other)
            self._end(record, run_id)
            if record.replaces:
                with _unless_gone():
                    self._client.set_tag(record.replaces, schema.SUPERSEDED, run_id)
        outbox.remove(folder)
        for known in (self._runs, self._logged):
            known.pop(record.token, None)
        for known in (self._asked, self._doubtful):
            known.discard(record.token)

    def kill(self, record: Record) -> None:
        """Mark the run of a trial that did not end as KILLED, if there is one."""
        run_id = record.run_id or self._runs.get(record.token)
        if run_id:
            self._client.set_tag(run_id, schema.STATUS, "interrupted")
            self._client.set_terminated(run_id, "KILLED")

    def _opened(self, record: Record, new: bool) -> str:
        """Return the id of the record's run with its parameters; `new`: it was not asked for before."""
        token = record.token
        if token not in self._runs:
            self._asked.add(token)
            try:
                run_id = one_run(self._client, self._experiment_id, record, new)
            except Exception:
                self._doubtful.add(token)
                raise
            self._client.log_batch(run_id, params=[Param(name, value) for name, value in record.params.items()])
            context = [InputTag("mlflow.data.context", "training")]
            self._client.log_inputs(run_id, [DatasetInput(Dataset(**record.dataset), context)])
            self._runs[token] = run_id
        return self._runs[token]

    def _end(self, record: Record, run_id: str) -> None:
        # the times are the record's, so that the store knows the points that it has already
        rest = record.metrics[self._logged.get(record.token, 0) :]
        tags = [RunTag(name, value) for name, value in record.result.items()]
        self._client.log_batch(run_id, metrics=_metrics(rest), tags=tags)
        self._client.set_terminated(run_id, record.status, record.end)


def deliver_first(store: Store, say: Callable[[str], None]) -> None:
    """Bring what earlier starts left on disk for the store's experiment; raises TrackingError if it cannot be brought."""
    box = store.outbox
    waiting = box.claim()
    if not waiting:
        return
    try:
        delivery = Delivery(store.client, store.create())
        for folder in waiting:
            outage.patiently(lambda folder=folder: delivery.finish(folder), say)
    except TrackingError as error:
        raise TrackingError(f"{error}. {left(box)}") from error
    finally:
        box.close()
    say(f"{_results(len(waiting))} of an earlier start brought to the tracking store")


def left(box: outbox.Outbox) -> str:
    """Say what waits on disk, and what becomes of it."""
    count = len(box.waiting())
    if not count:
        return "What was finished is kept: the same command continues"
    verb = "waits" if count == 1 else "wait"
    return f"{_results(count)} {verb} in {box.root}: the same command brings them to the store first, then continues"


def _results(count: int) -> str:
    return f"{count} result" if count == 1 else f"{count} results"


@contextmanager
def _unless_gone() -> Iterator[None]:
    """Pass over a run that is not in the store any more."""
    try:
        yield
    except MlflowException as error:
        if not outage.gone(error):
            raise


def _runs(client: MlflowClient, experiment_id: str, token: str) -> list[str]:
    found = client.search_runs([experiment_id], f"tags.`{schema.TOKEN}` = '{token}'", order_by=["start_time ASC"])
    return sorted(run.info.run_id for run in found)


def _metrics(points: list) -> list[Metric]:
    return [Metric(*point) for point in points]
