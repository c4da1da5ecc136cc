"""How fast trials train: the notebook's loop, one trial after the other, side by side, and in stacks, in one run.

Every contender trains the same steps (same weights, same batches) of real images. They take turns, repetition by
repetition, so that a machine that slows down slows all of them; medians are compared. The notebook's loop runs in a
process of its own, as it would at home: what regbench sets in its process (memory, precision) does not reach it.
"""

import platform
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import dataclass, replace
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path

import click
import numpy as np
import pandas as pd
import psutil
import torch
from matplotlib.figure import Figure
from rich.console import Console

from benchmarks import notebook_loop
from regbench import cli
from regbench.data.images import Images
from regbench.engine import memory, precision, sequential, side_by_side, stacked
from regbench.engine.events import Epoch
from regbench.engine.resident import Resident
from regbench.engine.step import CHUNK
from regbench.errors import UserError
from regbench.files import atomic
from regbench.sweep import Recipe, Trial

BASELINE = "notebook loop"
# of the notebook's network on one image, forward and backward; the first convolution has no gradient by its input
FLOP_PER_IMAGE = 2 * (2 * 32 * 32 * 27 * 16 + 3 * 16 * 16 * 144 * 32 + 3 * (2048 * 1024 + 1024 * 1024 + 1024 * 10))
PARAMETERS = 3_163_114


@dataclass(frozen=True)
class Ceilings:
    """What the device can do: matrix products in FLOP/s, copies in bytes/s (read and written both counted)."""

    flops: float
    bytes: float


@dataclass(frozen=True)
class Contender:
    """One way to train; `measure` returns the seconds of one step per trial, each time it is called."""

    name: str
    regularizer: str
    measure: Callable[[], float]


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--dataset", default="cifar10", show_default=True, help="As for the sweep.")
@click.option("--data_dir", default=".data", show_default=True, help="Where the data is or is downloaded to.")
@click.option("--device", default=cli.AUTO, show_default=True, help="auto, cpu, cuda or cuda:N.")
@click.option("--regs", default="none,l1", show_default=True, help="Regularizers to measure, a comma list.")
@click.option("--lam", default=1e-5, show_default=True, help="Their strength.")
@click.option(
    "--stacks", default=cli.AUTO, show_default=True, help="Sizes of stacks; auto: 1,4 on a CPU, 1 to 128 else."
)
@click.option("--steps", type=click.IntRange(5), default=60, show_default=True, help="Steps of a repetition.")
@click.option("--repetitions", type=click.IntRange(2), default=5, show_default=True)
@click.option("--batch_size", type=click.IntRange(1), default=100, show_default=True)
@click.option("--precisions", default="float32", show_default=True, help="Of the engines, a comma list.")
@click.option("--profile", type=bool, default=True, show_default=True, help="Say where the time of a step goes.")
@click.option("--out", default="speed", show_default=True, help="Folder for the table and the plot.")
def main(
    dataset: str,
    data_dir: str,
    device: str,
    regs: str,
    lam: float,
    stacks: str,
    steps: int,
    repetitions: int,
    batch_size: int,
    precisions: str,
    profile: bool,
    out: str,
) -> None:
    """Measure the seconds per trial and epoch of every engine against the notebook's plain loop."""
    names = cli.names(regs)
    place = torch.device(cli.device(device))
    default = "1,4" if place.type == "cpu" else "1,8,32,64,128"
    sizes = [cli.positive("stacks", item.strip()) for item in (default if stacks == cli.AUTO else stacks).split(",")]
    kinds = [kind.strip() for kind in precisions.split(",")]
    for kind in kinds:
        precision.check(kind, place)
    data = cli.load(dataset, data_dir)
    if steps * batch_size > len(data.train_labels):
        raise UserError(
            f"steps={steps} is out of range: {steps} batches of {batch_size} are more than the "
            f"{len(data.train_labels)} training images; accepted: at most {len(data.train_labels) // batch_size}"
        )
    recipe = Recipe(data.name, data.fingerprint, len(data.train_labels), val_size=0, epochs=1, batch_size=batch_size)
    console = Console(highlight=False, soft_wrap=True)
    console.print("measuring the device's ceilings")
    top = ceilings(place)
    memory.keep_freed()
    rows = []
    with ProcessPoolExecutor(1, get_context("spawn"), _open, (data, place, steps)) as apart:
        for name in names:
            trial = Trial(recipe, name, 0.0 if name == "none" else lam, 0)
            entrants = list(contenders(trial, data, place, sizes, kinds, steps, apart))
            times = take_turns(entrants, repetitions, console)
            rows += [{"regularizer": name, "contender": key, "repetition": i, "ms_per_step": 1e3 * value}
                     for key, values in times.items() for i, value in enumerate(values)]  # fmt: skip
    raw = pd.DataFrame(rows)
    result = table(raw, recipe, top)
    told = describe(result, top, place, recipe, steps, repetitions)
    if profile:
        told += breakdown(Trial(recipe, names[-1], 0.0 if names[-1] == "none" else lam, 0), data, place, top)
    save(Path(out), result, raw, told)
    console.print(told, markup=False)
    console.print(f"written to {out}/")


