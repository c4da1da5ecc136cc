"""The store and the writer against a real MLflow on SQLite."""

import csv
import dataclasses
import math
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch
from mlflow import MlflowClient
from rich.console import Console
from safetensors.torch import load_file

from regbench import plan as planning
from regbench.engines import select
from regbench.errors import TrackingError, UserError
from regbench.measures import weights as sparsity
from regbench.regularizers import cells
from regbench.report import load
from regbench.run import run_plan
from regbench.tracking import abandoned, artifacts, finished, pictures, schema, writer_process
from regbench.tracking import store as store_module
from regbench.tracking import writer as writer_module
from regbench.tracking.delivery import flush
from regbench.tracking.store import Store
from regbench.trial import Recipe, grid
from tests.conftest import TINY

ENGINE = select.sequential("cpu")
pytestmark = pytest.mark.usefixtures("database")


def mlflow_client() -> MlflowClient:
    return MlflowClient(f"sqlite:///{Path('mlflow.db').resolve()}")


@pytest.fixture
def sweep(images):
    recipe = Recipe(images.name, images.fingerprint, 120, 40, TINY, epochs=2, batch_size=40)
    return grid(recipe, cells(["l1"], [1e-3]), [0, 1])


def train(sweep, images, rerun=False, experiment="e"):
    store = Store(experiment)
    return run_plan(planning.make(sweep, store, rerun), images, store, ENGINE, Console(quiet=True), "a sweep")


def runs(kind="trial", experiment="e"):
    client = mlflow_client()
    found = client.search_runs(
        [client.get_experiment_by_name(experiment).experiment_id], f"tags.`{schema.KIND}` = '{kind}'"
    )
    return sorted(found, key=lambda run: run.info.start_time)


@pytest.mark.pictures
def test_a_trials_run_holds_all_that_the_schema_says(sweep, images):
    results = train(sweep, images)
    (parent,), children = runs("sweep"), runs()
    client = mlflow_client()
    assert [run.info.run_name for run in children] == [trial.name for trial in sweep.trials]
    assert parent.info.status == "FINISHED"
    assert {"env.torch", "env.python", schema.DEVICE, schema.ENGINE, schema.FINGERPRINT} <= set(parent.data.tags)
    assert "| l1 lam=1e-3 | 2 |" in parent.data.tags[schema.NOTE]
    assert [file.path for file in client.list_artifacts(parent.info.run_id)] == ["sweep.json"]
    for run, result in zip(children, results, strict=True):
        assert run.info.status == "FINISHED"
        assert run.data.tags[schema.PARENT] == parent.info.run_id
        assert run.data.tags[schema.STATUS] == "ok"
        assert schema.stages(run.data.tags) == {sweep.id: "grid"}
        assert run.data.params == schema.trial_params(result.trial)
        assert run.data.params["lam"] == ("0" if result.trial.regularizer == "none" else "1e-3")
        history = client.get_metric_history(run.info.run_id, "val/accuracy")
        assert [metric.step for metric in history] == [1, 2]
        assert run.data.metrics == pytest.approx(dict(result.metrics))
        assert {"test/accuracy", "test/loss", "test/ece", "test/brier", "gap/accuracy", "sparsity/exact",
                "sparsity/abs_1e-3", "sparsity/rel_1e-2", "sparsity/filters", "sparsity/neurons", "gini", "hoyer", "n_eff",
                "compression_ratio", "theoretical_speedup", "prune/0", "prune/0.5", "prune/0.99",
                "sparsity_at_1pp"} <= set(run.data.metrics)  # fmt: skip
        assert run.data.metrics["prune/0"] == run.data.metrics["test/accuracy"]
        (dataset,) = run.inputs.dataset_inputs
        assert (dataset.dataset.name, dataset.dataset.digest) == ("striped", images.fingerprint[:16])
        files = {file.path for file in client.list_artifacts(run.info.run_id, "weights")}
        assert files == {
            "weights/model.safetensors", "weights/epochs.csv", "weights/layers.csv", "weights/histograms.csv",
            "weights/histograms.png", "weights/output.safetensors", "weights/out.png",
        }  # fmt: skip


def test_the_weights_that_are_kept_are_those_that_were_trained(sweep, images):
    train(sweep, images)
    (run, *_) = runs()
    folder = Path(run.info.artifact_uri.removeprefix("file://")) / "weights"
    weights = load_file(folder / "model.safetensors")
    assert run.data.metrics["norm/l2"] == pytest.approx(
        math.sqrt(sum(w.double().square().sum().item() for w in weights.values() if w.ndim > 1)), rel=1e-6
    )
    rows = list(csv.DictReader((folder / "layers.csv").open()))
    assert [row["layer"] for row in rows] == ["body.0.weight", "out.weight"]
    assert {"sparsity/rel_1e-2", "sparsity/filters", "sparsity/neurons", "gini", "hoyer", "n_eff"} <= set(rows[0])
    assert [int(row["macs"]) for row in rows] == [32 * 32 * 4 * 27, 256 * 4]
    assert sum(int(row["weights"]) for row in rows) == sum(w.numel() for w in weights.values() if w.ndim > 1)


