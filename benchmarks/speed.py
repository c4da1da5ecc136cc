"""How fast trials train: the notebook's loop, one trial after the other, side by side, and in stacks, in one run.

Every contender trains the same steps (same weights, same batches) of real images. They take turns, repetition by
repetition, so that a machine that slows down slows all of them; medians are compared. The notebook's loop runs in a
process of its own, as it would at home: what regbench sets in its process (memory, precision) does not reach it.
"""

import platform
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
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
from torch.utils.benchmark import Timer

from benchmarks import notebook_loop
from regbench import provenance, regularizers
from regbench.api import parsing
from regbench.click_fields import AUTO, Several, choice, command, option, switch, whole
from regbench.commands import exit_code
from regbench.data import NAMES as DATASETS
from regbench.data import load
from regbench.data.images import Images
from regbench.engines import processes
from regbench.engines.base import LOCAL
from regbench.engines.stacked import LARGEST
from regbench.errors import UserError
from regbench.files import atomic
from regbench.preflight import find_device
from regbench.report import text
from regbench.report.tables import table
from regbench.statistics.looks import CONFIRM, schedule
from regbench.training import memory, precision, single, stack
from regbench.training.device_data import DeviceData
from regbench.training.events import Epoch
from regbench.training.optimizer import CHUNK
from regbench.trial import NEUTRAL, PRECISIONS, Recipe, Trial

Measure = Callable[[], float]  # returns the seconds of one step per trial
BASELINE = "notebook loop"
# of the notebook's network on one image, forward and backward; the first convolution has no gradient by its input
FLOP_PER_IMAGE = 2 * (2 * 32 * 32 * 27 * 16 + 3 * 16 * 16 * 144 * 32 + 3 * (2048 * 1024 + 1024 * 1024 + 1024 * 10))
PARAMETERS = 3_163_114
CORES = psutil.cpu_count(logical=False) or 1
# of a sweep's defaults
COMPARED, SELECTION = ("l1", "l2", "weight_decay"), 3


@dataclass(frozen=True)
class Ceilings:
    """The device's highest rates, on a CPU of all its cores at once, a process each, as trials are trained side by side.

    flops: precision -> matrix products, FLOP/s. bytes: copies, bytes/s (read and written both counted).
    """

    flops: dict[str, float]
    bytes: float


@dataclass(frozen=True, kw_only=True)
class SpeedOptions:
    dataset: str = option("cifar10", choice(*DATASETS), "As for the sweep.")
    data_dir: Path = option(".data", parsing.folder("data_dir"), "Where the data is or is downloaded to.")
    device: str = option(AUTO, parsing.device, "auto, cpu, cuda or cuda:N.")
    regs: tuple[str, ...] = option("none,l1", parsing.names, "Regularizers to measure, a comma list.")
    lam: float = option(1e-5, click.FLOAT, "Their strength.")
    stacks: str = option(AUTO, click.STRING, "Sizes of stacks; auto: 1,4 on a CPU, 1,8,64 else.")
    steps: int = option(60, whole(5, 10**6), "Steps of a repetition.")
    repetitions: int = option(5, whole(2, 10**6))
    batch_size: int = option(100, whole(1, 10**6))
    precisions: tuple[str, ...] = option("float32", Several(choice(*PRECISIONS)), "Of the engines, a comma list.")
    profile: bool = option(True, switch(), "Say where the time of a step goes.")
    out: str = option("speed", click.STRING, "Folder for the table and the plot.")


@command(SpeedOptions)
def main(options: SpeedOptions) -> None:
    """Measure the seconds per trial and epoch of every engine against the notebook's plain loop."""
    steps, batch_size = options.steps, options.batch_size
    device = torch.device(find_device(options.device, LOCAL))
    default = "1,4" if device.type == "cpu" else "1,8,64"
    stacks = default if options.stacks == AUTO else options.stacks
    sizes = [whole(1, LARGEST[device.type]).convert(item, None, None) for item in stacks.split(",")]
    kinds = list(options.precisions)
    for kind in kinds:
        precision.check(kind, device)
    data = load(options.dataset, options.data_dir)
    if steps * batch_size > len(data.train_labels):
        raise UserError(
            f"steps={steps} is out of range: {steps} batches of {batch_size} are more than the "
            f"{len(data.train_labels)} training images; accepted: at most {len(data.train_labels) // batch_size}"
        )
    count = len(data.train_labels)
    recipe = Recipe(data.name, data.fingerprint, count, val_size=0, epochs=1, batch_size=batch_size, **NEUTRAL)
    trials = [Trial(recipe, name, 0.0 if name == "none" else options.lam, 0) for name in options.regs]
    console = Console(highlight=False, soft_wrap=True)
    console.print("measuring the device's ceilings")
    top = ceilings(device, ["float32", *kinds])
    memory.keep_freed()
    rows = []
    with ProcessPoolExecutor(1, get_context("spawn"), open_loop, (data, device, steps)) as separate:
        for trial in trials:
            entrants = dict(contenders(trial, data, device, sizes, kinds, steps, separate))
            times = take_turns(entrants, trial.regularizer, options.repetitions, console)
            rows += [{"regularizer": trial.regularizer, "contender": key, "repetition": i, "ms_per_step": 1e3 * value}
                     for key, values in times.items() for i, value in enumerate(values)]  # fmt: skip
    raw = pd.DataFrame(rows)
    result = summarize(raw, recipe, top)
    report = describe(result, top, device, recipe, steps, options.repetitions) + verdict_cost(result)
    if options.profile:
        report += breakdown(trials[-1], data, device)
    save(Path(options.out), result, raw, report)
    console.print(report, markup=False)
    console.print(f"written to {options.out}/")