def contenders(
    trial: Trial, data: Images, device: torch.device, sizes: list[int], kinds: list[str], steps: int, apart: Executor
) -> Iterator[Contender]:
    """Give every way to train `trial` on this device; the notebook's loop runs in the process `apart`."""
    yield Contender(BASELINE, trial.regularizer, lambda: apart.submit(_plain, trial).result())
    resident = Resident(data, device)
    for kind in kinds:
        chosen = replace(trial, recipe=replace(trial.recipe, precision=kind))
        suffix = "" if kind == "float32" else f" {kind}"
        yield Contender(f"sequential{suffix}", trial.regularizer, _alone(chosen, resident, steps))
        for size in sizes:
            several = [replace(chosen, seed=seed) for seed in range(size)]
            yield Contender(f"stacked {size}{suffix}", trial.regularizer, _stack(several, resident, steps, False))
            if stacked.recordable(several, resident):
                name = f"stacked {size}{suffix}, recorded"
                yield Contender(name, trial.regularizer, _stack(several, resident, steps, True))
    cores = psutil.cpu_count(logical=False) or 1
    if device.type == "cpu" and cores > 1:
        name = f"sequential, {cores} side by side"
        yield Contender(name, trial.regularizer, lambda: _side_by_side(trial, data, cores, steps))


def _open(*given: object) -> None:
    """Keep what `_plain` needs in its process, which gets it once."""
    global opened
    opened = given


def _plain(trial: Trial) -> float:
    data, device, steps = opened
    model = notebook_loop.network(len(data.classes), trial.seed).to(device)
    list(notebook_loop.train(model, trial, data, device, max_steps=2))  # warm-up
    _wait(device)
    (_, _, seconds), *_ = notebook_loop.train(model, trial, data, device, max_steps=steps)
    return seconds / steps


def _alone(trial: Trial, data: Resident, steps: int) -> Callable[[], float]:
    def measure() -> float:
        count = steps * trial.recipe.batch_size
        part = torch.arange(len(data.train_labels), device=data.device)[:count]
        with precision.settings(trial.recipe.precision, data.device):
            training = sequential.Training(trial, data.num_classes, data.device)
            sequential.train_epoch(training, 1, data, part[: 2 * trial.recipe.batch_size])  # warm-up
            _wait(data.device)
            return sequential.train_epoch(training, 1, data, part)["time/epoch"] / steps

    return measure


def _stack(trials: list[Trial], data: Resident, steps: int, record: bool) -> Callable[[], float]:
    def measure() -> float:
        size = trials[0].recipe.batch_size
        with precision.settings(trials[0].recipe.precision, data.device):
            training = stacked.Training(trials, data, record)
            whole = training.train_part
            training.train_part = whole[:, : (stacked.WARM_UP + 1) * size]
            training.epoch(1)  # warm-up, in which a step is recorded
            training.train_part = whole[:, : steps * size]
            _wait(data.device)
            return training.epoch(1)[0]["time/epoch"] / steps

    return measure


def _side_by_side(trial: Trial, data: Images, jobs: int, steps: int) -> float:
    """Return the seconds of a step per trial, from the epochs' own times: the start of workers is not in it.

    The first and the last epochs, in which not all workers may train, are left out.
    """
    count = steps * trial.recipe.batch_size
    recipe = replace(trial.recipe, train_size=count, epochs=4)
    trials = [replace(trial, recipe=recipe, seed=seed) for seed in range(jobs)]
    times = [
        event.metrics["time/epoch"]
        for event in side_by_side.train(trials, data, jobs)
        if isinstance(event, Epoch) and 1 < event.epoch < recipe.epochs
    ]
    return float(np.median(times)) / steps / jobs


