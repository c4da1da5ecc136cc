"""Odd places to start a command in: it does what it does elsewhere, or says in one line what to change."""

import io
import os
import pwd
import re
import shutil
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import click
import matplotlib
import pytest
from mlflow import MlflowClient
from rich.console import Console

from regbench import identity
from regbench.commands import exit_code
from regbench.console import print_results
from regbench.plan import Plan
from regbench.results import Result
from regbench.trial import Recipe, Sweep, Trial
from tests.conftest import TINY, arguments

NAME = "\u00dcbung \u72ac"


@click.command()
def say() -> None:
    click.echo(NAME)
    Console().print(NAME)


def stopped(command: click.Command) -> int:
    with pytest.raises(SystemExit) as stop:
        exit_code.run(command, [])
    return stop.value.code


def test_letters_that_the_output_does_not_take_are_spelt_out(monkeypatch):
    for errors in ("strict", "surrogateescape"):
        output = io.BytesIO()
        monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(output, "ascii", errors))
        assert stopped(say) == 0
        sys.stdout.flush()
        # click takes such a stream to be one of UTF-8
        assert output.getvalue().splitlines() == [NAME.encode(), rb"\xdcbung \u72ac"]


def test_a_terminal_of_no_size_is_written_to(monkeypatch, capsys):
    for size in ("0", ""):
        monkeypatch.setenv("COLUMNS", size)
        monkeypatch.setenv("LINES", size)
        assert stopped(say) == 0
        assert capsys.readouterr().out.splitlines() == [NAME, NAME]


def test_closed_streams_are_done_without(monkeypatch):
    for name in ("stdin", "stdout", "stderr"):
        monkeypatch.setattr(sys, name, None)
    assert stopped(say) == 0
    assert sys.stdin.read() == ""
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        stream.close()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="it is Linux's")
def test_an_output_that_cannot_be_written_is_told_in_one_line(monkeypatch, capsys):
    with open("/dev/full", "w", encoding="utf-8") as full, open(os.devnull, "w", encoding="utf-8") as nothing:
        monkeypatch.setattr(sys, "stdout", full)
        assert stopped(say) == 1
        os.dup2(nothing.fileno(), full.fileno())  # so that it can be closed
    told = capsys.readouterr().err
    assert told.startswith(
        "error: standard output cannot be written (No space left on device); what was finished is kept"
    )
    assert told.count("\n") == 1
    sys.stdout.write("nowhere, and nothing is left to be written when Python ends")
    sys.stdout.close()


def test_warnings_that_are_to_be_errors_are_told(monkeypatch):
    """PYTHONWARNINGS=error, as continuous integration has it, is not meant for other people's libraries."""
    monkeypatch.setenv("PYTHONWARNINGS", "error")
    monkeypatch.setattr(sys, "warnoptions", ["error", "ignore:x"])

    @click.command()
    def warn() -> None:
        warnings.warn("old", DeprecationWarning, stacklevel=1)

    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("error")
        assert stopped(warn) == 0
    assert [str(warning.message) for warning in told] == ["old"]
    assert sys.warnoptions == ["ignore:x"]
    assert "PYTHONWARNINGS" not in os.environ


def test_a_folder_that_is_gone_is_told(tmp_path, monkeypatch, capsys):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert stopped(say) == 2
    assert re.fullmatch(r"error: the folder in which you are is gone \(.*\): change to .*\n", capsys.readouterr().err)


def test_no_place_for_temporary_files_is_told(monkeypatch, capsys):
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: ["/no/such/folder"])
    assert stopped(say) == 2
    assert re.fullmatch(
        r"error: there is no folder for temporary files \(.*\): set TMPDIR to .*\n", capsys.readouterr().err
    )


def test_without_a_home_it_is_the_folder_in_which_one_is(elsewhere, monkeypatch):
    def unknown(_: int) -> None:
        raise KeyError

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    for home in ("", None):
        monkeypatch.setenv("HOME", home) if home is not None else monkeypatch.delenv("HOME")
        assert stopped(say) == 0
        assert Path.home() == elsewhere


