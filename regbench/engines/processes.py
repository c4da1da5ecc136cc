"""Trials side by side on a CPU: joblib's worker processes, each of which trains one trial after the other.

The trials are handed out and the events come back over a local socket, and not as joblib's arguments and results, so
that an epoch is seen when it ends. A worker that has ended a trial is given the next one.
"""

import os
import pickle
import queue
import secrets
import signal
import threading
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import AuthenticationError
from multiprocessing.connection import Client, Connection, Listener

import torch
from joblib import Parallel, delayed, parallel_config
from joblib.externals.loky import get_reusable_executor
from joblib.externals.loky.process_executor import TerminatedWorkerError

from regbench.data.images import Images
from regbench.engines import sequential
from regbench.engines.attempts import Attempts
from regbench.engines.base import Engine
from regbench.errors import one_line
from regbench.training import memory
from regbench.training.device_data import DeviceData
from regbench.training.events import Event
from regbench.trial import Trial

# how a connection introduces itself
WORKER, END = b"worker", b"end"


def start(engine: Engine, trials: Sequence[Trial], data: Images, resume: bool) -> Iterator[Event]:
    return train(trials, data, engine.jobs, engine.threads, resume)


def measure(engine: Engine, trials: Sequence[Trial], data: Images) -> float:
    return sequential.measure(engine, trials, data) / engine.jobs


def train(trials: Sequence[Trial], data: Images, jobs: int, threads: int = 1, resume: bool = True) -> Iterator[Event]:
    """Train `trials`, up to `jobs` at a time with `threads` threads each, and give their events as they happen.

    Trials are started in their order; the events of one come in order, those of several are mixed. Weights are bit for
    bit those of `sequential.train` with the same number of threads in this process. Close the iterator, as by
    contextlib.closing, when leaving it early: that ends the workers at once.

    When a worker dies (killed, or out of memory), joblib ends the others too. A trial that was alone in training then
    is Failed. Of several, nobody knows whose worker died first: each is trained again from its start, now alone, and is
    Failed if the worker dies again; no event of it is passed on twice. The rest goes on with fresh workers.

    What was cut off in an earlier process goes on, or with `resume` False begins again.

    Raises what a worker raises outside of a trial, such as UserError if there is no room for the data.
    """
    waiting = deque(map(Attempts, trials))
    try:
        while waiting:
            cut_off, reason = yield from _round(waiting, data, jobs, threads, resume)
            alone = len(cut_off) == 1
            for attempts in cut_off:
                failed = alone
                if not alone:
                    failed, reason = yield from _round(deque([attempts]), data, 1, threads, resume)
                if failed:
                    yield from attempts.fail(reason)
    finally:
        _kill()


def _round(
    waiting: deque[Attempts], data: Images, jobs: int, threads: int, resume: bool
) -> Generator[Event, None, tuple[list[Attempts], str]]:
    """Train what is waiting until all is done or a worker dies; return the trials cut off, and why, on one line."""
    before = len(waiting)
    workers = Workers(waiting, data, min(jobs, before), threads, resume)
    try:
        while not isinstance(item := workers.events.get(), Over):
            yield item
    finally:
        workers.end()
    if item.error and not workers.training and len(waiting) == before:
        raise item.error  # the next workers would end like these
    return workers.training, _reason(item.error)


def _reason(error: Exception | None) -> str:
    if isinstance(error, TerminatedWorkerError):
        return "the worker process died: killed, crashed or out of memory"
    return f"{type(error).__name__}: {one_line(error)}" if error else ""


@dataclass(frozen=True)
class Over:
    """The end of all workers: nothing comes after it. `error` is what ended them early."""

    error: Exception | None


class Workers:
    """Processes that train what is `waiting`; `training` is what they have taken from it and not ended.

    `events` ends with Over. It is short, and a worker whose event has no room there waits before it goes on: a consumer
    that is slower than the workers does not have results pile up.
    """

    def __init__(self, waiting: deque[Attempts], data: Images, count: int, threads: int, resume: bool = True) -> None:
        self.waiting, self.training = waiting, []
        self.events: queue.Queue[Event | Over] = queue.Queue(2 * count)
        self._key = secrets.token_bytes(32)
        self._listener = Listener(backlog=count, authkey=self._key)
        self._thread = threading.Thread(target=self._run, args=(data, count, threads, resume), daemon=True)
        self._thread.start()

    def end(self) -> None:
        """End the processes that still train; those that wait for more work may stay."""
        while self._thread.is_alive():
            _kill()  # again each time: joblib may have been about to start them
            with suppress(queue.Empty):  # whoever waits for room in the queue is to see that it is over
                while True:
                    self.events.get(timeout=0.1)
        self._listener.close()

    def _run(self, data: Images, count: int, threads: int, resume: bool) -> None:
        # inherited by the processes that this thread starts: Ctrl-C is for the parent, which ends them
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        accepting = threading.Thread(target=self._accept, daemon=True)
        accepting.start()
        error = None
        try:
            work = delayed(_work)(self._listener.address, self._key, data, threads, resume)
            with parallel_config(backend="loky", inner_max_num_threads=threads):
                # joblib would train in this process if there were only one; it writes arrays above 1 kB to a file that
                # the workers map, copied on write because torch warns of arrays that it must not write to
                Parallel(max(2, count), batch_size=1, max_nbytes=1024, mmap_mode="c")([work] * count)
        except Exception as raised:
            error = raised
        with Client(self._listener.address, authkey=self._key) as connection:
            connection.send_bytes(END)  # nothing else wakes a thread that accepts
        accepting.join()
        self.events.put(Over(error))

    def _accept(self) -> None:
        serving: list[threading.Thread] = []
        while True:
            try:
                connection = self._listener.accept()
                if connection.recv_bytes() == END:
                    break
            except (EOFError, ConnectionError, AuthenticationError):  # it died while it connected
                continue
            serving.append(threading.Thread(target=self._serve, args=(connection,), daemon=True))
            serving[-1].start()
        for thread in serving:
            thread.join()

    def _serve(self, connection: Connection) -> None:
        """Hand trials to one worker and take its events, until nothing waits or the worker is gone."""
        with connection, suppress(OSError, EOFError):
            while self.waiting:
                try:
                    attempts = self.waiting.popleft()
                except IndexError:  # another worker was faster
                    break
                self.training.append(attempts)
                connection.send_bytes(pickle.dumps(attempts.trial))
                self._listen(connection, attempts)
            connection.send_bytes(pickle.dumps(None))

    def _listen(self, connection: Connection, attempts: Attempts) -> None:
        attempts.begin()
        while not attempts.ended:
            event = pickle.loads(connection.recv_bytes())
            new = attempts.is_new(event)
            if attempts.ended:
                self.training.remove(attempts)
            if new:
                self.events.put(event)


def _kill() -> None:
    get_reusable_executor(reuse=True).shutdown(wait=True, kill_workers=True)


def _work(address: str, key: bytes, data: Images, threads: int, resume: bool) -> None:
    """Train the trials that the parent hands out; this is what runs in a worker."""
    torch.set_num_threads(threads)
    memory.keep_freed()
    device_data = DeviceData(data, torch.device("cpu"))
    try:
        with Client(address, authkey=key) as connection:
            connection.send_bytes(WORKER)
            while (trial := pickle.loads(connection.recv_bytes())) is not None:
                for event in sequential.train([trial], device_data, resume):
                    # plain pickle: torch's own would leave the tensors in shared memory that a dead worker takes along
                    connection.send_bytes(pickle.dumps(event))
    except (OSError, EOFError):  # the parent is gone, so that nobody would end this process
        os._exit(1)