def take_turns(entrants: list[Contender], repetitions: int, console: Console) -> dict[str, list[float]]:
    """Return contender -> seconds of a step per trial, one for each repetition; what does not fit is left out."""
    times: dict[str, list[float]] = {entrant.name: [] for entrant in entrants}
    for repetition in range(repetitions):
        for entrant in entrants:
            if entrant.name not in times:
                continue
            try:
                times[entrant.name].append(entrant.measure())
            except torch.OutOfMemoryError:
                console.print(f"{entrant.name} does not fit into the device's memory and is left out")
                del times[entrant.name]
        console.print(f"{entrants[0].regularizer}: repetition {repetition + 1} of {repetitions}", highlight=False)
    return times


def ceilings(device: torch.device) -> Ceilings:
    """Measure the rates of a large float32 matrix product and of a copy of a network's weights."""
    side, dtype = (2048 if device.type == "cpu" else 8192), torch.float32
    a, b = (torch.rand(side, side, device=device, dtype=dtype) for _ in range(2))
    # larger than any cache: 400 MB
    source = torch.rand(100_000_000, device=device)
    target = torch.empty_like(source)
    with precision.settings("float32", device):
        product = _median_seconds(lambda: torch.mm(a, b), device)
    copy = _median_seconds(lambda: target.copy_(source), device)
    return Ceilings(2 * side**3 / product, 2 * source.nbytes / copy)


def _median_seconds(work: Callable[[], object], device: torch.device, repetitions: int = 9) -> float:
    """Return the median time of `work` after a warm-up: CUDA events on a GPU, the clock elsewhere."""
    times = []
    for _ in range(repetitions + 1):
        if device.type == "cuda":
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            work()
            end.record()
            torch.cuda.synchronize(device)
            times.append(begin.elapsed_time(end) / 1e3)
        else:
            start = time.perf_counter()
            work()
            times.append(time.perf_counter() - start)
    return float(np.median(times[1:]))


