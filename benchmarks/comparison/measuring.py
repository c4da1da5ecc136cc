"""A contender at work, in a folder and processes of its own: how long it takes, what it prints, what it has trained."""

import os
import resource
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from benchmarks.comparison.answers import OUTPUT
from benchmarks.comparison.contenders import FILES, PROJECT, QUESTION, Contender, Question
from benchmarks.comparison.lines import written
from regbench.errors import UserError


@dataclass(frozen=True)
class Measured:
    """What a contender took and said.

    lines: that a user writes for it alone, its commands included. seconds: from the first command's start to the last one's
    end; cpu_seconds: of all its processes. answer: in its own words. trainings: see `runs`.
    """

    lines: int
    seconds: float
    cpu_seconds: float
    answer: str
    trainings: pd.DataFrame


def lines(contender: Contender) -> int:
    """Return how many lines a user writes for a contender alone: those of its files, and a line for each command."""
    return sum(map(written, contender.files)) + len(contender.commands)


def measure(contender: Contender, question: Question, folder: Path) -> Measured:
    """Have a contender answer the question in a new folder; raises UserError if a command of its fails."""
    folder.mkdir(parents=True)
    if contender.folder:
        shutil.copytree(FILES / contender.folder, folder, dirs_exist_ok=True)
        shutil.copy(QUESTION, folder)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")} | {
        "MLFLOW_TRACKING_URI": f"sqlite:///{folder.resolve() / 'mlflow.db'}",
        "PYTHONPATH": os.pathsep.join([str(folder.resolve()), str(PROJECT)]),
        **question.environment,
    }
    output = folder / OUTPUT
    begin, before = time.perf_counter(), _cpu_seconds()
    for words in contender.started(question):
        with output.open("a", encoding="utf-8") as log:
            done = subprocess.run(words, cwd=folder, env=environment, stdout=log, stderr=subprocess.STDOUT, check=False)
        if done.returncode:
            told = output.read_text(encoding="utf-8").strip().splitlines()
            raise UserError(
                f"{contender.name} ended with exit code {done.returncode} ({told[-1] if told else 'without a word'}): "
                f"see {output}; --only names others"
            )
    seconds, cpu_seconds = time.perf_counter() - begin, _cpu_seconds() - before
    return Measured(lines(contender), seconds, cpu_seconds, contender.answer(folder), contender.trainings(folder))


def _cpu_seconds() -> float:
    """Return the CPU time of all processes that this one has started and that have ended, and of theirs."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
