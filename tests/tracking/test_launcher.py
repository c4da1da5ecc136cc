"""What others left in the environment, the store and the folder: followed, reported, and never changed."""

import os
import subprocess
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.utils.file_utils import path_to_local_sqlite_uri
from rich.console import Console

from regbench import plan as planning
from regbench import provenance
from regbench.commands import exit_code, report
from regbench.commands import sweep as command
from regbench.engines import select
from regbench.errors import UserError
from regbench.regularizers import cells
from regbench.report import load
from regbench.run import run_plan
from regbench.tracking import database, launcher, schema
from regbench.tracking.store import Store
from regbench.trial import Recipe, grid
from tests.conftest import PROJECT, TINY

pytestmark = pytest.mark.usefixtures("database")
# what `mlflow run` sets and logs
STARTED = {"mlflow.source.type": "PROJECT", "mlflow.project.entryPoint": "main"}
LOGGED = {"dataset": "digits", "data_dir": ".data", "dry_run": "false", "reg": "none"}
SMALL = {"dataset": "digits", "model": TINY, "reg": "none", "seeds": "0", "epochs": 1, "train_size": 200}


@pytest.fixture
def client() -> MlflowClient:
    return MlflowClient(f"sqlite:///{Path('mlflow.db').resolve()}")


@pytest.fixture
def sweep(images):
    return grid(
        Recipe(images.name, images.fingerprint, 120, 40, TINY, epochs=1, batch_size=40), cells(["none"], None), [0]
    )


def train(sweep, images, experiment=None) -> Store:
    store = Store(experiment)
    store.check_files()
    engine, console = select.sequential("cpu"), Console(quiet=True)
    run_plan(planning.make(sweep, store, rerun=False), images, store, engine, console, "a sweep")
    return store


def started(client: MlflowClient, name: str | None = None, experiment: str = "0") -> str:
    """Make the run that `mlflow run` makes, and return its id."""
    run_id = client.create_run(experiment, tags=STARTED, run_name=name).info.run_id
    for param, value in LOGGED.items():
        client.log_param(run_id, param, value)
    return run_id


def known(client: MlflowClient, run_id: str) -> tuple:
    run = client.get_run(run_id)
    return run.info.run_name, run.info.status, run.info.end_time, dict(run.data.tags), dict(run.data.params)


def trials(client: MlflowClient, experiment: str) -> int:
    found = client.get_experiment_by_name(experiment)
    return len(client.search_runs([found.experiment_id], f"tags.`{schema.KIND}` = 'trial'")) if found else 0


def test_the_run_of_mlflow_run_is_the_parent_and_keeps_the_name_that_the_user_gave(client, sweep, images, monkeypatch):
    for name, kept in (("my first sweep", "my first sweep"), (None, "a sweep")):
        launcher = started(client, name, client.create_experiment(f"for {name}"))
        monkeypatch.setenv("MLFLOW_RUN_ID", launcher)
        assert train(sweep, images).launcher == launcher
        run = client.get_run(launcher)
        assert (run.info.run_name, run.info.status, run.data.tags[schema.KIND]) == (kept, "FINISHED", "sweep")
        assert "MLFLOW_RUN_ID" not in os.environ  # MLflow's own functions would write into the launcher


@pytest.mark.parametrize("name", ["wise-owl-123x", "wise-owl", "sweep-owl-1", "wise-owl-x-1", "-owl-1", "7"])
def test_a_name_that_only_looks_like_mlflows_is_the_users(client, name):
    assert launcher.has_own_name(client.get_run(started(client, name)))


def test_in_another_experiment_than_mlflow_runs_own_the_sweep_gets_a_run_of_its_own(client, sweep, images, monkeypatch):
    launcher = started(client)
    monkeypatch.setenv("MLFLOW_RUN_ID", launcher)
    store = train(sweep, images, "other")
    (parent,) = store.search(f"tags.`{schema.KIND}` = 'sweep'")
    assert {run.data.tags[schema.PARENT] for run in store.search(schema.in_sweep(sweep.id))} == {parent.info.run_id}
    assert parent.info.run_id in client.get_run(launcher).data.tags[schema.NOTE]
    assert client.get_run(launcher).data.tags[schema.KIND] == "launcher"


