"""Which engine trains a sweep, and how many trials at once."""

from joblib import cpu_count

from regbench.data.images import Images
from regbench.engines.base import RAY, SEQUENTIAL, STACKED, Engine
from regbench.errors import UserError
from regbench.trial import Sweep

# below this many images in all, workers take longer to start than they save
WORTH_WORKERS = 200_000


def select(name: str, jobs: int | None, sweep: Sweep, data: Images, device: str, backend: str) -> Engine:
    """Return the engine for a sweep; `name` and `backend` as in base.py, `jobs` None is automatic.

    On a CPU, where stacks are slower (measured by benchmarks/speed.py), auto is `sequential`, with as many
    single-threaded trials side by side as there are cores if the sweep is large. That depends on the whole sweep and
    not on what is left of it, so that a continued sweep is rounded as an undisturbed one. On a GPU some steps of both
    are measured. With backend ray `device` is auto, cpu or cuda, of the cluster that is connected to. Raises UserError
    for a combination that cannot be.
    """
    if backend == RAY:
        from regbench.engines import ray

        device = ray.connect(device)
    for recipe in sweep.recipes:
        if recipe.precision in ("tf32", "bf16"):  # which not every device has
            import torch

            from regbench.training import precision

            precision.check(recipe.precision, torch.device(device), here=backend != RAY)
    if name == STACKED:
        _check_stacks(sweep, data)
    if backend == RAY:
        return _on_ray(name, jobs, sweep, data, device)
    if (device != "cpu" or name == STACKED) and jobs not in (None, 1):
        raise UserError(
            f"jobs={jobs} is for engine=sequential on a CPU; leave it out: a GPU, and a stack, train one after the other"
        )
    if name == STACKED:
        return stacked(device)
    if device != "cpu":
        return _faster(sweep, data, device) if name == "auto" else sequential(device)
    cores = cpu_count(only_physical_cores=True)
    if jobs is None:
        trials = sweep.longest
        images = sum(t.recipe.epochs * (t.recipe.train_size - t.recipe.val_size) for t in trials)
        jobs = min(cores, len(trials)) if images >= WORTH_WORKERS else 1
    if jobs == 1:
        return sequential(device)
    return processes(jobs, max(1, cores // jobs))


def sequential(device: str) -> Engine:
    """Return the engine that trains one trial after the other."""
    return Engine("sequential", SEQUENTIAL, SEQUENTIAL, device, _device_name(device))


def processes(jobs: int, threads: int) -> Engine:
    """Return the engine that trains trials side by side on the CPU."""
    label = f"{SEQUENTIAL}, {jobs} trials side by side"
    return Engine("processes", SEQUENTIAL, label, "cpu", "cpu", jobs, threads)


def stacked(device: str) -> Engine:
    """Return the engine that trains many trials as one network."""
    return Engine("stacked", STACKED, f"{STACKED}, as many trials at once as fit", device, _device_name(device))


def _device_name(device: str) -> str:
    """Return, for people, cpu or what the GPU is called."""
    if device == "cpu":
        return device
    import torch  # which has found the GPU already

    return f"cuda: {torch.cuda.get_device_name(device)}"


def _on_ray(name: str, jobs: int | None, sweep: Sweep, data: Images, device: str) -> Engine:
    """Return the engine on the cluster, with one thread for each trial: results do not depend on how large it is."""
    from regbench.engines import ray

    if jobs is not None:
        raise UserError(
            f"jobs={jobs} is for backend=local; leave it out: on Ray as many train as the nodes' CPUs or GPUs take "
            "(see `ray start --num-cpus`)"
        )
    if name == "auto":
        name = SEQUENTIAL if device == "cpu" else STACKED
        try:
            if name == STACKED:
                _check_stacks(sweep, data)
        except UserError:
            name = SEQUENTIAL
    slots = ray.slots(device)
    label = f"{name}, {slots} at once on a Ray cluster"
    return Engine("ray", name, label, device, device if device == "cpu" else ray.gpus(), slots, 1)


def _faster(sweep: Sweep, data: Images, device: str) -> Engine:
    one, many = sequential(device), stacked(device)
    if len(sweep.trials) == 1:
        return one
    try:
        _check_stacks(sweep, data)
        trials = [trial for trial in sweep.trials if trial.recipe == sweep.recipes[0]]
        return min(one, many, key=lambda engine: engine.seconds_per_image(trials, data))
    except Exception:  # a network that cannot be stacked, or whose step raises: its trials report that
        return one


def _check_stacks(sweep: Sweep, data: Images) -> None:
    from regbench.training import stack_check  # imports torch

    for recipe in sweep.recipes:
        stack_check.check(recipe, data)