def contenders(
    trial: Trial, data: Images, device: torch.device, sizes: list[int], kinds: list[str], steps: int, separate: Executor
) -> Iterator[tuple[str, Measure]]:
    """Yield every way to train `trial` on this device, by name; the notebook's loop runs in the `separate` process."""
    yield BASELINE, lambda: separate.submit(time_loop, trial).result()
    device_data = DeviceData(data, device)
    for kind in kinds:
        chosen = replace(trial, recipe=replace(trial.recipe, precision=kind))
        suffix = "" if kind == "float32" else f" {kind}"
        yield f"sequential{suffix}", partial(_sequential, chosen, device_data, steps)
        for size in sizes:
            several = [replace(chosen, seed=seed) for seed in range(size)]
            yield f"stacked {size}{suffix}", partial(time_stack, several, device_data, steps, False)
            if stack.recordable(several, device_data):
                yield f"stacked {size}{suffix}, recorded", partial(time_stack, several, device_data, steps, True)
        if device.type == "cpu" and CORES > 1:
            yield f"sequential{suffix}, {CORES} side by side", partial(_side_by_side, chosen, data, CORES, steps)


def open_loop(*arguments: object) -> None:
    """Keep what `time_loop` needs in its process, which gets it once."""
    global opened
    opened = arguments


def time_loop(trial: Trial) -> float:
    data, device, steps = opened
    model = notebook_loop.network(len(data.classes), trial.seed).to(device)
    list(notebook_loop.train(model, trial, data, device, max_steps=2))  # warm-up
    _wait(device)
    (_, _, seconds), *_ = notebook_loop.train(model, trial, data, device, max_steps=steps)
    return seconds / steps


def _sequential(trial: Trial, data: DeviceData, steps: int) -> float:
    count = steps * trial.recipe.batch_size
    part = torch.arange(len(data.train_labels), device=data.device)[:count]
    with precision.settings(trial.recipe.precision, data.device):
        training = single.Training(trial, data.num_classes, data.device)
        single.train_epoch(training, 1, data, part[: 2 * trial.recipe.batch_size])  # warm-up
        _wait(data.device)
        return single.train_epoch(training, 1, data, part)["time/epoch"] / steps


def time_stack(trials: list[Trial], data: DeviceData, steps: int, record: bool) -> float:
    size = trials[0].recipe.batch_size
    with precision.settings(trials[0].recipe.precision, data.device):
        training = stack.Training(trials, data, record)
        whole = training.train_part
        training.train_part = whole[:, : (stack.WARM_UP + 1) * size]
        training.epoch(1)  # warm-up, in which a step is recorded
        training.train_part = whole[:, : steps * size]
        _wait(data.device)
        return training.epoch(1)[0]["time/epoch"] / steps


def _side_by_side(trial: Trial, data: Images, jobs: int, steps: int) -> float:
    """Return the seconds of a step per trial, from the epochs' own times: the start of workers is not in it.

    The first and the last epochs, in which not all workers may train, are left out.
    """
    recipe = replace(trial.recipe, train_size=steps * trial.recipe.batch_size, epochs=4)
    trials = [replace(trial, recipe=recipe, seed=seed) for seed in range(jobs)]
    times = [
        event.metrics["time/epoch"]
        for event in processes.train(trials, data, jobs)
        if isinstance(event, Epoch) and 1 < event.epoch < recipe.epochs
    ]
    return float(np.median(times)) / steps / jobs


