"""Trials or stacks spread over the machines of a Ray cluster: a task each, whose events stream back as they happen.

joblib's own backend for Ray would not do: its pool hands back what a task returns at the end, and ends with an error
when an actor is lost.
"""

import logging
import os
import re
import socket
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace

import ray
import torch
from ray.exceptions import RayError, RayTaskError

from regbench.data.images import Images
from regbench.engines import sequential, stacked
from regbench.engines.attempts import Attempts
from regbench.engines.base import STACKED, Engine
from regbench.errors import UserError, one_line
from regbench.training import memory
from regbench.training.device_data import DeviceData
from regbench.training.events import Event, Trained
from regbench.trial import Trial

# a trial that was lost so often, in training alone, is probably what kills its workers
LOSSES = 3
# events of a task that may wait for the driver: then the task waits, so that results do not pile up
WAITING = 2
REACH_SECONDS = 10


def connect(device: str) -> str:
    """Connect to the cluster and return the device that `device` (auto, cpu or cuda) means there.

    The cluster is that of RAY_ADDRESS, or one that runs on this machine; if there is none, one is started on this
    machine and ends with this process. Raises UserError if it cannot be reached or does not have the device.
    """
    if device not in ("auto", "cpu", "cuda"):
        raise UserError(f"device={device!r} is unknown with backend='ray'; accepted: auto, cpu, cuda")
    if not ray.is_initialized():
        _connect(os.environ.get("RAY_ADDRESS", ""))
    has_gpus = ray.cluster_resources().get("GPU", 0) >= 1
    if device == "cuda" and not has_gpus:
        raise UserError("device='cuda' is not there: the Ray cluster has no GPU; take device=auto or device=cpu")
    return "cuda" if has_gpus and device != "cpu" else "cpu"


def _connect(address: str) -> None:
    if address.startswith("ray://"):
        raise UserError(
            f"RAY_ADDRESS={address!r} is for Ray's client, which gives no events; run this on a node of the cluster, "
            "with RAY_ADDRESS=host:port"
        )
    # no statistics for Ray; a cluster that runs already has its own setting
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # of several nodes that raise, one is reported
    os.environ.setdefault("RAY_IGNORE_UNHANDLED_ERRORS", "1")
    try:
        if host := re.fullmatch(r"\[?(.+?)\]?:(\d{1,5})", address):  # Ray itself would try for two minutes
            socket.create_connection((host[1], int(host[2])), timeout=REACH_SECONDS).close()
        ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, OverflowError, ValueError, RuntimeError, SystemExit) as error:
        where = f"RAY_ADDRESS={address!r}" if address else "backend='ray'"
        raise UserError(
            f"{where}: no Ray cluster can be reached ({one_line(error)}); start one with `ray start --head`, the same "
            "Ray and Python on each node, or take RAY_ADDRESS=local to use this machine alone"
        ) from error


def slots(device: str) -> int:
    """Return how many tasks the cluster takes at once: one for each CPU core, or for each GPU."""
    return max(1, int(ray.cluster_resources().get("GPU" if device == "cuda" else "CPU", 0)))


def gpus() -> str:
    """Return what the cluster's GPUs are called."""
    types = [name.partition(":")[2] for name in sorted(ray.cluster_resources()) if name.startswith("accelerator_type:")]
    return f"cuda: {', '.join(types) or 'GPUs'} of a Ray cluster"


def call(function: Callable, device: str, *args: object) -> object:
    """Return what `function` returns on some node, where it has what a task of `train` has."""
    return ray.get(ray.remote(_call).options(**_options(device)).remote(function, *args))


def start(engine: Engine, trials: Sequence[Trial], data: Images, resume: bool) -> Iterator[Event]:
    return train(trials, data, engine.device, engine.name == STACKED, resume)


def measure(engine: Engine, trials: Sequence[Trial], data: Images) -> float:
    one = stacked if engine.name == STACKED else sequential
    return call(one.measure, engine.device, engine, trials, data) / engine.jobs


