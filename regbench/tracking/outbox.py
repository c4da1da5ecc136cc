"""Results on disk until the tracking store has them: a folder per result, kept through crashes, claimed by one process."""

import hashlib
import json
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

from filelock import FileLock, Timeout

from regbench.errors import UserError, one_line
from regbench.files import atomic, state_folder

RECORD = "record.json"  # written last: a folder without it is not a result
FILES = "files"
START_SECONDS = 300.0


@dataclass
class Record:
    """The content of one run for the tracking store.

    `token` identifies the run before the store has given it an id; `run_id` is set for a run that exists already.
    Metrics are (name, value, time in ms, step): to MLflow a point with the same time is the same point.
    """

    token: str
    name: str
    status: str = "RUNNING"
    run_id: str = ""
    start: int = 0  # ms
    end: int = 0  # ms
    tags: dict[str, str] = field(default_factory=dict)  # at the start
    result: dict[str, str] = field(default_factory=dict)  # tags at the end
    params: dict[str, str] = field(default_factory=dict)
    dataset: dict[str, str] = field(default_factory=dict)
    metrics: list[tuple[str, float, int, int]] = field(default_factory=list)
    files: str = ""  # artifact folder of the run's files
    withheld: list[str] = field(default_factory=list)  # of the files on disk, those that are not sent
    replaces: str = ""  # the id of an earlier finished run


class Damaged(Exception):
    """A result on disk that cannot be read; the message says why."""


class Outbox:
    """The results of one process that wait for one experiment of one store; its folder is created with the first.

    Results of another user in the same folder are left alone.
    """

    def __init__(self, uri: str, experiment: str) -> None:
        digest = hashlib.sha256(f"{uri}\0{experiment}".encode()).hexdigest()[:16]
        self.root = state_folder() / "waiting" / digest
        self.refused = state_folder() / "refused" / digest  # results that the store rejects
        self.folder = self.root / uuid.uuid4().hex
        # the system releases it when the process ends, however it ends
        self._lock = FileLock(_lock(self.folder), thread_local=False)

    def put(self, record: Record, write: Callable[[Path], None] | None = None) -> Path:
        """Write a result, its files by `write` into the folder that it is given, and return the result's folder.

        It is on the disk when this returns. Raises OSError if it cannot be written.
        """
        self._open()
        # names sort by time, also those of several processes
        folder = self.folder / f"{time.time_ns():020d}-{record.token}"
        folder.mkdir()
        try:
            if write:
                (folder / FILES).mkdir()
                write(folder / FILES)
                for path in (folder / FILES).iterdir():
                    _sync(path)
                _sync(folder / FILES)
            with atomic(folder / RECORD) as path:
                path.write_text(json.dumps(asdict(record)))
                _sync(path)
            _sync(folder)
            _sync(self.folder)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        return folder

    def folders(self) -> list[Path]:
        """Return the folders of this process's results, oldest first."""
        return _results(self.folder)

    def pending(self) -> int:
        """Return the number of results that processes which no longer run have left."""
        return sum(len(_results(folder)) for folder, _ in self._abandoned())

    def claim(self) -> list[Path]:
        """Take over the results of processes that no longer run; return the folders of all that wait.

        Raises UserError if the folder cannot be written.
        """
        try:
            for folder, lock in self._abandoned():
                for result in _results(folder):
                    self._open()
                    result.rename(self.folder / result.name)
                shutil.rmtree(folder, ignore_errors=True)
                with suppress(OSError):
                    lock.unlink()
        except OSError as error:
            raise self._unwritable(error) from error
        return self.folders()

    def set_aside(self, folder: Path) -> Path:
        """Move a result to the folder of refused ones and return its new path; raises OSError if that fails."""
        self.refused.mkdir(parents=True, exist_ok=True)
        return folder.rename(self.refused / folder.name)

    def close(self) -> None:
        """Leave the results that still wait to the next process."""
        if self._lock.is_locked and not self.folders():
            shutil.rmtree(self.folder, ignore_errors=True)
            with suppress(OSError):
                _lock(self.folder).unlink()
        self._lock.release()

    @contextmanager
    def starting(self) -> Iterator[None]:
        """Hold off other starts of a sweep into the same experiment, so that each sees what the other has begun."""
        lock = FileLock(self.root / "start.lock", timeout=START_SECONDS)
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            lock.acquire()
        except Timeout:
            raise UserError(
                "another sweep into this experiment has been starting, or bringing results, for minutes: wait for it, or "
                "end it, then run the command again"
            ) from None
        except OSError as error:
            raise self._unwritable(error) from error
        try:
            yield
        finally:
            lock.release()

    def _unwritable(self, error: OSError) -> UserError:
        return UserError(
            f"the folder {self.root}, in which results wait for the tracking store, cannot be written "
            f"({error.strerror}): set REGBENCH_CACHE to a folder that can"
        )

    def _open(self) -> None:
        if not self._lock.is_locked:
            self.root.mkdir(parents=True, exist_ok=True)
            self._lock.acquire()  # first: other processes claim a folder without a lock
        self.folder.mkdir(exist_ok=True)

    def _abandoned(self) -> Iterator[tuple[Path, Path]]:
        """Yield each folder whose process has ended, with its lock file; the lock is held meanwhile."""
        try:
            found = sorted(self.root.iterdir())
        except OSError:  # missing, or not readable: reported where it is to be written
            return
        for folder in found:
            if not folder.is_dir() or folder == self.folder:
                continue
            # left alone: its process is alive, or it is another user's
            with suppress(Timeout, OSError), FileLock(_lock(folder), timeout=0):
                if folder.is_dir():
                    yield folder, _lock(folder)


def read(folder: Path) -> Record:
    """Return the record of the result in this folder; raises Damaged if it cannot be read."""
    try:
        return Record(**json.loads((folder / RECORD).read_text()))
    except (ValueError, TypeError) as error:
        raise Damaged(f"{folder / RECORD} is damaged ({one_line(error)})") from error


def remove(folder: Path) -> None:
    """Remove a result, the record first: after an interruption the rest is not taken for a result."""
    (folder / RECORD).unlink()
    shutil.rmtree(folder, ignore_errors=True)


def _results(folder: Path) -> list[Path]:
    return sorted(path.parent for path in folder.glob(f"*/{RECORD}"))


def _lock(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.lock")


def _sync(path: Path) -> None:
    """Flush a file's content, or a folder's list of files, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
