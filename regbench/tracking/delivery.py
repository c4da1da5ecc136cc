"""Writing runs to the tracking store by idempotent steps: repeating them after a failure changes nothing."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.exceptions import MlflowException

from regbench.errors import TrackingError
from regbench.tracking import outbox, retry, schema
from regbench.tracking.drawer import Drawer
from regbench.tracking.outbox import Outbox, Record
from regbench.tracking.store import Store


def find_or_create_run(client: MlflowClient, experiment_id: str, record: Record, new: bool = False) -> str:
    """Return the id of the record's run, which an earlier attempt may have created; `new`: there was no attempt."""
    if not new and (found := _find_runs(client, experiment_id, record.token)):
        return found[0]
    tags = record.tags | {schema.TOKEN: record.token}
    return client.create_run(experiment_id, record.start, tags, record.name).info.run_id


@dataclass
class _Confirmed:
    """The parts of a run that the store has confirmed."""

    run_id: str = ""
    requested: bool = False  # whether its creation was requested
    doubtful: bool = False  # whether a request to create it failed, which may have succeeded in the store
    logged: int = 0  # metrics
    done: set[str] = field(default_factory=set)

    def do_once(self, name: str, task: Callable[[], object]) -> None:
        if name not in self.done:
            task()
            self.done.add(name)


class Delivery:
    """Writes records to one experiment. Any method may raise what MLflow raises, and may then be called again.

    What the store has confirmed is not sent again: with a server that fails every few requests it would never end.
    """

    def __init__(self, store: Store) -> None:
        self._client, self._experiment_id, self._outbox = store.client, store.create(), store.outbox
        self._confirmed: dict[str, _Confirmed] = defaultdict(_Confirmed)  # by token
        self._drawer = Drawer()

    def prepare(self, folder: Path, record: Record) -> None:
        """Begin with what `finish` needs of a result on disk, in another process: the pictures of a trial's weights."""
        if record.files:
            self._drawer.ask(folder / outbox.FILES, record.name)

    def close(self) -> None:
        """End what was begun."""
        self._drawer.close()

    def update(self, record: Record) -> None:
        """Write a running trial's parameters and metrics so far, unless its run has been deleted."""
        # content that the store rejects here is rejected with the result too, and handled there
        with ignoring(lambda error: retry.gone(error) or retry.refused(error)):
            run = self._ensure_run(record, new=not self._confirmed[record.token].requested)
            self._log(run, record)

    def finish(self, folder: Path) -> str:
        """Write a result that waits on disk, its status last, and remove it from the disk.

        One that is damaged, or whose content the store rejects, is set aside; return a message about that, "" otherwise.
        """
        try:
            record = outbox.read(folder)
        except outbox.Damaged as error:
            return f"{error}: set aside in {self._outbox.set_aside(folder)}"
        if (folder / outbox.FILES / schema.MODEL).exists():  # what is brought from another store has no network
            self._drawer.wait(folder / outbox.FILES, record.name)
        try:
            try:
                self._write(folder, record)
            except MlflowException as error:
                if not retry.gone(error):
                    raise
                # the run was deleted meanwhile: a new one gets the result
                self._confirmed.pop(record.token, None)
                self._write(folder, record)
        except MlflowException as error:
            if not retry.refused(error):
                raise
            path, name = self._outbox.set_aside(folder), record.name or "the sweep"
            self._fail(record)
            return f"the result of {name} is refused ({retry.describe(error)}): set aside in {path}"
        outbox.remove(folder)
        self._confirmed.pop(record.token, None)
        return ""

    def _write(self, folder: Path, record: Record) -> None:
        if record.run_id:
            with ignoring(retry.gone):
                run = self._confirmed[record.token]
                run.run_id = record.run_id
                self._send_files(run, folder, record)
                self._end(run, record)
            return
        run = self._ensure_run(record, new=False)
        self._send_files(run, folder, record)
        if run.doubtful:
            # a server that answered too late may have created a second run
            for other in _find_runs(self._client, self._experiment_id, record.token):
                if other != run.run_id:
                    self._client.delete_run(other)
        self._end(run, record)
        if record.replaces:
            with ignoring(retry.gone):
                self._client.set_tag(record.replaces, schema.SUPERSEDED, run.run_id)

    def _send_files(self, run: _Confirmed, folder: Path, record: Record) -> None:
        # but for what was being written when its process ended
        for path in sorted((folder / outbox.FILES).glob("[!.]*")):
            if path.name in record.withheld:
                continue
            run.do_once(path.name, lambda path=path: self._client.log_artifact(run.run_id, path, record.files or None))

    def kill(self, record: Record) -> None:
        """Mark the run of a trial that did not end as KILLED, if there is one."""
        run_id = record.run_id or self._confirmed[record.token].run_id
        if run_id:
            with ignoring(retry.gone):
                self._client.set_tag(run_id, schema.STATUS, "interrupted")
                self._client.set_terminated(run_id, "KILLED")

    def _fail(self, record: Record) -> None:
        """Mark the run of a result that was set aside as FAILED, as far as that succeeds."""
        run_id = record.run_id or self._confirmed.pop(record.token, _Confirmed()).run_id
        if run_id:
            with suppress(Exception):  # else the next start marks it
                for name, value in schema.outcome_tags("failed", "the tracking store refused the result").items():
                    self._client.set_tag(run_id, name, value)
                self._client.set_terminated(run_id, "FAILED")

    def _ensure_run(self, record: Record, new: bool) -> _Confirmed:
        """Return the record's run, with its parameters; `new`: it was not requested before."""
        run = self._confirmed[record.token]
        if not run.run_id:
            run.requested = True
            try:
                run.run_id = find_or_create_run(self._client, self._experiment_id, record, new)
            except Exception:
                run.doubtful = True
                raise
        params = [Param(name, value) for name, value in record.params.items()]
        run.do_once(".params", lambda: self._client.log_batch(run.run_id, params=params))
        if record.dataset:
            inputs = [DatasetInput(Dataset(**record.dataset), [InputTag(*schema.DATA_CONTEXT)])]
            run.do_once(".inputs", lambda: self._client.log_inputs(run.run_id, inputs))
        return run

    def _log(self, run: _Confirmed, record: Record, tags: Mapping[str, str] | None = None) -> None:
        # with the record's times, so that the store recognises points that it has already
        metrics = [Metric(*point) for point in record.metrics[run.logged :]]
        run_tags = [RunTag(name, value) for name, value in (tags or {}).items()]
        if metrics or run_tags:
            self._client.log_batch(run.run_id, metrics=metrics, tags=run_tags)
            run.logged += len(metrics)

    def _end(self, run: _Confirmed, record: Record) -> None:
        run.do_once(".metrics", lambda: self._log(run, record, record.result))
        if record.status != "RUNNING":  # else what is written to the run of a sweep that goes on
            self._client.set_terminated(run.run_id, record.status, record.end)


