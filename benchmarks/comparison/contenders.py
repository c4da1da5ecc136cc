"""Who is compared: the files that a user writes, the commands that they start, and where the runs are then."""

import shlex
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pandas as pd

from benchmarks.comparison import answers, runs

PROJECT = Path(__file__).resolve().parents[2]
FILES = Path(__file__).resolve().parent
QUESTION = FILES / "question.py"
REGS = ("l1", "weight_decay")
SELECTION = 2  # seeds that choose lam where others judge it
# as a user types them -> as they are found in an environment that is not activated
PROGRAMS = {
    "python": (sys.executable,),
    "benchopt": (sys.executable, "-m", "benchopt"),
    "mlflow": (sys.executable, "-m", "mlflow"),
    "regbench": (sys.executable, "-m", "regbench"),
}


@dataclass(frozen=True)
class Question:
    """How large the question is. A grid with so many `seeds` takes as many trainings as two stages with `fresh` ones."""

    lams: tuple[float, ...]
    seeds: int
    epochs: int

    @property
    def fresh(self) -> int:
        return 2 * self.seeds

    @property
    def cells(self) -> int:
        """Every strength of every regularizer, and none."""
        return len(REGS) * len(self.lams) + 1

    @property
    def environment(self) -> dict[str, str]:
        return {"LAMS": self._lams, "SEEDS": str(self.seeds), "EPOCHS": str(self.epochs)}

    @property
    def fields(self) -> dict[str, object]:
        """What the commands of the contenders name."""
        last = SELECTION + self.fresh - 1
        return {"lams": self._lams, "seeds": self.seeds, "fresh": f"{SELECTION}-{last}", "epochs": self.epochs}

    @property
    def _lams(self) -> str:
        return ",".join(map(str, self.lams))


@dataclass(frozen=True)
class Contender:
    """One way to answer the question.

    folder: of the files to be written, beside this one; "" if there are none. commands: as a user types them. packages:
    those that it needs and regbench does not. trainings: folder -> what it has trained, see `runs`. answer: folder -> what
    it says. search: how many trainings choose lam apart from those that judge it; None: the whole grid judges.
    """

    name: str
    folder: str
    commands: tuple[str, ...]
    packages: tuple[str, ...]
    trainings: Callable[[Path], pd.DataFrame]
    answer: Callable[[Path], str]
    search: Callable[[Question], int] | None = None

    @property
    def missing(self) -> list[str]:
        """The packages that are not installed."""
        return [package for package, found in self.versions.items() if not found]

    @property
    def versions(self) -> dict[str, str]:
        """The version of each package, "" for one that is not installed."""
        return {package: _version(package) for package in self.packages}

    @property
    def files(self) -> list[Path]:
        """The files that a user writes for this contender alone."""
        if not self.folder:
            return []
        return sorted(path for path in (FILES / self.folder).rglob("*") if path.suffix in (".py", ".yaml"))

    def started(self, question: Question) -> Iterator[list[str]]:
        """Yield the words of each command, of programs that are installed with this Python."""
        for command in self.commands:
            program, *words = shlex.split(command.format(**question.fields))
            yield [*PROGRAMS[program], *words]

    def needed(self, question: Question, pairs: int) -> int:
        """Return how many trainings it takes by this design to choose lam by some seeds and judge it on `pairs` others."""
        if self.search is None:
            return question.cells * (SELECTION + pairs)
        return self.search(question) + (len(REGS) + 1) * pairs


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


LAST_THREE = partial(answers.last_lines, 3)
CONTENDERS = (
    Contender("loop by hand", "loop", ("python sweep.py",), (), partial(runs.of_mlflow, "loop"), LAST_THREE),
    Contender(
        "benchopt",
        "benchopt",
        ("benchopt run . -r {seeds} -j 2 --no-display --output result",),
        ("benchopt",),
        runs.of_benchopt,
        answers.of_benchopt,
    ),
    Contender(
        "Hydra",
        "hydra",
        (
            # or the first trainings make the tables of the database at the same time, and fail
            "mlflow experiments create --experiment-name hydra",
            "python train.py -m reg=none 'seed=range({seeds})'",
            "python train.py -m reg=l1,weight_decay lam={lams} 'seed=range({seeds})'",
            "python summary.py",
        ),
        ("hydra-core", "hydra-joblib-launcher"),
        partial(runs.of_mlflow, "hydra"),
        LAST_THREE,
    ),
    Contender(
        "Optuna",
        "optuna",
        ("python search.py",),
        ("optuna",),
        runs.of_optuna,
        LAST_THREE,
        search=lambda question: len(REGS) * 2 * len(question.lams),
    ),
    Contender(
        "regbench",
        "",
        (
            "regbench sweep --dataset=digits --reg=l1,weight_decay --lam={lams} --seeds=0-1 --confirm={fresh} "
            "--epochs={epochs} --optimizer=adam --lr=0.001 --schedule=constant --scope=all",
        ),
        (),
        runs.of_regbench,
        answers.of_regbench,
        search=lambda question: question.cells * SELECTION,
    ),
)