def take_turns(
    entrants: dict[str, Measure], regularizer: str, repetitions: int, console: Console
) -> dict[str, list[float]]:
    """Return contender -> seconds of a step per trial, one for each repetition; what does not fit is left out."""
    times: dict[str, list[float]] = {name: [] for name in entrants}
    for repetition in range(repetitions):
        for name in list(times):
            try:
                times[name].append(entrants[name]())
            except torch.OutOfMemoryError:
                console.print(f"{name} does not fit into the device's memory and is left out")
                del times[name]
        console.print(f"{regularizer}: repetition {repetition + 1} of {repetitions}", highlight=False)
    return times


def ceilings(device: torch.device, kinds: Sequence[str]) -> Ceilings:
    """Measure the rates of a large matrix product in each precision, and of a copy."""
    if device.type != "cpu":
        return Ceilings({kind: _product_rate(kind, device) for kind in kinds}, _copy_rate(device))
    with ProcessPoolExecutor(CORES, get_context("spawn"), torch.set_num_threads, (1,)) as pool:

        def together(rate: Callable[..., float], *arguments: object) -> float:
            return sum(one.result() for one in [pool.submit(rate, *arguments) for _ in range(CORES)])

        together(_copy_rate, device)  # the workers have started
        return Ceilings({kind: together(_product_rate, kind, device) for kind in kinds}, together(_copy_rate, device))


def _product_rate(kind: str, device: torch.device) -> float:
    side = 2048 if device.type == "cpu" else 8192
    a, b = (torch.rand(side, side, device=device).to(precision.factors(kind)) for _ in range(2))
    with precision.settings(kind, device):
        return 2 * side**3 / _median_seconds(lambda: torch.mm(a, b))


def _copy_rate(device: torch.device) -> float:
    source = torch.rand(50_000_000, device=device)  # larger than any cache: 200 MB
    target = torch.empty_like(source)
    return 2 * source.nbytes / _median_seconds(lambda: target.copy_(source))


def _median_seconds(work: Callable[[], object]) -> float:
    timer = Timer("work()", globals={"work": work}, num_threads=torch.get_num_threads())
    return timer.blocked_autorange(min_run_time=1).median


