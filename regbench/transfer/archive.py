"""The file of an export: a zip of the records of runs, and of their small files.

regbench.json           the format, the experiment's name, the version of regbench
runs.jsonl              a record per line (see outbox.Record), sweeps first; a metric that is not a number is null
files/<token>/<name>    what a report needs beside the records
"""

import json
import math
import re
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
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
DATASET = {"name", "digest", "source_type", "source", "schema", "profile"}
LARGEST = 64 * 2**20  # bytes of a file, or of a record: a damaged or hostile archive does not fill the memory
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
        with self._reporting():
            self._zip = zipfile.ZipFile(path)
            description = json.loads(self._read(DESCRIPTION))
            found, self.experiment = int(description["format"]), str(description["experiment"])
            if found > FORMAT:
                raise UserError(f"{path} is of format {found}, which this version of regbench does not know: update it")
            if damaged := self._zip.testzip():
                raise ValueError(damaged)
            with self._zip.open(RUNS) as file:
                self.records = [_record(line) for line in iter(lambda: file.readline(LARGEST), b"")]
            self._names = set(self._zip.namelist())

    def close(self) -> None:
        self._zip.close()

    def extract(self, record: Record, folder: Path) -> None:
        """Write a record's files into `folder`; raises UserError if one is too large."""
        for name in OF_TRIAL if record.files else OF_SWEEP:
            if (member := f"{FILES}/{record.token}/{name}") in self._names:
                with self._reporting():
                    content = self._read(member)
                (folder / name).write_bytes(content)

    def _read(self, member: str) -> bytes:
        with self._zip.open(member) as file:
            content = file.read(LARGEST + 1)
        if len(content) > LARGEST:
            raise ValueError(f"{member} is larger than {LARGEST >> 20} MiB")
        return content

    @contextmanager
    def _reporting(self) -> Iterator[None]:
        """Turn what a file that is not one of these makes its readers raise into a UserError."""
        try:
            yield
        except OSError as error:
            raise UserError(
                f"{self.path} cannot be read ({error.strerror}): give a file that `regbench export` wrote"
            ) from error
        # RuntimeError: encrypted, or nested without end
        except (zipfile.BadZipFile, zlib.error, LookupError, ValueError, TypeError, EOFError, RuntimeError) as error:
            raise UserError(
                f"{self.path} is not a file that `regbench export` wrote, or is damaged ({one_line(error)}): export again"
            ) from error


def is_archive(path: Path) -> bool:
    """Return whether the file at `path` is one that `write` made."""
    try:
        with zipfile.ZipFile(path) as found:
            return {DESCRIPTION, RUNS} <= set(found.namelist())
    except (zipfile.BadZipFile, OSError):
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


def _record(line: bytes) -> Record:
    """Return the record of a line; raises ValueError, LookupError or TypeError for one that `_line` did not make."""
    record = Record(**json.loads(line))
    record.metrics = [
        (str(name), math.nan if value is None else float(value), _whole(time), _whole(step))
        for name, value, time, step in record.metrics
    ]
    kind = record.tags[schema.KIND]
    texts = (record.token, record.name, record.status, record.files)
    for text in (*texts, *(word for part in (record.tags, record.params, record.dataset) for word in _words(part))):
        if not isinstance(text, str) or "\0" in text:
            raise ValueError(f"{text!r} is no text")
    if not re.fullmatch(TOKEN, record.token) or record.status not in ENDED or kind not in ("sweep", "trial"):
        raise ValueError(f"{record.token!r} is not a run of regbench's")
    if (
        (record.run_id, record.replaces) != ("", "") or record.withheld or record.result
        or record.files != (schema.WEIGHTS if kind == "trial" else "")
        or (record.dataset and record.dataset.keys() != DATASET)
    ):  # fmt: skip
        raise ValueError(f"{record.token} has what no exported run has")
    if strange := [name for name in record.tags if not is_exported(name)]:
        raise ValueError(f"{record.token} has the tag {strange[0]!r}")
    _whole(record.start), _whole(record.end)
    return record


def _words(texts: Mapping[str, str]) -> Iterator[object]:
    if not isinstance(texts, dict):
        raise ValueError(f"{texts!r} are no texts by name")
    for pair in texts.items():
        yield from pair


def _whole(number: object) -> int:
    """Return a number that a database holds; raises ValueError for another."""
    if not isinstance(number, int) or not 0 <= number < 2**63:
        raise ValueError(f"{number!r} is no time or step")
    return number
