"""Runs of a tracking store -> the records of an export."""

import csv
import io
import tempfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from mlflow.entities import Run

from regbench.errors import UserError
from regbench.tracking import schema, settings
from regbench.tracking.outbox import Record
from regbench.tracking.store import Store
from regbench.transfer import archive

THREADS, AT_ONCE = 8, 64  # to ask a server; runs in memory
# of the process that wrote the run, and of the store that holds it
LEFT_OUT = (
    schema.OWNER, schema.HEARTBEAT, schema.TOKEN, schema.CONTINUED, schema.CHOSEN_BY, schema.PARENT,
)  # fmt: skip
OURS = "regbench"  # the source of runs that a command of regbench's has made


class Exported(NamedTuple):
    """What an export holds: runs of sweeps, and trials; without those that are `running`; `bare`: trials without files."""

    sweeps: int
    trials: int
    running: int
    bare: int


def export(store: Store, path: Path, sweep: str = "") -> Exported:
    """Write all ended runs of the store's experiment, or of one `sweep` (its id), to an archive at `path`.

    Raises UserError if there are none, or if the file cannot be written or is another program's.
    """
    if path.exists() and not archive.is_archive(path):
        raise UserError(f"out={str(path)!r} is there and no export of regbench's: move it away, or give another name")
    sweeps, trials = _chosen(store, sweep)
    ended = [run for run in trials if run.info.status in archive.ENDED]
    if not ended:
        where = f" of the sweep {sweep}" if sweep else ""
        raise UserError(
            f"the experiment {store.experiment!r} in {store.uri} holds no trial{where} that has ended: train some, or "
            "choose another experiment or sweep"
        )
    tokens = {run.info.run_id: schema.token(run) for run in sweeps}
    every, bare = [*sweeps, *ended], 0

    def taken(run: Run) -> tuple[Record, Mapping[str, bytes]]:
        files = _files(store, run)
        return _record(store, run, files, tokens), files

    def runs() -> Iterator[tuple[Record, Mapping[str, bytes]]]:
        nonlocal bare
        # here, so that what the store raises is told apart from a disk that cannot be written
        quiet = settings.override({"MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false"})
        with ThreadPoolExecutor(THREADS) as pool, store.reporting(), quiet:
            for first in range(0, len(every), AT_ONCE):
                for record, files in pool.map(taken, every[first : first + AT_ONCE]):
                    bare += bool(record.files) and record.status == "FINISHED" and schema.EPOCHS not in files
                    yield record, files

    try:
        archive.write(path, store.experiment, runs())
    except OSError as error:
        raise UserError(f"out={str(path)!r} cannot be written ({error.strerror}): give a file that can") from error
    return Exported(len(sweeps), len(ended), len(trials) - len(ended), bare)


def _chosen(store: Store, sweep: str) -> tuple[list[Run], list[Run]]:
    """Return the runs of sweeps, and those of trials."""
    every = store.search("")
    trials = [run for run in every if run.data.tags.get(schema.KIND) == "trial"]
    sweeps = [run for run in every if run.data.tags.get(schema.KIND) == "sweep"]
    if sweep:
        trials = [run for run in trials if sweep in schema.stages(run.data.tags)]
        parents = {run.data.tags.get(schema.PARENT) for run in trials}
        sweeps = [run for run in sweeps if run.data.tags.get(schema.SWEEP) == sweep or run.info.run_id in parents]
    return sweeps, trials


def _files(store: Store, run: Run) -> dict[str, bytes]:
    """Return name -> content of a run's files that a report needs, of those that are there."""
    trial = run.data.tags[schema.KIND] == "trial"
    place, wanted = (f"{schema.WEIGHTS}/", archive.OF_TRIAL) if trial else ("", archive.OF_SWEEP)
    there = {file.path for file in store.client.list_artifacts(run.info.run_id, place.rstrip("/") or None)}
    with tempfile.TemporaryDirectory(prefix="regbench-export-") as folder:
        return {
            name: Path(store.client.download_artifacts(run.info.run_id, f"{place}{name}", folder)).read_bytes()
            for name in wanted
            if f"{place}{name}" in there
        }


def _record(store: Store, run: Run, files: Mapping[str, bytes], tokens: Mapping[str, str]) -> Record:
    """Return what another store needs to have the run as this one has it, but for its network and its pictures.

    Its parent, by the id of a run of this store, becomes that run's token, from `tokens`.
    """
    trial = run.data.tags[schema.KIND] == "trial"
    tags = {name: value for name, value in run.data.tags.items() if archive.is_exported(name) and name not in LEFT_OUT}
    if tags.get(schema.SOURCE) != OURS:  # of `mlflow run`: the project's address, a folder of this machine
        tags.pop(schema.SOURCE, None)
    if trial:
        tags[schema.KEPT] = schema.LEFT_OUT
        if parent := tokens.get(run.data.tags.get(schema.PARENT, "")):
            tags[schema.PARENT] = parent
    inputs = run.inputs.dataset_inputs if run.inputs else ()
    running = run.info.status not in archive.ENDED  # a sweep whose finished trials go on elsewhere
    return Record(
        schema.token(run),
        run.info.run_name,
        "KILLED" if running else run.info.status,
        start=run.info.start_time,
        end=run.info.end_time or int(run.data.tags.get(schema.HEARTBEAT, run.info.start_time)),
        tags=tags,
        params=dict(run.data.params) if trial else {},  # of a sweep those of `mlflow run`, with its folders
        dataset=dict(inputs[0].dataset) if trial and inputs else {},
        metrics=_metrics(store, run, files),
        files=schema.WEIGHTS if trial else "",
    )


def _metrics(store: Store, run: Run, files: Mapping[str, bytes]) -> list[tuple[str, float, int, int]]:
    """Return all points of a run's metrics: the last of each, and those before it of those in epochs.csv.

    Of a run without that file all are asked for, by a request each.
    """
    table = files.get(schema.EPOCHS, b"").decode(errors="replace")
    per_epoch = set(next(csv.reader(io.StringIO(table)), run.data.metrics)) & set(run.data.metrics)
    last = [one for one in run.to_proto().data.metrics if one.key not in per_epoch]
    points = [(one.key, one.value, one.timestamp, one.step) for one in last]
    for name in sorted(per_epoch):
        history = store.client.get_metric_history(run.info.run_id, name)
        points += [(name, one.value, one.timestamp, one.step) for one in history]
    return sorted(points, key=lambda point: (point[0], point[3], point[2]))
