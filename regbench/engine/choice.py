"""Which engine trains a sweep, and how many trials at once."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from typing import TYPE_CHECKING

from joblib import cpu_count

from regbench import __version__, environment, regularizers
from regbench.data.images import Images
from regbench.engine import remembered
from regbench.errors import UserError
from regbench.sweep import NOTEBOOK, Sweep, Trial

if TYPE_CHECKING:  # torch takes seconds to import: the functions that train do it, a plan often needs none of them
    from regbench.engine.events import Event

SEQUENTIAL, STACKED = "sequential", "stacked"
NAMES = ("auto", SEQUENTIAL, STACKED)
LOCAL, RAY = "local", "ray"
BACKENDS = (LOCAL, RAY)
# below this many images in all, workers take longer to start than they save
WORTH_WORKERS = 200_000


@dataclass(frozen=True)
class Engine:
    """`jobs` trials side by side in processes of `threads` threads each (CPU), or stacks of as many as fit.

    `device` is cpu or cuda:N; jobs 1 is this process with torch's own number of threads. With `backend` ray it is cpu or
    cuda, and `jobs` trials or stacks are trained at once on the nodes of a cluster.
    """

    name: str
    device: str
    jobs: int = 1
    threads: int = 0
    backend: str = LOCAL

    @property
    def label(self) -> str:
        """For people: the engine and what runs at once."""
        if self.backend == RAY:
            return f"{self.name}, {self.jobs} at once on a Ray cluster"
        if self.name == STACKED:
            return f"{self.name}, as many trials at once as fit"
        return f"{self.name}, {self.jobs} trials side by side" if self.jobs > 1 else self.name

    @property
    def device_name(self) -> str:
        """For people: cpu, or what the GPU is called."""
        if self.device == "cpu":
            return self.device
        if self.backend == RAY:
            from regbench.engine import ray_cluster

            return ray_cluster.gpus()
        import torch

        return f"cuda: {torch.cuda.get_device_name(self.device)}"

    def train(self, trials: Sequence[Trial], data: Images, resume: bool = True) -> Iterator[Event]:
        """Train `trials`; the events of one come in order, those of several may be mixed.

        What was cut off in an earlier process goes on, or with `resume` False begins again.
        """
        import torch

        from regbench.engine import memory, sequential, side_by_side, stacked
        from regbench.engine.resident import Resident

        memory.keep_freed()
        if self.backend == RAY:
            from regbench.engine import ray_cluster

            return ray_cluster.train(trials, data, self.device, self.name == STACKED, resume)
        if self.jobs > 1:
            return side_by_side.train(trials, data, self.jobs, self.threads, resume)
        resident = Resident(data, torch.device(self.device))
        if self.name == STACKED:
            return stacked.train(trials, resident, resume=resume)
        return sequential.train(trials, resident, resume)

    def seconds_per_image(self, trials: Sequence[Trial], data: Images) -> float:
        """Return the seconds that training on an image takes per trial, measured on some steps of this device.

        Of the packaged network and regularizers the measurement is remembered; a user's own may change under the same
        name.
        """
        recipe, last = trials[0].recipe, trials[-1]
        if recipe.model != NOTEBOOK or any(regularizers.is_plugin(trial.regularizer) for trial in trials):
            return self._measure(trials, data)
        circumstances = asdict(self) | {
            "model": environment.processor() if self.device == "cpu" else self.device_name,
            "batch_size": recipe.batch_size,
            "precision": recipe.precision,
            "classes": len(data.classes),
            "regularizer": [last.regularizer, last.scope],
            "trials": len(trials) if self.name == STACKED else 1,
            "torch": version("torch"),
            "regbench": __version__,
            "cores": [cpu_count(), os.environ.get("OMP_NUM_THREADS")],
        }
        seconds = remembered.recall("seconds_per_image", **circumstances)
        if not isinstance(seconds, float):
            seconds = self._measure(trials, data)
            remembered.remember("seconds_per_image", seconds, **circumstances)
        return seconds

    def _measure(self, trials: Sequence[Trial], data: Images) -> float:
        if self.backend == RAY:
            from regbench.engine import ray_cluster

            alone = replace(self, backend=LOCAL, jobs=1)
            return ray_cluster.call(alone._measure, self.device, trials, data) / self.jobs
        import torch

        from regbench.engine import memory, sequential, stacked
        from regbench.engine.resident import Resident

        memory.keep_freed()
        batch, device = trials[0].recipe.batch_size, torch.device(self.device)
        if self.name == STACKED:
            resident = Resident(data, device)
            size = stacked.capacity(trials[0], resident)
            return stacked.seconds_per_step(trials[:size], data, device) / batch
        before = torch.get_num_threads()
        torch.set_num_threads(self.threads or before)
        try:
            return sequential.seconds_per_step(trials[-1], data, device) / batch / self.jobs
        finally:
            torch.set_num_threads(before)


def choose(name: str, jobs: int | None, sweep: Sweep, data: Images, device: str, backend: str = LOCAL) -> Engine:
    """Return the engine for a sweep; `name` is one of NAMES, `backend` of BACKENDS, `jobs` None is automatic.

    On a CPU, where stacks are slower (measured by benchmarks/speed.py), auto is `sequential`, with as many
    single-threaded trials side by side as there are cores if the sweep is large. That depends on the whole sweep and
    not on what is left of it, so that a continued sweep is rounded as an undisturbed one. On a GPU some steps of both
    are measured. Raises UserError for a combination that cannot be.
    """
    if name not in NAMES:
        raise UserError(f"engine={name!r} is unknown; accepted: {', '.join(NAMES)}")
    for recipe in sweep.recipes:
        if recipe.precision == "tf32":  # the one that not every device has
            import torch

            from regbench.engine import precision

            precision.check(recipe.precision, torch.device(device))
        if name == STACKED:
            from regbench.engine import stacked

            stacked.check(recipe, data)
    if backend == RAY:
        return _on_ray(name, jobs, sweep, data, device)
    alone = device != "cpu" or name == STACKED
    if alone and jobs not in (None, 1):
        raise UserError(
            f"jobs={jobs} is for engine=sequential on a CPU; leave it out: a GPU, and a stack, train one after the other"
        )
    if name == STACKED:
        return Engine(STACKED, device)
    if device != "cpu":
        return _faster(sweep, data, device) if name == "auto" else Engine(SEQUENTIAL, device)
    cores = cpu_count(only_physical_cores=True)
    if jobs is None:
        images = sum(t.recipe.epochs * (t.recipe.train_size - t.recipe.val_size) for t in sweep.trials)
        jobs = min(cores, len(sweep.trials)) if images >= WORTH_WORKERS else 1
    return Engine(SEQUENTIAL, device, jobs, max(1, cores // jobs) if jobs > 1 else 0)


def _on_ray(name: str, jobs: int | None, sweep: Sweep, data: Images, device: str) -> Engine:
    """Return the engine on the cluster, with one thread for each trial: results do not depend on how large it is."""
    from regbench.engine import ray_cluster, stacked

    if jobs is not None:
        raise UserError(
            f"jobs={jobs} is for backend=local; leave it out: on Ray as many train as the nodes' CPUs or GPUs take "
            "(see `ray start --num-cpus`)"
        )
    if name == "auto":
        name = SEQUENTIAL if device == "cpu" else STACKED
        try:
            for recipe in sweep.recipes if name == STACKED else ():
                stacked.check(recipe, data)
        except UserError:
            name = SEQUENTIAL
    return Engine(name, device, ray_cluster.slots(device), 1, RAY)


def _faster(sweep: Sweep, data: Images, device: str) -> Engine:
    one, many = Engine(SEQUENTIAL, device), Engine(STACKED, device)
    if len(sweep.trials) == 1:
        return one
    from regbench.engine import stacked

    try:
        for recipe in sweep.recipes:
            stacked.check(recipe, data)
        trials = [trial for trial in sweep.trials if trial.recipe == sweep.recipes[0]]
        return min(one, many, key=lambda engine: engine.seconds_per_image(trials, data))
    except Exception:  # a network that cannot be stacked, or whose step raises: that is for its trials to tell
        return one
