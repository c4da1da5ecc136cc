import gc
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from mlflow import MlflowClient
from PIL import Image

from regbench import models
from regbench.commands import exit_code, sweep
from regbench.data.images import Images
from regbench.tracking import pictures
from regbench.tracking.drawer import Drawer
from regbench.training import single, stack

PROJECT = Path(__file__).resolve().parent.parent
TINY = "tests.networks:Tiny"
# most tests of sweeps are not about the fresh seeds, nor about the report
GRID_ALONE = {"confirm": 0, "report": "none"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Have the slow modules come first in each worker's part: a long test that begins last is waited for by the others.

    Of two workers each gets one half of the tests, from the front, until one has done and takes from the other's end.
    """
    slow = (
        ("tracking/test_retry", "test_team_server", "test_startup"),
        ("engines/test_ray", "test_end_to_end", "tracking/test_at_once", "test_your_regularizer"),
    )
    first, second = ([item for item in items if item.nodeid.startswith(part)] for part in (
        tuple(f"tests/{name}.py" for name in names) for names in slow
    ))  # fmt: skip
    rest = [item for item in items if item not in {*first, *second}]
    middle = max(0, len(items) // 2 - len(first))
    items[:] = [*first, *rest[:middle], *second, *rest[middle:]]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test runs in an empty folder, with its own cache and without the caller's MLflow settings."""
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setenv("REGBENCH_CACHE", str(tmp_path / "cache"))
    for name in [name for name in os.environ if name.startswith("MLFLOW_")]:
        monkeypatch.delenv(name)
    return here


@pytest.fixture(autouse=True)
def blank_pictures(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A trial's pictures take longer than all the rest of a small one: of sweeps in this process those marked draw."""
    if not request.node.get_closest_marker("pictures"):
        monkeypatch.setattr(Drawer, "ask", lambda *_: None)
        monkeypatch.setattr(Drawer, "wait", lambda _, folder, title: pictures.draw(folder, title))
        for name in ("histograms", "bars"):
            monkeypatch.setattr(pictures, name, lambda *_: Figure(figsize=(1, 1)))


@pytest.fixture(autouse=True)
def no_logged_models(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """So does making logged models: of sweeps in this process those marked make them."""
    if not request.node.get_closest_marker("models"):
        monkeypatch.setattr(models, "log", lambda *_: {})


@pytest.fixture(autouse=True)
def quick_estimate(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sweep in this process measures its steps for less than half a second."""
    for measured in (single.seconds_per_step, stack.seconds_per_step):
        monkeypatch.setattr(measured, "__defaults__", (0.02,))


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """The small networks of the tests train twice as fast without threads; what needs them sets them."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def imported_for_good() -> None:
    """What the imports made is never garbage: looking through it again and again takes a tenth of the tests' time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow database without runs: making its tables takes seconds, copying it does not."""
    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(path.parent)  # where MLflow then has the files of "Default"
        MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def database(empty_database: Path, elsewhere: Path) -> Path:
    """The default tracking store of a command that is run in the test's folder."""
    return Path(shutil.copy(empty_database, elsewhere))


@pytest.fixture
def environment(elsewhere: Path) -> dict[str, str]:
    """The environment of a user's shell in which the project is importable."""
    return os.environ | {
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(PROJECT),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }


@pytest.fixture
def command(environment: dict[str, str]) -> Callable[..., subprocess.CompletedProcess]:
    """Run `python -m regbench <name> --option value ...` as a user would."""

    def run(name: str, **options: object) -> subprocess.CompletedProcess:
        return subprocess.run(
            arguments(name, **options), env=environment, capture_output=True, text=True, timeout=240, check=False
        )

    return run


@pytest.fixture
def run_here(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """Run a command in this process, which starts no interpreter; return its exit code and what it printed."""

    def run(main: click.Command, **options: object) -> tuple[int, str]:
        if main is sweep.main:
            options = GRID_ALONE | options
        with pytest.raises(SystemExit) as stop:
            exit_code.run(main, [f"--{name}={value}" for name, value in options.items()])
        return stop.value.code, capsys.readouterr().out

    return run


def arguments(name: str, **options: object) -> list[str]:
    if name == "sweep":
        options = GRID_ALONE | options
    return [sys.executable, "-m", "regbench", name, *(f"--{name}={value}" for name, value in options.items())]


def cut_off(line: str, what: signal.Signals, environment: dict[str, str], **options: object) -> tuple[int, str]:
    """Start a sweep and send it a signal once it prints a line that begins so; return its exit code and its errors."""
    with subprocess.Popen(
        arguments("sweep", **options, verbose="true"),
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            for told in process.stdout:
                if re.match(line, told):
                    break
            process.send_signal(what)
            _, errors = process.communicate(timeout=60)
        finally:
            process.kill()
    return process.returncode, errors


def printed(code: str, folder: Path) -> str:
    """Return what Python code prints in a new interpreter that finds modules in `folder` as they are at this moment."""
    environment = os.environ | {"PYTHONPATH": f"{folder}:{PROJECT}", "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True, timeout=60
    ).stdout


@pytest.fixture
def images() -> Images:
    """A small data set that a network can learn: the class decides which band of the picture is bright."""
    return striped()


def save_pictures(images: Images, folder: Path) -> None:
    """Write the images as PNG files in the layout of `dataset=folder`."""
    parts = ("train", images.train_images, images.train_labels), ("test", images.test_images, images.test_labels)
    for part, shown, labels in parts:
        for index, (picture, label) in enumerate(zip(shown, labels, strict=True)):
            path = folder / part / images.classes[label] / f"{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.moveaxis(picture, 0, -1)).save(path)


def striped(train: int = 120, test: int = 40, classes: int = 4) -> Images:
    random = np.random.default_rng(0)
    labels = np.arange(train + test, dtype=np.int64) % classes
    pictures = random.integers(0, 100, (train + test, 3, 32, 32), dtype=np.uint8)
    for picture, label in zip(pictures, labels, strict=True):
        picture[:, label * 8 : label * 8 + 8] += 120
    names = tuple(f"class{i}" for i in range(classes))
    return Images("striped", names, pictures[:train], labels[:train], pictures[train:], labels[train:])