def test_a_library_that_cannot_be_imported_is_named(tmp_path, monkeypatch, capsys):
    (tmp_path / "broken_library").mkdir()
    (tmp_path / "broken_library" / "__init__.py").write_text("from broken_library import inner")
    (tmp_path / "broken_library" / "inner.py").write_text("int('x\\n')")
    monkeypatch.syspath_prepend(tmp_path)
    for name, told in (
        ("broken_library", "ValueError: invalid literal"),
        ("missing_library", "ModuleNotFoundError: No"),
    ):
        space = {"__name__": "regbench.late"}
        exec(f"def use():\n    import {name}\ndef fail():\n    raise ValueError", space)
        assert stopped(click.command()(space["use"])) == 2
        error = capsys.readouterr().err
        assert error.startswith(f"error: the library {name} cannot be imported ({told}")
        assert error.count("\n") == 1
    # a fault of our own keeps its traceback
    with pytest.raises(ValueError):
        exit_code.run(click.command()(space["fail"]), [])


def test_the_results_have_all_their_numbers_at_any_width(monkeypatch):
    recipe = Recipe("digits", "0" * 64, 100, 10)
    numbers = {"val/accuracy": 0.1, "test/accuracy": 0.0944, "sparsity/exact": 0.0}
    name = "my_lab.regularizers.structured:GroupLassoWithDeadZone"
    trials = tuple(Trial(recipe, reg, 1e-4, 0) for reg in ("none", name))
    monkeypatch.setattr(identity, "files", lambda *_: {})  # of a class that is not there
    results = {trial.key: Result(trial, "ok", numbers) for trial in trials}
    for width in (1, 20, 80, 200):
        written = io.StringIO()
        print_results(Console(file=written, width=width, soft_wrap=True), Plan(Sweep(trials), trials, ()), results)
        for cell in ("none", f"{name} lam=1e-4"):
            assert re.search(rf"^ {re.escape(cell)} +1 +10\.00% +9\.44% +0\.00% *$", written.getvalue(), re.MULTILINE)


def test_a_sweep_in_odd_surroundings(environment, elsewhere, database):
    """All at once: none of these oddities hides another."""
    (elsewhere / "home").mkdir()
    for known in Path(matplotlib.get_cachedir()).glob("fontlist-*.json"):  # looking for them takes seconds
        shutil.copy(known, elsewhere / "home")
    (elsewhere / "home" / "matplotlibrc").write_text("text.usetex: True\nbackend: TkAgg\nfigure.dpi: x\nnonsense: 1\n")
    odd = {
        "PYTHONIOENCODING": "ascii",
        "PYTHONWARNINGS": "error",
        "LC_ALL": "garbage",
        "TZ": "Nowhere/Land",
        "COLUMNS": "20",
        "TERM": "garbage",
        "FORCE_COLOR": "1",
        "MPLBACKEND": "garbage",
        "MPLCONFIGDIR": str(elsewhere / "home"),
        "TMPDIR": "/no/such/folder",
        "OMP_NUM_THREADS": "abc",
        "CUDA_VISIBLE_DEVICES": "garbage",
        "HOME": "",
    }
    options = {
        "dataset": "digits",
        "model": TINY,
        "reg": "l2",
        "lam": "1e-4",
        "seeds": 0,
        "epochs": 1,
        "train_size": 200,
    }
    done = subprocess.run(
        arguments("sweep", **options, experiment=NAME),
        env=environment | odd, capture_output=True, timeout=240, check=False,
    )  # fmt: skip
    told = done.stdout.decode("ascii")
    assert done.returncode == 0, done.stderr
    assert "epoch 1/1" not in told and " test accuracy 0." in told  # in a file no bar, and a line for each trial
    assert r'experiment "\xdcbung \u72ac"' in told
    assert re.search(r"^ l2 lam=1e-4 +1 +\S+% +\S+% +\S+% *$", told, re.MULTILINE)
    client = MlflowClient(f"sqlite:///{database}")
    (run, *_) = client.search_runs([client.get_experiment_by_name(NAME).experiment_id], "params.regularizer = 'l2'")
    assert "weights/histograms.png" in {file.path for file in client.list_artifacts(run.info.run_id, "weights")}