def flush(store: Store, report: Callable[[str], None], origin: str = "of an earlier start") -> int:
    """Write to the store what waits on disk for its experiment, by default left by earlier starts.

    Returns how many results were set aside: `report` gets a line about each. Raises TrackingError if that fails. To be
    called within `Outbox.starting`: other starts would train again what is being written.
    """
    box = store.outbox
    folders = box.claim()
    if not folders:
        return 0
    delivered = 0
    try:
        with closing(Delivery(store)) as delivery:
            for folder in folders:
                problem = retry.retry(lambda folder=folder: delivery.finish(folder), report)
                if problem:
                    report(problem)
                delivered += not problem
    except TrackingError as error:
        raise TrackingError(f"{error}. {describe_pending(box)}") from error
    finally:
        box.close()
    report(f"{format_results(delivered)} {origin} brought to the tracking store")
    return len(folders) - delivered


def describe_pending(box: Outbox) -> str:
    """Return a message about the results that wait on disk and what becomes of them."""
    count = len(box.folders())
    if not count:
        return "What was finished is kept: the same command continues"
    verb = "waits" if count == 1 else "wait"
    return (
        f"{format_results(count)} {verb} in {box.root}: the same command brings them to the store first, then continues"
    )


def format_results(count: int) -> str:
    """Return "1 result", "2 results"."""
    return f"{count} result" if count == 1 else f"{count} results"


@contextmanager
def ignoring(which: Callable[[MlflowException], bool]) -> Iterator[None]:
    """Suppress the store's errors for which `which` holds."""
    try:
        yield
    except MlflowException as error:
        if not which(error):
            raise


def _find_runs(client: MlflowClient, experiment_id: str, token: str) -> list[str]:
    found = client.search_runs([experiment_id], schema.where(schema.TOKEN, token), order_by=["start_time ASC"])
    return sorted(run.info.run_id for run in found)
