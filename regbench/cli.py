"""What the commands share: parameter types, checks, and errors as one line with exit code 2."""

import importlib.util
import os
import re
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import click

from regbench import data, regularizers, shadowed, surroundings
from regbench.data.images import Images
from regbench.errors import TrackingError, UserError, one_line, without_password

AUTO, ALL = "auto", "all"
MAX_SEEDS = 10_000
MAX_SEED = 2**32 - 1  # the largest that numpy's and scikit-learn's generators take
MAX_EPOCHS = 1_000_000
MAX_JOBS = 1_000
LONGEST = 300  # of a library's own words
# as people write numbers: Python's own float takes 1_000 and the digits of all scripts too
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?|[+-]?inf(inity)?|nan", re.ASCII | re.IGNORECASE)


def seeds(text: str) -> tuple[int, ...]:
    """Return the seeds of a comma list of numbers and ranges, in its order: "0,1,2", "0-9", "0-4,7".

    Raises UserError for an empty list, anything that is no number, a range that runs backwards, a seed given twice.
    """
    accepted = "accepted: numbers and ranges separated by commas, as in 0,1,2 or 0-9"
    found: list[int] = []
    for item in _items("seeds", text, accepted):
        match = re.fullmatch(r"(\d{1,10})(?:-(\d{1,10}))?", item, re.ASCII)
        if not match:
            raise UserError(f"seeds={text!r}: {item!r} is no seed; {accepted}")
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first:
            raise UserError(f"seeds={text!r}: the range {item} runs backwards; write {last}-{first}")
        if last > MAX_SEED:
            raise UserError(f"seeds={text!r}: {last} is too large; accepted: up to {MAX_SEED}")
        if len(found) + last - first + 1 > MAX_SEEDS:
            raise UserError(f"seeds={text!r}: more than {MAX_SEEDS} seeds; give fewer")
        found += range(first, last + 1)
    repeated = sorted({seed for seed in found if found.count(seed) > 1}) if len(set(found)) < len(found) else []
    if repeated:
        raise UserError(f"seeds={text!r}: seed {repeated[0]} is given more than once; write it once")
    return tuple(found)


def one_seed(text: str) -> int:
    """Return the seed of a command that takes just one; raises UserError for more, or as `seeds` does."""
    found = seeds(text)
    if len(found) != 1:
        raise UserError(f"seed={text!r}: the notebook's experiments take one seed; for several, use the sweep")
    return found[0]


def lams(text: str) -> tuple[float, ...] | None:
    """Return the strengths of a comma list, or None for `auto`: each regularizer's own grid.

    Raises UserError for an empty list, what is not a finite number above 0, a value given twice.
    """
    if text.strip() == AUTO:
        return None
    accepted = "accepted: numbers above 0 separated by commas, as in 1e-4,1e-3, or auto (the regularizer's own grid)"
    found: list[float] = []
    for item in _items("lam", text, accepted):
        if not NUMBER.fullmatch(item):
            raise UserError(f"lam={text!r}: {item!r} is no number; {accepted}")
        lam = float(item)
        if wrong := regularizers.wrong_lam(lam):
            raise UserError(f"lam={text!r}: {item} {wrong}; {accepted}")
        if lam in found:
            raise UserError(f"lam={text!r}: {item} is given more than once; write it once")
        found.append(lam)
    return tuple(found)


def names(text: str) -> tuple[str, ...]:
    """Return the regularizers of a comma list; raises UserError for an empty list, an unknown name, one given twice."""
    found = _items("reg", text, f"accepted: one or more of {regularizers.accepted()}, separated by commas")
    for name in found:
        regularizers.find(name)
        if found.count(name) > 1:
            raise UserError(f"reg={text!r}: {name} is given more than once; write it once")
    return tuple(found)


def _items(option: str, text: str, accepted: str) -> list[str]:
    items = [item.strip() for item in text.split(",")]
    if not any(items):
        raise UserError(f"{option}={text!r} is empty; {accepted}")
    if not all(items):
        raise UserError(f"{option}={text!r} has an empty item between commas; {accepted}")
    return items


