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
    """How many trials an import has added, and how many of the archive's the store had already."""

    added: int
    known: int


def deliver(store: Store, found: Archive, tell: Callable[[str], None]) -> Imported:
    """Have the store's experiment hold an archive's runs, with their own times and names, each once.

    A run that it holds already, by its token, only becomes part of the sweeps that it is part of in the archive; a sweep's
    run that has gone on since it was brought is brought up to date. What is interrupted is gone on with by the next call.
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
            _put(store, found, _update(record, there[record.token]) if record.token in there else _new(store, record))
        flush(store, tell, ORIGIN)
        ids = {token: run.info.run_id for token, run in _by_token(store).items()}
        new = [record for record in trials if record.token not in there]
        for record in new:
            parent = ids.get(record.tags.get(schema.PARENT, ""))
            tags = {name: value for name, value in record.tags.items() if name != schema.PARENT}
            _put(store, found, replace(record, tags=tags | ({schema.PARENT: parent} if parent else {})))
        flush(store, tell, ORIGIN)
        known = [record for record in trials if record.token in there]
        retry.retry(lambda: _join(store, known, there), tell)
    return Imported(len(new), len(known))


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


def _new(store: Store, record: Record) -> Record:
    """Return the record of a sweep's run, with the description that it has until a report is made."""
    note = results.report_line(store.experiment, record.tags.get(schema.SWEEP, ""))
    return replace(record, tags=record.tags | {schema.NOTE: note})


def _update(record: Record, run: Run) -> Record | None:
    """Return what a sweep's run lacks, None if it is as new as the record."""
    if (run.info.end_time or 0) >= record.end:
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
