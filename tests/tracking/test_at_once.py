"""Sweeps that start at the same moment, and disks that refuse what is written to them."""

import re
import sqlite3
import subprocess
import sys
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import pytest

from regbench.commands import exit_code, sweep
from regbench.tracking import schema
from tests.conftest import TINY, arguments
from tests.test_end_to_end import runs_of

COMMON = {
    "dataset": "digits", "model": TINY, "lam": "1e-3", "seeds": "0-1", "batch_size": 50, "epochs": 2, "train_size": 300,
    "jobs": 1,
}  # fmt: skip


def at_once(environment: dict[str, str], *commands: dict[str, object]) -> list[tuple[int, str, str]]:
    """Start sweeps together; return the exit code, output and errors of each."""
    started = [
        subprocess.Popen(
            arguments("sweep", **COMMON, **options),
            env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for options in commands
    ]  # fmt: skip
    try:
        outputs = [process.communicate(timeout=200) for process in started]
    finally:
        for process in started:
            process.kill()
            process.wait(timeout=60)
    return [(process.returncode, *texts) for process, texts in zip(started, outputs, strict=True)]


def test_two_sweeps_at_once_into_a_new_database_both_complete(environment, elsewhere):
    """No tables, no experiment: both make them."""
    ended = at_once(environment, {"reg": "l1", "baseline": "false"}, {"reg": "l2", "baseline": "false"})
    assert [code for code, *_ in ended] == [0, 0], ended
    assert [run.info.status for run in runs_of(elsewhere, "sweep")] == ["FINISHED"] * 2
    runs = runs_of(elsewhere)
    assert [run.info.status for run in runs] == ["FINISHED"] * 4
    assert len({run.data.tags[schema.KEY] for run in runs}) == 4


def test_the_same_sweep_twice_at_once_trains_no_trial_twice(database, environment, elsewhere):
    """The second refuses, or finds finished what the first has finished by then."""
    ended = at_once(environment, {"reg": "l1"}, {"reg": "l1"})
    codes = sorted(code for code, *_ in ended)
    assert codes in ([0, 0], [0, 2]), ended
    if codes == [0, 2]:
        (errors,) = (errors for code, _, errors in ended if code == 2)
        assert re.search(r"error: process \d+ is training trials of this sweep", errors)
    runs = runs_of(elsewhere)
    assert set(Counter(run.data.tags[schema.KEY] for run in runs).values()) == {1}
    assert [run.info.status for run in runs] == ["FINISHED"] * 4
    assert sum("test accuracy" in line for _, text, _ in ended for line in text.splitlines()) == 4
    assert [run.info.status for run in runs_of(elsewhere, "sweep")] == ["FINISHED"]


def refusal(options: dict[str, object], capsys) -> str:
    """Run a sweep in this process that must be refused; return its error, of one line."""
    with pytest.raises(SystemExit) as stop:
        exit_code.run(sweep.main, [f"--{name}={value}" for name, value in options.items()])
    error = capsys.readouterr().err.strip()
    assert stop.value.code == 2, error
    assert len(error.splitlines()) == 1
    return error


@contextmanager
def small_disk(folder: Path, size: str):
    """A file system of `size` at `folder`; skips the test where mounting one is not allowed."""
    folder.mkdir(parents=True, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, check=False)
    except FileNotFoundError:
        pytest.skip("no mount")
    if done.returncode:
        pytest.skip("mounting is not allowed here")
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.skipif(sys.platform != "linux", reason="mounts a file system")
def test_a_full_disk_for_artifacts_is_reported_and_a_rerun_delivers(database, command, run_here, capsys, elsewhere):
    options = COMMON | {"reg": "l1"}
    with small_disk(elsewhere / "mlruns", "100k"):
        done = command("sweep", **options)
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert re.search(r"No space left on device.*make room on that disk\. \d results? waits? in \S+: the same", last), (
        last
    )
    assert "Traceback" not in done.stderr
    finished = [run for run in runs_of(elsewhere) if run.info.status == "FINISHED"]
    assert len(finished) < 4
    assert not [run for run in runs_of(elsewhere, "sweep") if run.info.status == "RUNNING"]
    # what had been there is gone with the disk of the test, which is reported; what waited is delivered to the new one
    if finished:
        (again,) = re.findall(r"if they are gone for good, go on by mkdir -p (\S+),", refusal(options, capsys))
        Path(again).mkdir(parents=True)
    code, text = run_here(sweep.main, **options)
    assert code == 0, text
    assert re.search(r"\d results? of an earlier start brought", text)
    runs = [run for run in runs_of(elsewhere) if run.info.status == "FINISHED"]
    assert len(runs) == len({run.data.tags[schema.KEY] for run in runs}) == 4


def test_an_artifact_folder_that_cannot_be_written_is_named(database, capsys, elsewhere):
    (elsewhere / "mlruns").write_text("in the way")
    told = refusal(COMMON | {"reg": "l1", "baseline": "false"}, capsys)
    assert re.search(r"error: MLflow keeps the files of .* in \S*/mlruns, which cannot be written .*: make", told)


def test_a_locked_database_is_reported_in_one_line(database, command):
    with sqlite3.connect(database, isolation_level=None) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        done = command("sweep", **COMMON, reg="l1")
        connection.execute("ROLLBACK")
    assert done.returncode == 2
    assert "is locked by another program: wait for it, or end it" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_folder_for_waiting_results_that_cannot_be_made_is_named(database, capsys, monkeypatch, elsewhere):
    (elsewhere / "cache").write_text("in the way")
    monkeypatch.setenv("REGBENCH_CACHE", str(elsewhere / "cache"))
    told = refusal(COMMON | {"reg": "l1"}, capsys)
    assert re.search(r"error: the folder \S+/cache/waiting/\S+ .* set REGBENCH_CACHE to a folder that can", told)