def test_a_run_that_mlflow_run_has_not_started_for_this_command_is_left_as_it_is(client, sweep, images, monkeypatch):
    theirs = client.create_experiment("theirs")
    finished = started(client, "finished", theirs)
    client.set_terminated(finished)
    used = started(client, "of an earlier command", theirs)
    client.set_tag(used, schema.KIND, "sweep")
    runs = {
        "finished": finished,
        "notes": client.create_run(theirs, tags={schema.NOTE: "my notes"}, run_name="notes").info.run_id,
        "of another project": client.create_run(theirs, tags=STARTED, run_name="of another project").info.run_id,
        "of an earlier command": used,
    }
    for name, run_id in runs.items():
        before = known(client, run_id)
        monkeypatch.setenv("MLFLOW_RUN_ID", run_id)
        store = train(sweep, images, f"beside {name}")
        assert f"MLFLOW_RUN_ID names the run '{name}', which `mlflow run` has not started" in store.notice
        store.name_launcher("report")
        assert known(client, run_id) == before
        assert trials(client, f"beside {name}") == 1


def test_a_deleted_run_is_reported_at_once(client, monkeypatch):
    run_id = started(client)
    client.delete_run(run_id)
    monkeypatch.setenv("MLFLOW_RUN_ID", run_id)
    with pytest.raises(UserError, match=r"is a run that is deleted in sqlite:.*: unset MLFLOW_RUN_ID"):
        Store("e")


def test_an_experiment_is_found_by_its_id(client, monkeypatch):
    chosen = client.create_experiment("chosen")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", chosen)
    assert Store().experiment == "chosen"
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "chosen")
    assert Store().experiment == "chosen"
    assert Store(chosen).experiment == "chosen"
    assert Store("another").experiment == "another"  # what the command says counts
    named_like_it = client.create_experiment(chosen)
    assert Store(chosen).experiment_id == named_like_it
    client.delete_experiment(chosen)
    with pytest.raises(UserError, match=r"deleted in .* MLFLOW_TRACKING_URI=\S+ mlflow experiments restore -x 1$"):
        Store()


def test_the_report_takes_the_one_experiment_that_holds_trials(client, sweep, images, run_here, monkeypatch):
    train(sweep, images, "one")
    code, text = run_here(report.main)
    assert code == 0
    assert "written: " in text
    train(sweep, images, "two")
    reading = Store(write=False)
    with pytest.raises(UserError, match=r"several experiments of .* hold trials: .*experiment=<name>: 'one', 'two'"):
        reading.choose_one_with_trials()
    # what is chosen by the environment is followed, and so is the experiment of `mlflow run` if it holds trials
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "two")
    assert run_here(report.main, out="of-two")[0] == 0
    monkeypatch.setenv("MLFLOW_RUN_ID", started(client, experiment=client.get_experiment_by_name("one").experiment_id))
    store = Store(write=False)
    store.choose_one_with_trials()
    assert store.experiment == "one"


def test_another_programs_database_stays_as_it_is_until_it_is_mlflows(elsewhere):
    with pytest.raises(UserError, match=r"another program's \(its tables: a, b, c, \.\.\.\)"):
        database.refuse_foreign("postgresql://server/db", {"a", "b", "c", "d"})
    database.refuse_foreign("postgresql://server/db", {"a", "experiments", "runs"})
    database.refuse_foreign("postgresql://server/db", set())
    database.check_remote(f"sqlite:///{elsewhere / 'mlflow.db'}")


STRANGE = "my project (1) %20é 100% #?&+ 'q' \"d\" 日本 🙂"