def table(raw: pd.DataFrame, recipe: Recipe, top: Ceilings) -> pd.DataFrame:
    """Return a row per regularizer and contender: medians, the ratio to the notebook's loop, the share of the roof."""
    steps = -(-recipe.train_size // recipe.batch_size)
    grouped = raw.groupby(["regularizer", "contender"], sort=False)["ms_per_step"]
    found = grouped.agg(ms_per_step="median", fastest="min", slowest="max").reset_index()
    found["s_per_epoch"] = found["ms_per_step"] * steps / 1e3
    baseline = found[found["contender"] == BASELINE].set_index("regularizer")["ms_per_step"]
    found["times_as_fast"] = found["regularizer"].map(baseline) / found["ms_per_step"]
    needed = FLOP_PER_IMAGE * recipe.batch_size
    found["share_of_products"] = needed / (found["ms_per_step"] / 1e3) / top.flops
    # weights read forward and backward; gradient, momentum and weights in the update: 8 passes of 4 bytes
    found["share_of_copies"] = 8 * 4 * PARAMETERS / (found["ms_per_step"] / 1e3) / top.bytes
    return found


def describe(
    result: pd.DataFrame, top: Ceilings, device: torch.device, recipe: Recipe, steps: int, repetitions: int
) -> str:
    """Return the table in Markdown with what it was measured on."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else _processor()
    threads = f", {torch.get_num_threads()} threads" if device.type == "cpu" else ""
    lines = [
        "# Speed",
        "",
        f"{name}{threads}; torch {torch.__version__}, Python {platform.python_version()}, "
        f"joblib {version('joblib')}. The notebook's network on {recipe.dataset}, batches of {recipe.batch_size}, "
        f"an epoch of {recipe.train_size:,} images. Medians of {repetitions} repetitions of {steps} steps; "
        "the contenders take turns.",
        "",
        f"Ceilings of this device, float32: {top.flops / 1e9:,.0f} GFLOP/s in matrix products, "
        f"{top.bytes / 1e9:,.1f} GB/s in copies. One trial's step needs {FLOP_PER_IMAGE * recipe.batch_size / 1e9:.2f} "
        f"GFLOP, at least {FLOP_PER_IMAGE * recipe.batch_size / top.flops * 1e3:,.2f} ms.",
        "",
        "| regularizer | contender | ms per step and trial | fastest to slowest | s per epoch and trial | "
        "times as fast | share of matrix-product rate | share of copy bandwidth |",
        "|---|---|---:|---:|---:|---:|---:|---:|",
    ]
    lines += [
        f"| {row.regularizer} | {row.contender} | {row.ms_per_step:.2f} | {row.fastest:.2f} to {row.slowest:.2f} | "
        f"{row.s_per_epoch:.2f} | {row.times_as_fast:.2f} | {row.share_of_products:.0%} | {row.share_of_copies:.0%} |"
        for row in result.itertuples()
    ]
    return "\n".join([*lines, ""])


def breakdown(trial: Trial, data: Images, device: torch.device, top: Ceilings) -> str:
    """Return, in Markdown, where the time of a sequential step goes: torch's profiler over 20 steps."""
    from torch.profiler import ProfilerActivity, profile

    resident = Resident(data, device)
    activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if device.type == "cuda" else [])
    count = 20
    with precision.settings(trial.recipe.precision, device):
        training = sequential.Training(trial, resident.num_classes, device)
        size = trial.recipe.batch_size
        chosen = torch.arange(size, device=device)
        images, labels = resident.train_images[chosen], resident.train_labels[chosen]
        for _ in range(3):
            training.step(images, labels)
        with profile(activities=activities) as profiler:
            for _ in range(count):
                training.step(images, labels)
            _wait(device)
    averages = profiler.key_averages()
    field = "self_device_time_total" if device.type == "cuda" else "self_cpu_time_total"
    times = {entry.key: getattr(entry, field) / 1e3 / count for entry in averages}
    total = sum(times.values())
    lines = [
        "",
        f"## Where a sequential step goes ({trial.regularizer})",
        "",
        f"By torch's profiler, {count} steps, {total:.1f} ms each with the profiler on; the update works on parts of "
        f"{CHUNK:,} weights.",
        "",
        "| operation | ms per step | share |",
        "|---|---:|---:|",
    ]
    shown = sorted(times, key=times.__getitem__, reverse=True)[:12]
    lines += [f"| `{key}` | {times[key]:.2f} | {times[key] / total:.0%} |" for key in shown]
    rest = total - sum(times[key] for key in shown)
    lines.append(f"| all others | {rest:.2f} | {rest / total:.0%} |")
    return "\n".join([*lines, ""])


def plot(result: pd.DataFrame) -> Figure:
    """Return bars of how many times as fast as the notebook's loop each contender is."""
    names = list(dict.fromkeys(result["contender"]))
    regs = list(dict.fromkeys(result["regularizer"]))
    figure = Figure(figsize=(8, 1.2 + 0.45 * len(names) * max(1, len(regs) / 2)), layout="constrained")
    axis = figure.subplots()
    height = 0.8 / len(regs)
    for i, reg in enumerate(regs):
        found = result[result["regularizer"] == reg].set_index("contender")["times_as_fast"].reindex(names)
        bars = axis.barh(np.arange(len(names)) + i * height, found, height, label=reg)
        axis.bar_label(bars, fmt="%.2f", padding=3)
    axis.axvline(1, color="black", linewidth=0.8)
    axis.set(
        yticks=np.arange(len(names)) + 0.4 - height / 2,
        yticklabels=names,
        xlabel="times as fast as the notebook's loop, per trial",
    )
    axis.margins(x=0.12)
    axis.invert_yaxis()
    axis.legend(title="regularizer")
    return figure


def save(out: Path, result: pd.DataFrame, raw: pd.DataFrame, told: str) -> None:
    """Write README.md, speed.csv, repetitions.csv and speed.png into `out`."""
    with atomic(out / "README.md") as path:
        path.write_text(f"{told}\n![Times as fast as the notebook's loop](speed.png)\n")
    for name, frame in (("speed.csv", result), ("repetitions.csv", raw)):
        with atomic(out / name) as path:
            frame.to_csv(path, index=False, float_format="%.5g")
    with atomic(out / "speed.png") as path:
        plot(result).savefig(path, dpi=110, format="png")


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


if __name__ == "__main__":
    cli.run(main)
