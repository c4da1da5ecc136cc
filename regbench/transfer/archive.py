"""The file of an export: a zip of the records of runs, and of their small files.

regbench.json           the format, the experiment's name, the version of regbench
runs.jsonl              a record per line (see outbox.Record), sweeps first; a metric that is not a number is null
files/<token>/<name>    what a report needs beside the records
"""

import json
import math
import re
import zipfile
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from regbench import __version__
from regbench.errors import UserError, one_line
from regbench.files import atomic
from regbench.tracking import schema
from regbench.tracking.outbox import Record

FORMAT = 1
DESCRIPTION, RUNS, FILES = "regbench.json", "runs.jsonl", "files"
# of a sweep's run and of a trial's; no networks, which are a hundred times as large, and no pictures
OF_SWEEP, OF_TRIAL = (
    (schema.SWEEP_FILE, schema.CHOICE_FILE),
    (schema.EPOCHS, schema.LAYERS, schema.COUNTS, schema.OUTPUT),
)
OURS = ("regbench.", "env.", "git.")  # beginnings of the names of regbench's own tags
OTHERS = (schema.PARENT, schema.SOURCE, schema.USER)  # of MLflow's; a parent is given by its token
ENDED = ("FINISHED", "FAILED", "KILLED")
TOKEN = r"[0-9a-f]{32}"  # of a run
LARGEST = 64 * 2**20  # bytes of a file, or of all records: a damaged or hostile archive does not fill the memory
DATE = (1980, 1, 1, 0, 0, 0)  # the same runs give the same bytes


def write(path: Path, experiment: str, runs: Iterable[tuple[Record, Mapping[str, bytes]]]) -> None:
    """Write records with their files, by name, as an archive; raises OSError if it cannot be written."""
    description = {"format": FORMAT, "experiment": experiment, "version": __version__}
    lines = []
    with atomic(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        _put(archive, DESCRIPTION, json.dumps(description, indent=1).encode())
        for record, files in runs:
            for name, content in files.items():
                _put(archive, f"{FILES}/{record.token}/{name}", content)
            lines.append(_line(record))
        _put(archive, RUNS, "".join(lines).encode())


class Archive:
    """An archive that is read; `records` are in the order in which runs are to be made, sweeps first."""

    def __init__(self, path: Path) -> None:
        """Read the records; raises UserError if the file is not there, not an archive of regbench's, or damaged."""
        self.path = path
        try:
            self._zip = zipfile.ZipFile(path)
            description = json.loads(self._read(DESCRIPTION))
            found, self.experiment = int(description["format"]), str(description["experiment"])
            if found > FORMAT:
                raise UserError(f"{path} is of format {found}, which this version of regbench does not know: update it")
            self.records = [_record(line) for line in self._read(RUNS).decode().splitlines()]
            self._names = set(self._zip.namelist())
        except OSError as error:
            raise UserError(
                f"{path} cannot be read ({error.strerror}): give a file that `regbench export` wrote"
            ) from error
        except (zipfile.BadZipFile, KeyError, ValueError, TypeError, NotImplementedError) as error:
            raise UserError(
                f"{path} is not a file that `regbench export` wrote, or is damaged ({one_line(error)}): export again"
            ) from error

    def close(self) -> None:
        self._zip.close()

    def extract(self, record: Record, folder: Path) -> None:
        """Write a record's files into `folder`; raises UserError if one is damaged."""
        for name in OF_TRIAL if record.files else OF_SWEEP:
            if (member := f"{FILES}/{record.token}/{name}") in self._names:
                try:
                    (folder / name).write_bytes(self._read(member))
                except (zipfile.BadZipFile, ValueError) as error:
                    raise UserError(f"{self.path} is damaged ({one_line(error)}): export again") from error

    def _read(self, member: str) -> bytes:
        with self._zip.open(member) as file:
            content = file.read(LARGEST + 1)
        if len(content) > LARGEST:
            raise ValueError(f"{member} is larger than {LARGEST >> 20} MiB")
        return content


def is_archive(path: Path) -> bool:
    """Return whether the file at `path` is one that `write` made."""
    with suppress(UserError):
        Archive(path).close()
        return True
    return False


def is_exported(tag: str) -> bool:
    """Return whether a run's tag of this name goes with it."""
    return tag.startswith(OURS) or tag in OTHERS


def _put(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    entry = zipfile.ZipInfo(name, DATE)
    entry.external_attr = 0o644 << 16
    archive.writestr(entry, content, zipfile.ZIP_DEFLATED)


def _line(record: Record) -> str:
    fields = {name: value for name, value in asdict(record).items() if value}
    fields["metrics"] = [
        (name, None if math.isnan(value) else value, time, step) for name, value, time, step in record.metrics
    ]
    return json.dumps(fields, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"


def _record(line: str) -> Record:
    """Return the record of a line; raises ValueError, KeyError or TypeError for one that `_line` did not make."""
    fields = json.loads(line)
    fields["metrics"] = [
        (str(name), math.nan if value is None else float(value), int(time), int(step))
        for name, value, time, step in fields["metrics"]
    ]
    record = Record(**fields)
    kind = record.tags[schema.KIND]
    if not re.fullmatch(TOKEN, record.token) or record.status not in ENDED or kind not in ("sweep", "trial"):
        raise ValueError(f"{record.token!r} is not a run of regbench's")
    if (
        record.run_id
        or record.withheld
        or record.replaces
        or record.files != (schema.WEIGHTS if kind == "trial" else "")
    ):
        raise ValueError(f"{record.token} has what no exported run has")
    if strange := [name for name in record.tags if not is_exported(name)]:
        raise ValueError(f"{record.token} has the tag {strange[0]!r}")
    return record