def test_what_is_finished_is_skipped_and_found_by_its_sweep(sweep, images):
    train(sweep, images)
    larger = grid(sweep.recipes[0], cells(["l1"], [1e-3, 1e-4]), [0, 1])
    store = Store("e")
    plan = planning.make(larger, store, rerun=False)
    assert [trial.cell for trial in plan.todo] == ["l1 lam=1e-4"] * 2
    results = train(larger, images)
    assert len(runs()) == 6
    assert all("val/accuracy" in result.metrics for result in results)
    assert len(Store("e").search(schema.in_sweep(larger.id))) == 6
    # trials of another sweep that is complete stay listed under it
    first, second = runs("sweep")
    assert len([run for run in runs() if run.data.tags[schema.PARENT] == first.info.run_id]) == 4
    assert len([run for run in runs() if run.data.tags[schema.PARENT] == second.info.run_id]) == 2


def test_rerun_trains_again_and_replaces(sweep, images):
    train(sweep, images)
    old = {run.info.run_id for run in runs()}
    train(sweep, images, rerun=True)
    assert len(runs()) == 8
    by = {run.info.run_id: run.data.tags.get(schema.SUPERSEDED) for run in runs()}
    superseded = {run_id: newer for run_id, newer in by.items() if newer}
    assert set(superseded) == old
    counted = finished.of_recipes(Store("e"), sweep.recipes)
    assert {found.run_id for found in counted.values()} == set(superseded.values())


def test_sweeps_that_share_trials_at_once_both_keep_them(sweep, images):
    """Each has planned before the other has said that the trials of `none` are its own, too."""
    recipe = sweep.recipes[0]
    train(grid(recipe, cells(["none"], None), [0, 1]), images)
    store = Store("e")
    sweeps = [grid(recipe, cells([name], [1e-3]), [0, 1]) for name in ("l1", "l2")]
    plans = [planning.make(one, store, rerun=False) for one in sweeps]
    for plan in plans:
        run_plan(plan, images, store, ENGINE, Console(quiet=True), "a sweep")
    for one in sweeps:
        found = store.search(schema.in_sweep(one.id))
        assert {run.info.run_name for run in found} == {trial.name for trial in one.trials}
        assert set(load.load(store, sweep=one.id)[0].trials["name"]) == {trial.name for trial in one.trials}


def test_trials_that_name_their_sweeps_in_one_tag_stay_readable(sweep, images):
    """As earlier versions wrote it, also where a new sweep takes them over."""
    train(sweep, images)
    client = mlflow_client()
    for run in runs():
        client.delete_tag(run.info.run_id, f"{schema.SWEEP}.{sweep.id}")
        client.set_tag(run.info.run_id, schema.SWEEP, f"0123456789ab {sweep.id}")
    store = Store("e")
    assert len(load.load(store, sweep=sweep.id)[0].trials) == len(load.load(store, sweep="0123456789ab")[0].trials) == 4
    larger = grid(sweep.recipes[0], cells(["l1"], [1e-3, 1e-4]), [0, 1])
    train(larger, images)
    assert len(load.load(Store("e"), sweep=larger.id)[0].trials) == 6
    assert len(load.load(Store("e"), sweep=sweep.id)[0].trials) == 4


def test_of_two_finished_runs_of_one_trial_the_newest_counts_everywhere(sweep, images):
    """Two sweeps at once may train the same: a plan and a report must not differ in which they take."""
    train(sweep, images)
    client, older = mlflow_client(), runs()[0]
    tags = {name: text for name, text in older.data.tags.items() if not name.startswith("mlflow.")}
    twin = client.create_run(older.info.experiment_id, older.info.start_time - 1, tags, older.info.run_name).info.run_id
    for name, value in older.data.params.items():
        client.log_param(twin, name, value)
    client.set_terminated(twin, "FINISHED", older.info.end_time + 1)  # begun first, ended last
    store = Store("e")
    planned = planning.make(sweep, store, rerun=False).reused[older.data.tags[schema.KEY]]
    reported = load.load(store)[0].trials
    assert planned.run_id == twin
    assert reported.loc[reported["name"] == older.info.run_name, "run_id"].tolist() == [twin]


