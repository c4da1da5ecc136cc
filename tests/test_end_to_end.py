"""What users run, as real subprocesses: sweeps, resume after SIGKILL, mlflow run, the notebook's experiments."""

import os
import re
import signal
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from regbench.commands import sweep
from regbench.tracking import schema
from regbench.tracking.database import address as database_address
from tests.conftest import PROJECT, TINY, arguments, cut_off

TRAINING = {"dataset": "digits", "model": TINY, "epochs": 3, "batch_size": 50}
SWEEP = TRAINING | {"reg": "l1,l2", "lam": "1e-3", "seeds": "0-1"}
TRIALS = 6


def client_of(folder: Path) -> MlflowClient:
    return MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")


def runs_of(folder: Path, kind: str = "trial", experiment: str = "regbench") -> list[Run]:
    client = client_of(folder)
    where = [client.get_experiment_by_name(experiment).experiment_id]
    return list(client.search_runs(where, f"tags.`{schema.KIND}` = '{kind}'", order_by=["start_time ASC"]))


def outcome(run: Run) -> dict[str, float]:
    """What a trial's result is: all metrics but times."""
    return {name: value for name, value in run.data.metrics.items() if not name.startswith("time/")}


def weights_of(run: Run) -> bytes:
    folder = Path(run.info.artifact_uri.removeprefix("file://"))
    return (folder / "weights" / "model.safetensors").read_bytes()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, empty_database) -> Path:
    """A folder in which the sweep was run to its end."""
    folder = tmp_path_factory.mktemp("undisturbed")
    (folder / "mlflow.db").write_bytes(empty_database.read_bytes())
    done = subprocess.run(
        arguments("sweep", **SWEEP),
        cwd=folder,
        env=clean_environment(folder),
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (folder / "stdout").write_text(done.stdout)
    return folder


def clean_environment(folder: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    return kept | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(PROJECT), "REGBENCH_CACHE": str(folder / "cache")}


def test_a_sweep_says_what_it_does_in_plain_lines(undisturbed):
    text = (undisturbed / "stdout").read_text()
    assert re.search(r"device: (cpu|cuda)", text)
    assert f"sweep {runs_of(undisturbed, 'sweep')[0].data.tags[schema.SWEEP]}: 6 trials, 0 finished already" in text
    assert "estimated time:" in text
    assert len(re.findall(r"^\(\d/6\) .* test accuracy 0\.\d+, [\d.]+ s$", text, re.MULTILINE)) == 6
    assert "epoch 1/3" not in text
    assert "\x1b" not in text
    assert re.search(r"none +2 +[\d.]+% +[\d.]+% +0\.00%", text)


def test_the_same_command_again_trains_nothing(undisturbed, run_here, monkeypatch):
    before = {run.info.run_id for run in runs_of(undisturbed)}
    monkeypatch.chdir(undisturbed)
    monkeypatch.setenv("REGBENCH_CACHE", str(undisturbed / "cache"))
    code, text = run_here(sweep.main, **SWEEP)
    assert code == 0
    assert "6 finished already, 0 to train" in text
    assert {run.info.run_id for run in runs_of(undisturbed)} == before
    assert re.search(r"none +2 +[\d.]+% +[\d.]+%", text)


def test_killed_in_mid_sweep_the_same_command_continues(undisturbed, database, environment, run_here, elsewhere):
    """SIGKILL twice, within a trial: nothing is lost or doubled, the results are those of the undisturbed sweep."""
    for _ in range(2):
        cut_off(r"\(2/\d\) .* epoch 2/3", signal.SIGKILL, environment, **SWEEP)
    finished = [run for run in runs_of(elsewhere) if run.info.status == "FINISHED"]
    assert len(finished) < TRIALS - 1
    # the sweep's own run at least: that of a trial waits for the writer, which may be busy with the one before
    assert [run for run in runs_of(elsewhere, "sweep") if run.info.status == "RUNNING"]

    code, text = run_here(sweep.main, **SWEEP)
    assert code == 0, text
    # what the killed process had on disk, and not in the store yet, comes first
    brought = re.search(r"^(\d+) results? of an earlier start brought", text, re.MULTILINE)
    assert f"{len(finished) + (int(brought[1]) if brought else 0)} finished already" in text

    runs = runs_of(elsewhere)
    both = runs + runs_of(elsewhere, "sweep")
    assert not [run for run in both if run.info.status == "RUNNING"]
    assert {run.data.tags[schema.STATUS] for run in both if run.info.status == "KILLED"} == {"interrupted"}
    ended = {run.info.run_name: run for run in runs if run.info.status == "FINISHED"}
    expected = {run.info.run_name: run for run in runs_of(undisturbed)}
    assert len([run for run in runs if run.info.status == "FINISHED"]) == len(ended) == TRIALS
    assert {run.info.run_id for run in finished} <= {run.info.run_id for run in ended.values()}
    for name, run in ended.items():
        assert outcome(run) == outcome(expected[name]), name
        assert weights_of(run) == weights_of(expected[name]), name
    # the parent that finished lists the whole sweep, the earlier ones say where it went on
    *before, parent = runs_of(elsewhere, "sweep")
    assert {run.data.tags[schema.PARENT] for run in ended.values()} == {parent.info.run_id}
    assert [run.info.status for run in before] == ["KILLED", "KILLED"]


def test_sigterm_closes_what_is_open_as_ctrl_c_does(database, environment, elsewhere):
    code, errors = cut_off(".* epoch 2/500", signal.SIGTERM, environment, **SWEEP | {"epochs": 500, "jobs": 1})
    assert code == 130
    told = "error: interrupted; what was finished is kept: the same command, without rerun, continues"
    assert errors.strip().splitlines()[-1] == told
    assert "Traceback" not in errors
    (trial,), (parent,) = runs_of(elsewhere), runs_of(elsewhere, "sweep")
    assert (trial.info.status, parent.info.status) == ("KILLED", "KILLED")


def test_a_trial_that_fails_gives_exit_code_1_and_the_others_finish(database, run_here, elsewhere):
    options = SWEEP | {"model": "tests.networks:RaisesLater", "seeds": "0", "baseline": "false"}
    code, text = run_here(sweep.main, **options)
    assert code == 1
    assert "failed: RuntimeError: no training today" in text
    last = text[text.index("means over seeds") :]
    assert "failed: l2 lam=1e-3 seed=0: RuntimeError: no training today" in last
    assert re.search(r"l2 lam=1e-3 +1 .*1 failed", text)
    assert {run.info.status for run in runs_of(elsewhere)} == {"FAILED"}


def test_a_dry_run_tells_the_plan_and_makes_nothing(run_here, elsewhere):
    code, text = run_here(sweep.main, **SWEEP, dry_run="true")
    assert code == 0
    assert "6 trials, 0 finished already, 6 to train" in text
    assert re.search(r"l1 lam=1e-3 +train seeds 0, 1", text)
    assert "evidence: 2 seeds are too few to choose lam and to judge 2 regularizer(s); take 8 or more, or fresh" in text
    assert re.search(r"estimated time: \d+:\d\d:\d\d", text)
    assert list(elsewhere.iterdir()) == []


@pytest.fixture
def mlflow_run(environment, elsewhere):
    """Run `mlflow run <project> --env-manager=local` with the store in the test's folder."""

    def run(*arguments: str, project: Path = PROJECT, **changed: str) -> subprocess.CompletedProcess:
        store = environment | {"MLFLOW_TRACKING_URI": f"sqlite:///{elsewhere / 'mlflow.db'}"} | changed
        return subprocess.run(
            ["mlflow", "run", str(project), "--env-manager=local", *arguments],
            env=store, cwd=changed.get("PWD"), capture_output=True, text=True, timeout=240, check=False,
        )  # fmt: skip

    return run


def test_mlflow_run_is_the_parent_of_its_trials_in_a_folder_of_any_name(database, mlflow_run, tmp_path):
    """A copy of the project, started there without any setting, as README's first command does it."""
    project = tmp_path / "my project (1) %20é"
    project.mkdir()
    (project / "mlflow.db").write_bytes(database.read_bytes())
    with closing(sqlite3.connect(project / "mlflow.db")) as made, made:  # as if it had been made there
        made.execute("UPDATE experiments SET artifact_location = ?", (f"{project}/mlruns/0",))
    for name in ("MLproject", "conda.yaml", "benchmarks", "regbench"):
        (project / name).symlink_to(PROJECT / name)
    options = SWEEP | {"seeds": "0", "confirm": "0"}
    parameters = [part for name, value in options.items() for part in ("-P", f"{name}={value}")]
    done = mlflow_run(*parameters, project=Path("."), PWD=str(project), MLFLOW_TRACKING_URI="")
    assert done.returncode == 0, done.stderr
    client = MlflowClient(database_address(project / "mlflow.db"))
    (parent,) = client.search_runs(["0"], f"tags.`{schema.KIND}` = 'sweep'")
    assert parent.info.status == "FINISHED"
    assert f"its files are in {tmp_path}/my project (1)  é/mlruns/0" in done.stdout  # where MLflow puts them
    assert parent.data.params["reg"] == "l1,l2"  # mlflow's own
    assert parent.data.tags["mlflow.project.entryPoint"] == "main"
    children = client.search_runs(["0"], f"tags.`{schema.KIND}` = 'trial'", order_by=["start_time ASC"])
    assert [run.info.run_name for run in children] == ["none seed=0", "l1 lam=1e-3 seed=0", "l2 lam=1e-3 seed=0"]
    assert {run.data.tags[schema.PARENT] for run in children} == {parent.info.run_id}


def test_mlflow_run_notebook_plans_the_four_experiments(database, mlflow_run):
    """What they print when they are trained is in test_fidelity.py."""
    done = mlflow_run("-e", "notebook", "-P", "dataset=digits", "-P", "train_size=200", "-P", "dry_run=true")
    assert done.returncode == 0, done.stderr
    assert "4 trials, 0 finished already, 4 to train" in done.stdout
    assert re.findall(r"^  (\S+)[^\n]* train seeds 0$", done.stdout, re.MULTILINE) == [
        "none",
        "l1",
        "l2",
        "weight_decay",
    ]
