"""How long a step takes, recorded and not, beside what the device could do and the notebook's loop."""

import gc
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import cache
from itertools import cycle, islice, product
from multiprocessing import get_context
from unittest.mock import patch

import torch

from benchmarks import speed
from benchmarks.gpu.setting import Setting, lam, trials
from regbench.regularizers import REGISTRY
from regbench.training import stack, stacked_networks
from regbench.trial import Recipe, Trial

# the precisions that are timed; float64 is for checks
TIMED = ("float32", "tf32", "bf16")
STACKS = {
    "none": ("none",),
    "l1": ("l1",),
    "mixed": tuple(REGISTRY),
    "dropout": ("dropout",),
}


def steps(setting: Setting, found: dict) -> None:
    """Time steps of stacks, each time and recorded, and of the notebook's loop; and the device's ceilings."""
    sizes, kinds = setting.sizes, [kind for kind in TIMED if kind in setting.precisions]
    recipe = setting.recipe(batch_size=sizes.timed_batch, train_size=len(setting.few.train_labels))
    top = speed.ceilings(setting.device, kinds)
    found["products TFLOP/s"] = {kind: rate / 1e12 for kind, rate in top.flops.items()}
    found["copies GB/s"] = top.bytes / 1e9
    with ProcessPoolExecutor(
        1, get_context("spawn"), speed.open_loop, (setting.few, setting.device, sizes.timed)
    ) as separate:
        loops = {trial.regularizer: separate.submit(speed.time_loop, trial) for trial in trials(recipe, ["none", "l1"])}
        found["notebook's loop, ms"] = {name: 1e3 * future.result() for name, future in loops.items()}
    times = found["K, precision, regularizers: ms a step, recorded; share of products"] = {}
    counts = (1, 8, *sizes.stacks[2:]) if setting.device.type == "cuda" else sizes.stacks
    left, begin = [], time.monotonic()
    # a network is made once and not for each stack, which would take longer than all the steps
    with patch.object(stacked_networks, "initial_model", cache(stacked_networks.initial_model)):
        for count, kind, name in product(counts, kinds, STACKS):
            what = f"{count}, {kind}, {name}"
            some = _stack(replace(recipe, precision=kind), STACKS[name], count)
            try:
                if time.monotonic() - begin > sizes.budget:
                    raise TimeoutError
                eager, recorded = _seconds(setting, some)
            except (TimeoutError, torch.OutOfMemoryError) as error:
                left.append(f"{what}: {type(error).__name__}")
                continue
            needed = speed.FLOP_PER_IMAGE * recipe.batch_size * count
            share = needed / top.flops[kind] / min(eager, recorded or eager)
            times[what] = [1e3 * eager, recorded and 1e3 * recorded, share]
    found["left out"] = left


def _seconds(setting: Setting, some: list[Trial]) -> tuple[float, float | None]:
    """Return the seconds of a stack's step, and those of a recorded one, None where steps are not recorded."""
    ways = (False, True) if stack.recordable(some, setting.data) else (False,)
    times = []
    for record in ways:
        gc.collect()  # of the stack before
        if setting.device.type == "cuda":
            torch.cuda.empty_cache()
        times.append(len(some) * speed.time_stack(some, setting.data, setting.sizes.timed, record))
    return times[0], times[1] if len(times) > 1 else None


def _stack(recipe: Recipe, names: tuple[str, ...], count: int) -> list[Trial]:
    """Return so many trials of these regularizers in turn, in the order in which the engine stacks them."""
    some = [Trial(recipe, name, lam(name), seed) for seed, name in enumerate(islice(cycle(names), count))]
    return sorted(some, key=lambda trial: trial.regularizer)