def test_other_recipes_and_experiments_are_not_mixed_up(sweep, images):
    train(sweep, images)
    other = dataclasses.replace(sweep.recipes[0], epochs=1)
    assert len(planning.make(grid(other, cells(["l1"], [1e-3]), [0]), Store("e"), False).todo) == 2
    assert len(planning.make(sweep, Store("another"), False).todo) == 4


def test_a_failed_trial_is_recorded_and_trained_again(sweep, images):
    recipe = dataclasses.replace(sweep.recipes[0], model="tests.networks:RaisesInTraining")
    failing = grid(recipe, cells(["none"], None), [0])
    for count in (1, 2):
        (result,) = train(failing, images)
        assert (result.status, result.reason) == ("failed", "RuntimeError: no training today")
        assert [run.info.status for run in runs()] == ["FAILED"] * count
    assert runs()[0].data.tags[schema.REASON] == "RuntimeError: no training today"
    assert runs("sweep")[0].info.status == "FAILED"


@pytest.mark.pictures
def test_a_diverged_trial_is_a_result(sweep, images):
    recipe = dataclasses.replace(sweep.recipes[0], lr=50.0, epochs=20)
    (result,) = train(grid(recipe, cells(["l2"], [10.0], baseline=False), [0]), images)
    assert result.status == "diverged"
    (run,) = runs()
    assert run.info.status == "FINISHED"
    assert run.data.tags[schema.STATUS] == "diverged"
    assert math.isnan(run.data.metrics["train/loss"])
    assert "nan" in run.data.tags[schema.REASON]
    assert all(math.isnan(value) or abs(value) < 1e300 for value in run.data.metrics.values())  # no mapped infinities


def test_a_slow_trial_is_written_while_it_runs_and_no_point_twice(sweep, images, monkeypatch):
    monkeypatch.setattr(writer_module, "FLUSH_SECONDS", 0.0)
    train(sweep, images)
    client = mlflow_client()
    for run in runs():
        for name in ("train/loss", "val/accuracy"):
            assert [metric.step for metric in client.get_metric_history(run.info.run_id, name)] == [1, 2]


def test_runs_are_found_however_many_pages_they_fill(sweep, monkeypatch):
    monkeypatch.setattr(store_module, "PAGE", 3)
    store = Store("e")
    experiment = store.create()
    for i in range(10):
        store.client.create_run(experiment, tags={schema.KIND: "trial"}, run_name=str(i))
    assert len(store.search(f"tags.`{schema.KIND}` = 'trial'")) == 10


def stale_run(sweep, owner: str) -> str:
    store = Store("e")
    tags = {schema.KEY: sweep.trials[0].key, schema.OWNER: owner, schema.KIND: "trial"}
    return store.client.create_run(store.create(), tags=tags).info.run_id


def test_runs_of_a_dead_process_are_marked_killed(sweep, images):
    done = subprocess.run(
        [sys.executable, "-c", "from regbench.tracking import writer_process; print(writer_process.current())"],
        capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2], timeout=60,
    )  # fmt: skip
    stale = stale_run(sweep, done.stdout.strip())
    train(sweep, images)
    run = mlflow_client().get_run(stale)
    assert (run.info.status, run.data.tags[schema.STATUS]) == ("KILLED", "interrupted")
    assert len([run for run in runs() if run.info.status == "FINISHED"]) == 4


def test_a_zombie_is_not_alive():
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        found = psutil.Process(child.pid)
        owner = f"{writer_process.current().rsplit(':', 2)[0]}:{child.pid}:{writer_process._start_time(found)}"
        assert writer_process.alive(owner) is True
        child.kill()
        while found.status() != psutil.STATUS_ZOMBIE:  # nobody has collected it yet
            pass
        assert writer_process.alive(owner) is False
    finally:
        child.kill()
        child.wait(timeout=60)


def test_a_process_id_in_use_again_is_not_the_owner():
    host, pid, _ = writer_process.current().rsplit(":", 2)
    assert writer_process.alive(f"{host}:{pid}:1.00") is False
    assert writer_process.alive(writer_process.current()) is True
    assert writer_process.alive(f"another-machine:{pid}:1.00") is None


def test_a_trial_that_another_process_trains_now_is_refused(sweep, images):
    parent = psutil.Process(os.getppid())
    host = writer_process.current().rsplit(":", 2)[0]
    stale_run(sweep, f"{host}:{parent.pid}:{writer_process._start_time(parent)}")
    with pytest.raises(UserError, match=f"process {parent.pid} is training"):
        train(sweep, images)


