"""The records of an export -> runs of another tracking store."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import NamedTuple

from mlflow.entities import Run

from regbench import results
from regbench.errors import UserError
from regbench.tracking import retry, schema
from regbench.tracking.delivery import flush
from regbench.tracking.outbox import Record
from regbench.tracking.store import Store
from regbench.transfer.archive import Archive

ORIGIN = "of another store"


class Imported(NamedTuple):
    """How many trials an import brought, how many the store had already, and how many runs it refused."""

    brought: int
    known: int
    refused: int = 0


def deliver(store: Store, found: Archive, tell: Callable[[str], None]) -> Imported:
    """Have the store's experiment hold an archive's runs, with their own times and names, each once.

    A trial that it holds already, by its token, only becomes part of the sweeps that it is part of in the archive; a
    sweep's run that was brought earlier, and has gone on since, is brought up to date. What is interrupted is gone on with
    by the next call, also on another machine.
    Raises UserError if the archive is damaged or the disk fails, TrackingError if the store does.
    """
    store.check_files()
    sweeps = [record for record in found.records if not record.files]
    trials = [record for record in found.records if record.files]
    with retry.single_attempt(), store.outbox.starting():
        retry.retry(store.create, tell)
        flush(store, tell)
        there = _by_token(store)
        for record in sweeps:
            _put(store, found, _update(store, record, there.get(record.token)))
        refused = flush(store, tell, ORIGIN)
        ids = {token: run.info.run_id for token, run in _by_token(store).items()}
        new = [record for record in trials if not _is_there(record, there.get(record.token))]
        for record in new:
            parent = ids.get(record.tags.get(schema.PARENT, ""))
            tags = {name: value for name, value in record.tags.items() if name != schema.PARENT}
            _put(store, found, replace(record, tags=tags | ({schema.PARENT: parent} if parent else {})))
        refused += flush(store, tell, ORIGIN)
        known = [record for record in trials if _is_there(record, there.get(record.token))]
        retry.retry(lambda: _join(store, known, there), tell)
    return Imported(len(new), len(known), refused)


def _by_token(store: Store) -> dict[str, Run]:
    return {schema.token(run): run for run in store.search("")}


def _put(store: Store, found: Archive, record: Record | None) -> None:
    if record is None:
        return
    try:
        store.outbox.put(record, lambda folder: found.extract(record, folder))
    except OSError as error:
        raise UserError(
            f"{store.outbox.root}, from where runs go to the tracking store, cannot be written ({error.strerror}): "
            "make room there, or set REGBENCH_CACHE to another folder"
        ) from error


def _is_there(record: Record, run: Run | None) -> bool:
    """Return whether a run is there in full: one that ended otherwise, or an import that was cut off, gets the record."""
    return run is not None and run.info.status in ("FINISHED", record.status)


def _update(store: Store, record: Record, run: Run | None) -> Record | None:
    """Return what the store lacks of a sweep's run, None if it is as new as the record, or was made here."""
    half = run is not None and run.info.status == "RUNNING" and schema.OWNER not in run.data.tags
    if run is None or half:
        # with the description that it has until a report is made
        note = results.report_line(store.experiment, record.tags.get(schema.SWEEP, ""))
        return replace(record, tags=record.tags | {schema.NOTE: note})
    if schema.OWNER in run.data.tags or (run.info.end_time or 0) >= record.end:
        return None
    changed = {name: value for name, value in record.tags.items() if run.data.tags.get(name) != value}
    return Record(record.token, "", record.status, run.info.run_id, end=record.end, result=changed)


def _join(store: Store, records: Iterable[Record], there: Mapping[str, Run]) -> None:
    """Have trials that are there be part of the sweeps that the records name."""
    for record in records:
        run = there[record.token]
        for sweep, stage in schema.stages(record.tags).items():
            if sweep not in schema.stages(run.data.tags):
                for name, value in schema.membership(sweep, stage).items():
                    store.client.set_tag(run.info.run_id, name, value)