@pytest.mark.parametrize("name", [STRANGE, "-x", "~", "a:b"])
def test_a_folder_of_any_name_holds_the_store_and_its_files(name, sweep, images, tmp_path, monkeypatch, database):
    """As regbench reads and writes them, as `mlflow run` hands them on, and as the address is reported."""
    folder = tmp_path / "below" / name
    folder.mkdir(parents=True)
    (folder / "mlflow.db").write_bytes(database.read_bytes())
    monkeypatch.chdir(folder)
    store = train(sweep, images)
    (run,) = store.search(schema.in_sweep(sweep.id))
    missing: list[str] = []
    found = load.artifact(store, run.info.artifact_uri, "weights/layers.csv", missing)
    assert found.is_relative_to(folder), missing
    # nothing beside it, as of a path that is taken for an address
    assert list((tmp_path / "below").iterdir()) == [folder]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", path_to_local_sqlite_uri(str(folder / "mlflow.db")))
    assert Store().uri == store.uri
    assert len(MlflowClient(store.uri).search_runs([Store().experiment_id])) == 2


def test_a_moved_project_is_reported_and_its_old_folder_is_not_made_again(
    sweep, images, tmp_path, monkeypatch, database, run_here
):
    old, new = tmp_path / "A", tmp_path / "B"
    old.mkdir()
    (old / "mlflow.db").write_bytes(database.read_bytes())
    monkeypatch.chdir(old)
    store = train(sweep, images)
    store.client.create_experiment("empty", str(old / "mlruns" / "9"))  # as MLflow makes "Default" with the database
    old.rename(new)
    monkeypatch.chdir(new)
    code, text = run_here(report.main)
    assert code == 0
    lost = "left out for it: layer_sparsity, weight_histograms, output_bars."
    assert lost in text
    assert (
        f"not put beside the sweep's run: experiment='regbench' keeps its files in {old}/mlruns/1, which is not" in text
    )
    assert lost.replace("_", "\\_") in (new / "report" / "report.md").read_text()
    code, text = run_here(command.main, **SMALL)
    assert code == 2
    assert "train seeds" not in text
    with pytest.raises(UserError, match=f"keeps its files in {old}/mlruns/9, which is not there"):
        Store("empty").check_files()
    assert not old.exists()
    old.mkdir()
    (old / "mlruns").symlink_to(new / "mlruns")
    Store().check_files()


def test_a_first_start_where_no_file_can_be_put_leaves_no_experiment_behind(client, run_here, elsewhere):
    (elsewhere / "mlruns").write_text("a file")
    assert run_here(command.main, **SMALL)[0] == 2
    assert [found.name for found in client.search_experiments()] == ["Default"]
    (elsewhere / "mlruns").unlink()
    Store().check_files()


def test_the_commit_is_the_projects_whatever_repository_git_is_busy_with(tmp_path, monkeypatch):
    if not (PROJECT / ".git").exists():
        pytest.skip("no checkout")
    before = provenance.tags()
    subprocess.run(["git", "init", "-q", tmp_path / "other"], check=True, timeout=60)
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "other" / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(tmp_path / "other"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(tmp_path / "other" / "index"))
    assert provenance.tags() == before
    assert len(before["git.commit"]) == 40


def test_an_mlflow_that_cannot_open_databases_where_it_is_installed_is_reported(monkeypatch, capsys):
    """It takes the % of its own path for the beginning of a name to be filled in."""
    here = ModuleSpec("mlflow", None, origin="/home/me/my%20project/.venv/lib/site-packages/mlflow/__init__.py")
    monkeypatch.setattr(database, "find_spec", lambda name: here)
    with pytest.raises(SystemExit) as stop:
        exit_code.run(command.main, [f"--{name}={value}" for name, value in SMALL.items()])
    assert stop.value.code == 2
    errors = capsys.readouterr().err
    assert errors.startswith("error: MLflow is installed in /home/me/my%20project/.venv/lib/site-packages/mlflow and ")
    assert errors.endswith("make the environment in another folder, as in: python3 -m venv ~/.venvs/regbench\n")