def train(
    trials: Sequence[Trial], data: Images, device: str, stack: bool = False, resume: bool = True
) -> Iterator[Event]:
    """Train `trials` on the cluster, each as a task, or with `stack` in stacks, and give their events as they happen.

    A task has a CPU core, which it uses with one thread, and with `device` cuda a GPU. On machines of one type the
    weights are bit for bit those of `sequential.train` with one thread. Nodes may join and leave meanwhile. Close the
    iterator, as by contextlib.closing, when leaving it early: that ends the tasks.

    What is lost with a worker or a node is trained again elsewhere, a stack in two halves; no event of it is passed on
    twice. A trial that is lost LOSSES times in training alone is Failed. What was cut off by an earlier process
    goes on where its node is found again, or with `resume` False begins again.

    Raises UserError for a node that has not the code, or no room for the data.
    """
    shared = ray.put(data)  # once to each node, where its processes map it
    work = ray.remote(_work).options(
        **_options(device), num_returns="streaming", _generator_backpressure_num_objects=WAITING
    )
    attempts = {trial: Attempts(trial) for trial in trials}
    waiting, running = deque(_tasks(trials, device, stack)), {}
    try:
        while waiting or running:
            # one more than runs, so that no node is idle meanwhile; a task counts until its last event is taken
            while waiting and len(running) <= slots(device):
                task = waiting.popleft()
                for trial in task.trials:
                    attempts[trial].begin()
                keys = [trial.key for trial in task.trials]
                running[work.remote(task, keys, shared, device, stack, resume)] = task
            (events,), _ = ray.wait(list(running), num_returns=1)
            task = running.pop(events)
            reason = "it ended early"
            try:
                event = ray.get(next(events))
            except StopIteration:
                pass
            except RayTaskError as error:  # raised there, outside of a trial
                raise _raised(error) from error
            except RayError as error:
                reason = str(error).partition("\n")[0]
            else:
                running[events] = task  # the last in turn
                if attempts[event.trial].is_new(event):
                    yield event
                continue
            left = [trial for trial in task.trials if not attempts[trial].ended]
            if len(left) == 1 and task.losses + 1 == LOSSES:
                yield from attempts[left[0]].fail(f"its worker was lost {LOSSES} times, the last time: {reason}")
            elif left:
                waiting.extendleft(reversed(task.again(left)))
    finally:
        for events in running:
            ray.cancel(events, force=True)


@dataclass(frozen=True)
class Task:
    """Trials to train in one place, and how often that was begun and lost; `fresh` after any loss.

    It does not go on with a stack that was cut off then: a trial in it that kills its workers would kill them again.
    """

    trials: list[Trial]
    losses: int = 0
    fresh: bool = False

    def again(self, left: list[Trial]) -> list["Task"]:
        """Return tasks for the trials that are left after a loss: two halves, or a trial alone."""
        if len(left) == 1:
            return [Task(left, self.losses + 1 if len(self.trials) == 1 else 0, fresh=True)]
        half = len(left) // 2
        return [Task(left[:half], fresh=True), Task(left[half:], fresh=True)]


def _tasks(trials: Sequence[Trial], device: str, stack: bool) -> Iterator[Task]:
    """Yield the trials one by one, or as stacks of one recipe: as many as give each GPU one, none too large to lose."""
    if not stack:
        yield from (Task([trial]) for trial in trials)
        return
    for recipe in dict.fromkeys(trial.recipe for trial in trials):
        members = [trial for trial in trials if trial.recipe == recipe]
        size = min(stacked.LARGEST[device], -(-len(members) // slots(device)))
        for first in range(0, len(members), size):
            yield Task(members[first : first + size])


def _options(device: str) -> dict[str, object]:
    # the retries are ours, which know the events so far
    return {"num_cpus": 1, "num_gpus": int(device == "cuda"), "max_retries": 0, "scheduling_strategy": "SPREAD"}


def _raised(error: RayTaskError) -> Exception:
    if isinstance(error.cause, UserError):
        return error.cause
    *_, last = str(error.cause or error).strip().splitlines()  # the last line of a traceback, where there is one
    return UserError(
        f"a node of the Ray cluster cannot train ({last}); regbench and your own modules must be "
        "importable on each node, in the same version as here"
    )


def _call(function: Callable, *args: object) -> object:
    return function(*args)  # Ray itself takes no methods


def _work(task: Task, keys: list[str], data: Images, device: str, stack: bool, resume: bool) -> Iterator[Event]:
    """Train the trials of one task; this is what runs on a node."""
    node = f"{socket.gethostname()}/{ray.get_runtime_context().get_node_id()[:8]}"
    torch.set_num_threads(1)
    memory.keep_freed()
    for trial, key in zip(task.trials, keys, strict=True):
        if replace(trial).key != key:  # a copy, whose key is that of the code here
            raise UserError(
                f"node {node} has other code for {trial.name} than the machine that started the sweep; install the same "
                "regbench, and the same modules of your own, on each node"
            )
    with warnings.catch_warnings():
        # shared by the processes of a node, and written by none
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        device_data = DeviceData(data, torch.device(device))
    if stack:
        events = stacked.train(task.trials, device_data, resume=resume and not task.fresh)
    else:
        events = sequential.train(task.trials, device_data, resume)
    for event in events:
        yield _for_the_way(event, node) if isinstance(event, Trained) else event


def _for_the_way(event: Trained, node: str) -> Trained:
    """Return the result with its tensors on the CPU: where it is read there may be no GPU."""
    tensors = {
        field.name: value.cpu()
        for field in fields(event)
        if isinstance(value := getattr(event, field.name), torch.Tensor)
    }
    weights = {name: weight.detach().cpu() for name, weight in event.weights.items()}
    return replace(event, **tensors, weights=weights, node=node)