def test_a_store_that_fails_in_mid_sweep_ends_it_with_what_happened(sweep, images, monkeypatch):
    calls = []

    def fail(*args, **kwargs):
        calls.append(args)
        raise OSError("disk full")

    monkeypatch.setattr(MlflowClient, "log_artifact", fail)
    with pytest.raises(TrackingError, match="disk full"):
        train(sweep, images)
    assert len(calls) == 1
    assert not [run for run in runs() if run.info.status == "FINISHED"]


def test_what_a_store_refused_waits_on_disk_and_is_not_trained_again(sweep, images, monkeypatch):
    write, count = MlflowClient.log_artifact, iter(range(100))

    def fail_at_the_last(self, *args, **kwargs):
        if next(count) == 6 * len(sweep.trials) - 1:
            raise OSError("disk full")
        return write(self, *args, **kwargs)

    monkeypatch.setattr(MlflowClient, "log_artifact", fail_at_the_last)
    # the last trial and the end of the sweep
    with pytest.raises(TrackingError, match=r"disk full.* 2 results wait in .*: the same command"):
        train(sweep, images)
    assert [run.info.status for run in runs("sweep")] == ["KILLED"]
    reported = []
    flush(Store("e"), reported.append)
    assert reported == ["2 results of an earlier start brought to the tracking store"]
    assert planning.make(sweep, Store("e"), rerun=False).todo == ()
    (parent,) = runs("sweep")
    assert parent.info.status == "FINISHED"
    assert [run.info.status for run in runs()] == ["FINISHED"] * 4
    assert {run.data.tags[schema.PARENT] for run in runs()} == {parent.info.run_id}


def test_runs_of_a_silent_machine_are_marked_killed(sweep, images):
    now = int(time.time() * 1000)
    store = Store("e")
    known = {}
    for silent in (0, 2 * abandoned.SILENT):
        tags = {schema.KIND: "sweep", schema.OWNER: "another-machine:1:1.00", schema.HEARTBEAT: str(now - silent)}
        parent = store.client.create_run(store.create(), start_time=1, tags=tags).info.run_id
        tags = {schema.KIND: "trial", schema.OWNER: "another-machine:1:1.00", schema.PARENT: parent}
        known[silent] = parent, store.client.create_run(store.create(), start_time=1, tags=tags).info.run_id
    train(sweep, images)
    for silent, (parent, trial) in known.items():
        expected = "KILLED" if silent else "RUNNING"
        assert [mlflow_client().get_run(run).info.status for run in (parent, trial)] == [expected] * 2


def test_a_sweep_that_another_process_works_on_is_refused_whichever_trial_it_is_at(sweep, images):
    parent = psutil.Process(os.getppid())
    store = Store("e")
    host = writer_process.current().rsplit(":", 2)[0]
    tags = {schema.OWNER: f"{host}:{parent.pid}:{writer_process._start_time(parent)}", schema.KIND: "sweep"}
    run_id = store.client.create_run(store.create(), tags=tags).info.run_id
    store.client.log_dict(run_id, {"trials": [{"key": sweep.trials[-1].key}]}, schema.SWEEP_FILE)
    with pytest.raises(UserError, match=f"process {parent.pid} is training"):
        train(sweep, images)


def test_nothing_new_is_made_when_all_is_finished(sweep, images):
    first = train(sweep, images)
    second = train(sweep, images)
    assert len(runs("sweep")) == 1
    assert [result.metrics["test/accuracy"] for result in first] == [
        result.metrics["test/accuracy"] for result in second
    ]


def test_weights_that_cannot_be_drawn_are_a_result_all_the_same(tmp_path):
    weights = {"w": 0.5 + torch.rand(40, 40) * 1e-6, "out.weight": torch.full((4, 4), 3e38), "count": torch.ones(3, 3)}
    _, layers = sparsity.measure({name: weights[name] for name in ("w", "out.weight")})
    artifacts.write(tmp_path, weights, layers)
    pictures.draw(tmp_path, "title")
    assert set(load_file(tmp_path / "model.safetensors")) == {"w", "out.weight", "count"}
    assert [row["layer"] for row in csv.DictReader((tmp_path / "layers.csv").open())] == ["w", "out.weight"]
    weights["w"] = torch.full((3, 3), torch.nan)
    artifacts.write(tmp_path, weights, layers)
    pictures.draw(tmp_path, "title")


def test_nothing_is_made_before_it_is_needed(sweep, elsewhere):
    (elsewhere / "mlflow.db").unlink()
    store = Store("e")
    assert finished.of_recipes(store, sweep.recipes) == {}
    assert list(elsewhere.iterdir()) == []


def test_a_deleted_experiment_is_named(elsewhere):
    client = mlflow_client()
    client.delete_experiment(client.create_experiment("gone"))
    with pytest.raises(UserError, match=r"experiment='gone' is deleted .* restore"):
        Store("gone")