def summarize(raw: pd.DataFrame, recipe: Recipe, top: Ceilings) -> pd.DataFrame:
    """Return a row per regularizer and contender: medians, the ratio to the notebook's loop, the share of the roof."""
    steps = -(-recipe.train_size // recipe.batch_size)
    grouped = raw.groupby(["regularizer", "contender"], sort=False)["ms_per_step"]
    found = grouped.agg(ms_per_step="median", fastest="min", slowest="max").reset_index()
    found["s_per_epoch"] = found["ms_per_step"] * steps / 1e3
    baseline = found[found["contender"] == BASELINE].set_index("regularizer")["ms_per_step"]
    found["times_as_fast"] = found["regularizer"].map(baseline) / found["ms_per_step"]
    needed = FLOP_PER_IMAGE * recipe.batch_size
    rates = found["contender"].map(lambda name: top.flops[_kind(name)])
    found["share_of_products"] = needed / (found["ms_per_step"] / 1e3) / rates
    # weights read forward and backward; gradient, momentum and weights in the update: 8 passes of 4 bytes
    found["share_of_copies"] = 8 * 4 * PARAMETERS / (found["ms_per_step"] / 1e3) / top.bytes
    return found


def _kind(contender: str) -> str:
    return next((kind for kind in PRECISIONS if kind in contender.replace(",", " ").split()), "float32")


def verdict_cost(result: pd.DataFrame) -> str:
    """Return, in Markdown, what a verdict on the three default regularizers takes: trainings times seconds an epoch."""
    lams = sum(len(regularizers.find(name).lams) for name in COMPARED)
    cells = lams + 1  # and `none`
    seconds = result.groupby("contender", sort=False)["s_per_epoch"].mean()
    looks = schedule(CONFIRM, len(COMPARED))
    best = seconds.drop(BASELINE).idxmin()
    rows = []
    for judged in (looks[0], looks[-1]):
        # a grid that is trained as a whole has all cells on every seed that judges
        whole, staged = cells * (SELECTION + judged), cells * SELECTION + (len(COMPARED) + 1) * judged
        plain = whole * seconds[BASELINE] / 3600
        for name, design, count in ((BASELINE, "the whole grid", whole), (best, "two stages", staged)):
            hours = count * seconds[name] / 3600
            rows.append((f"{name}, {design}", str(judged), f"{count:,}", f"{hours:.2f}", f"{plain / hours:.1f}"))
    header = ("contender", "seeds that judge", "trainings", "hours an epoch of all of them", "times as cheap")
    return (
        f"\n## What a verdict costs\n\nOn {text.join_and(COMPARED)} with their own {lams} lams, chosen on "
        f"{SELECTION} seeds: a verdict that is settled at the first look, and one at the last. By hand, all cells of the "
        f"grid are trained on the seeds that judge too. Seconds of an epoch: the mean over the regularizers above.\n\n"
        f"{table(header, rows)}\n"
    )


def describe(
    result: pd.DataFrame, top: Ceilings, device: torch.device, recipe: Recipe, steps: int, repetitions: int
) -> str:
    """Return the table in Markdown with what it was measured on."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else provenance.processor()
    threads = f" ({_instructions()}), {torch.get_num_threads()} threads" if device.type == "cpu" else ""
    needed = FLOP_PER_IMAGE * recipe.batch_size
    products = ", ".join(f"{rate / 1e9:,.0f} GFLOP/s in {kind}" for kind, rate in top.flops.items())
    header = (
        "regularizer", "contender", "ms per step and trial", "fastest to slowest", "s per epoch and trial",
        "times as fast", "share of matrix-product rate", "share of copy bandwidth",
    )  # fmt: skip
    rows = [
        (row.regularizer, row.contender, f"{row.ms_per_step:.2f}", f"{row.fastest:.2f} to {row.slowest:.2f}",
         f"{row.s_per_epoch:.2f}", f"{row.times_as_fast:.2f}", f"{row.share_of_products:.0%}", f"{row.share_of_copies:.0%}")
        for row in result.itertuples()
    ]  # fmt: skip
    return (
        f"# Speed\n\n{name}{threads}; torch {torch.__version__}, Python {platform.python_version()}, "
        f"joblib {version('joblib')}. The notebook's network on {recipe.dataset}, batches of {recipe.batch_size}, "
        f"an epoch of {recipe.train_size:,} images. Medians of {repetitions} repetitions of {steps} steps; "
        "the contenders take turns.\n\n"
        f"Ceilings of this device{_how(device)}: matrix products {products}; copies {top.bytes / 1e9:,.1f} GB/s. "
        f"One trial's step needs {needed / 1e9:.2f} GFLOP, at least {needed / top.flops['float32'] * 1e3:,.2f} ms in "
        f"float32.\n\n{table(header, rows)}\n"
    )


def _how(device: torch.device) -> str:
    return f", in {CORES} processes at once" if device.type == "cpu" else ""


def breakdown(trial: Trial, data: Images, device: torch.device) -> str:
    """Return, in Markdown, where the time of a sequential step goes: torch's profiler over 20 steps."""
    from torch.autograd import DeviceType
    from torch.profiler import ProfilerActivity, profile

    device_data = DeviceData(data, device)
    activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if device.type == "cuda" else [])
    count = 20
    with precision.settings(trial.recipe.precision, device):
        training = single.Training(trial, device_data.num_classes, device)
        batch = slice(trial.recipe.batch_size)
        images, labels = device_data.train_images[batch], device_data.train_labels[batch]
        for _ in range(3):
            training.step(images, labels)
        with profile(activities=activities) as profiler:
            for _ in range(count):
                training.step(images, labels)
            _wait(device)
    field = "self_device_time_total" if device.type == "cuda" else "self_cpu_time_total"
    # an operation has the time of its kernels, which are listed by themselves too
    entries = [entry for entry in profiler.key_averages() if entry.device_type == DeviceType.CPU]
    times = {entry.key: getattr(entry, field) / 1e3 / count for entry in entries}
    total = sum(times.values())
    shown = {f"`{key}`": times[key] for key in sorted(times, key=times.__getitem__, reverse=True)[:12]}
    shown["all others"] = total - sum(shown.values())
    rows = [(name, f"{value:.2f}", f"{value / total:.0%}") for name, value in shown.items()]
    return (
        f"\n## Where a sequential step goes ({trial.regularizer})\n\nBy torch's profiler, {count} steps, "
        f"{total:.1f} ms each with the profiler on; the update works on parts of {CHUNK:,} weights.\n\n"
        f"{table(('operation', 'ms per step', 'share'), rows)}\n"
    )


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


def save(out: Path, result: pd.DataFrame, raw: pd.DataFrame, text: str) -> None:
    """Write README.md, speed.csv, repetitions.csv and speed.png into `out`."""
    with atomic(out / "README.md") as path:
        path.write_text(f"{text}\n![Times as fast as the notebook's loop](speed.png)\n")
    for name, frame in (("speed.csv", result), ("repetitions.csv", raw)):
        with atomic(out / name) as path:
            frame.to_csv(path, index=False, float_format="%.5g")
    with atomic(out / "speed.png") as path:
        plot(result).savefig(path, dpi=110, format="png")


def _instructions() -> str:
    """Return the instruction sets of this CPU that matter here."""
    matter = sorted({"avx512_bf16", "amx_bf16"} & provenance.instructions())
    return ", ".join([torch.backends.cpu.get_cpu_capability(), *matter])


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


if __name__ == "__main__":
    exit_code.run(main)