def size(option: str, text: str, named: dict[str, int]) -> int:
    """Return a number of images; `named` are words with their values. Raises UserError for anything else."""
    if text.strip() in named:
        return named[text.strip()]
    if not re.fullmatch(r"\d{1,12}", text.strip(), re.ASCII):
        raise UserError(f"{option}={text!r} is no number of images; accepted: 0 or more, or {' or '.join(named)}")
    return int(text)


def positive(option: str, text: str, largest: int = 10**9, other: str = f", or {AUTO}") -> int:
    """Return a whole number from 1 to `largest`; raises UserError for anything else."""
    if not re.fullmatch(r"\d{1,10}", text.strip(), re.ASCII) or not 1 <= int(text) <= largest:
        raise UserError(f"{option}={text!r} is out of range; accepted: a whole number from 1 to {largest}{other}")
    return int(text)


class Whole(click.ParamType):
    """An option's whole number from 1 to `largest`."""

    name = "integer"

    def __init__(self, largest: int = 10**9) -> None:
        self.largest = largest

    def convert(self, value: object, param: click.Parameter, _: object) -> int:
        return positive(param.name, str(value), self.largest, other="")


class Real(click.ParamType):
    """An option's number for which `valid` holds, which `accepted` says in words."""

    name = "float"

    def __init__(self, accepted: str, valid: Callable[[float], bool]) -> None:
        self.accepted, self.valid = accepted, valid

    def convert(self, value: object, param: click.Parameter, _: object) -> float:
        text = str(value).strip()
        # nan passes no comparison
        if not NUMBER.fullmatch(text) or not self.valid(float(text)):
            raise UserError(f"{param.name}={value!r} is out of range; accepted: a number {self.accepted}")
        return float(text)


class Switch(click.ParamType):
    """An option's true or false; click's own takes the empty text for false."""

    name = "boolean"

    def convert(self, value: object, param: click.Parameter, context: click.Context) -> bool:
        try:
            if str(value).strip():
                return click.BOOL.convert(str(value), param, context)
        except click.BadParameter:
            pass
        raise UserError(f"{param.name}={value!r} is neither; accepted: true or false")


def device(text: str) -> str:
    """Return cpu or cuda:N for auto, cpu, cuda or cuda:N; raises UserError if it is not there."""
    match = re.fullmatch(r"auto|cpu|cuda(?::(\d{1,3}))?", text, re.ASCII)
    if not match:
        raise UserError(f"device={text!r} is unknown; accepted: auto, cpu, cuda, cuda:N")
    if text == "cpu" or (text == AUTO and not _may_have_gpu()):
        return "cpu"
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if text == AUTO:
        return "cuda:0" if count else "cpu"
    index = int(match[1] or 0)
    if index >= count:
        has = f"this machine has {count} CUDA GPU{'s' if count != 1 else ''} that torch {torch.__version__} can use"
        raise UserError(f"device={text!r} is not there: {has}; take device=auto or device=cpu")
    return f"cuda:{index}"


def on_ray(text: str) -> bool:
    """Tell whether a backend, local or ray, is ray; raises UserError for anything else, and if Ray is not installed."""
    from regbench.engine.choice import BACKENDS, RAY

    if text not in BACKENDS:
        raise UserError(f"backend={text!r} is unknown; accepted: {', '.join(BACKENDS)}")
    if text == RAY and importlib.util.find_spec("ray") is None:
        raise UserError("backend='ray' needs Ray, which is not installed; get it with: pip install 'regbench[ray]'")
    return text == RAY


def _may_have_gpu() -> bool:
    """Tell whether torch is to be asked for a GPU, which takes seconds: on Linux every driver has a device file."""
    files = ("nvidia*", "nvhost*", "nvmap", "dxg", "kfd")  # NVIDIA, its Jetsons, Windows' WSL, AMD
    return sys.platform != "linux" or any(True for file in files for _ in Path("/dev").glob(file))


def load(dataset: str, data_dir: str) -> Images:
    """Return the data set; raises UserError if it is unknown, missing or damaged."""
    return data.load(dataset, folder("data_dir", data_dir))


def folder(option: str, text: str) -> Path:
    """Return a folder's absolute path, ~ expanded, whether it is there or not; raises UserError for what can be none."""
    try:
        if text.strip() and "\0" not in text:
            # absolute, since `mlflow run` starts a command in the project's folder and not in the user's
            return Path(os.path.abspath(Path(text).expanduser()))
    except (RuntimeError, OSError):  # ~name of a user who is not there, or the working folder is gone
        pass
    raise UserError(f"{option}={text!r} is no folder; accepted: a path, as in {option}=name")


def letters(text: str) -> str:
    """Return an option's text with the letters that a system whose language knows ASCII only passed on as bytes."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape")


def run(command: click.Command, args: list[str] | None = None) -> None:
    """Run a command and exit: 0, or its own code; 2 for a user's mistake, 1 for a failure, 130 for an interrupt."""
    try:
        surroundings.settle()
        code = command.main(args=args, standalone_mode=False)
    except click.exceptions.Exit as stop:
        code = stop.exit_code
    except click.ClickException as error:
        code = _fail(f"{error.format_message()} For all options: --help", 2)
    except UserError as error:
        code = _fail(str(error), 2)
    except TrackingError as error:
        code = _fail(f"the tracking store failed: {error}", 1)
    except (KeyboardInterrupt, click.Abort):
        code = _fail("interrupted; what was finished is kept: the same command, without rerun, continues", 130)
    except Exception as error:
        if isinstance(error, OSError) and surroundings.output_failed(error):
            what = f"standard output cannot be written ({error.strerror})"
            code = _fail(f"{what}; what was finished is kept: the same command, without rerun, continues", 1)
        elif not shadowed.culprit(error) and (library := _not_imported(error)):
            why = f"{type(error).__name__}: {one_line(error)[:LONGEST]}"
            way_out = "repair the environment variable or settings file of its that this is about, or install it anew"
            code = _fail(f"the library {library} cannot be imported ({why}): {way_out}", 2)
        else:
            raise
    sys.exit(code or 0)


def _not_imported(error: Exception) -> str:
    """Return the library of other people's that failed while it was imported; "" if it is no such error."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    ours = [
        frame.f_globals.get("__name__", "").split(".")[0] in ("regbench", "benchmarks", "__main__") for frame in frames
    ]
    called = frames[len(ours) - ours[::-1].index(True) :] if any(ours) else []
    if called and called[0].f_code.co_name == "<module>":
        return called[0].f_globals["__name__"].split(".")[0]
    return (error.name or "") if isinstance(error, ImportError) and not called else ""


def _fail(message: str, code: int) -> int:
    click.echo(f"error: {without_password(' '.join(message.split()))}", err=True)
    return code


def shared_options(function: Callable) -> Callable:
    """Add the options that every training command has."""
    options = [
        click.option("--dataset", default="cifar10", show_default=True, help=f"One of {', '.join(data.NAMES)}."),
        click.option("--data_dir", default=".data", show_default=True, help="Where the data is or is downloaded to."),
        click.option(
            "--train_size",
            default=ALL,
            show_default=True,
            help="Training images to take, validation included: a stratified subset, or all.",
        ),
        click.option("--device", default=AUTO, show_default=True, help="auto, cpu, cuda or cuda:N."),
        click.option(
            "--engine",
            default=AUTO,
            show_default=True,
            help="sequential: one trial after the other; stacked: many as one network; auto: the faster one.",
        ),
        click.option(
            "--jobs",
            default=AUTO,
            show_default=True,
            help="Trials side by side on a CPU; auto: one per core, in a sweep that is large enough.",
        ),
        click.option(
            "--backend",
            default="local",
            show_default=True,
            help="local: this machine; ray: a Ray cluster, that of RAY_ADDRESS if it is set.",
        ),
        click.option(
            "--experiment",
            default=AUTO,
            show_default=True,
            help="MLflow experiment; auto: that of `mlflow run`, else MLFLOW_EXPERIMENT_NAME, else regbench.",
        ),
        click.option(
            "--dry_run",
            type=Switch(),
            default=False,
            show_default=True,
            help="Print the exact plan and a time estimate; train nothing.",
        ),
        click.option(
            "--rerun",
            type=Switch(),
            default=False,
            show_default=True,
            help="Train again what is finished; the new runs replace the old ones.",
        ),
    ]
    for option in reversed(options):
        function = option(function)
    return function
