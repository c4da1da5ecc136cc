"""Runs read back from a real MLflow, and the report command on them."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from regbench import plan as planning
from regbench.commands import report
from regbench.engines import select
from regbench.errors import UserError
from regbench.regularizers import cells
from regbench.report import build, load, output
from regbench.report.inputs import gather
from regbench.run import run_plan
from regbench.tracking import schema, writer_process
from regbench.tracking.store import Store
from regbench.trial import Recipe, grid
from tests.conftest import TINY

pytestmark = pytest.mark.usefixtures("database")


@pytest.fixture
def recipe(images) -> Recipe:
    return Recipe(images.name, images.fingerprint, 120, 40, TINY, epochs=2, batch_size=40)


def train(sweep, images, rerun=False):
    store = Store("e")
    run_plan(
        planning.make(sweep, store, rerun), images, store, select.sequential("cpu"), Console(quiet=True), "a sweep"
    )
    return store


def test_trials_epochs_and_layers_are_read_back(recipe, images):
    sweep = grid(recipe, cells(["l1", "l2"], [1e-3]), [0, 1])
    store = train(sweep, images)
    runs = load.load(store)
    assert [(t.method, t.lam, t.seed) for t in runs.trials.itertuples()] == [
        (t.regularizer, t.lam, t.seed) for t in sweep.trials
    ]
    assert runs.recipe["epochs"] == "2"
    assert "env.torch" in runs.environment
    epochs = load.epochs(store, runs.trials)
    assert len(epochs) == 12
    assert set(epochs["epoch"]) == {1, 2}
    assert epochs[list(load.CURVES)].notna().all(axis=None)
    assert len(load.layers(store, runs.trials, [])) == 12
    assert set(gather(store).weights) == {"none", "l1", "l2"}


def test_foreign_running_and_replaced_runs_are_not_pooled(recipe, images):
    sweep = grid(recipe, cells(["l1"], [1e-3]), [0])
    train(sweep, images)
    store = train(sweep, images, rerun=True)
    store.client.create_run(store.experiment_id, run_name="a stranger's")
    tags = {schema.KIND: "trial", schema.KEY: "k", schema.OWNER: writer_process.current()}
    store.client.create_run(store.experiment_id, tags=tags, run_name="still running")
    runs = load.load(store)
    assert len(runs.trials) == 2
    assert runs.foreign == 1
    assert runs.others[["name", "status"]].to_numpy().tolist() == [["still running", "RUNNING"]]


def test_of_trials_that_were_trained_again_with_other_code_the_newest_count(recipe, images, monkeypatch, tmp_path):
    sweep = grid(recipe, cells(["l1"], [1e-3]), [0, 1])
    train(sweep, images)
    monkeypatch.setattr("regbench.identity.RESULT_VERSION", 0)
    store = train(grid(recipe, cells(["l1"], [1e-3]), [0, 1]), images)
    assert len(store.search(f"tags.`{schema.KIND}` = 'trial'")) == 8
    runs = load.load(store)
    assert (len(runs.trials), runs.outdated) == (4, 4)
    newest = [run.info.run_id for run in store.search(f"tags.`{schema.KIND}` = 'trial'")][4:]
    assert runs.trials["run_id"].tolist() == newest
    build.write(gather(store), tmp_path / "out")
    assert "4 trials were trained again after regbench" in (tmp_path / "out" / "report.md").read_text()


def test_several_recipes_are_refused_and_one_can_be_chosen(recipe, images):
    other = dataclasses.replace(recipe, epochs=1, lr=0.02)
    train(grid(recipe, cells(["l1"], [1e-3]), [0]), images)
    store = train(grid(other, cells(["l1"], [1e-3]), [0]), images)
    with pytest.raises(UserError, match=r"2 recipes .* differ in epochs: 1, 2; lr: 0\.01, 0\.02; choose one with"):
        load.load(store)
    assert load.load(store, recipe=other.id).recipe["epochs"] == "1"
    with pytest.raises(UserError, match="recipe='nope' is that of no trial"):
        load.load(store, recipe="nope")


def test_a_sweep_and_a_filter_select(recipe, images):
    small, large = grid(recipe, cells(["l1"], [1e-3]), [0]), grid(recipe, cells(["l1", "l2"], [1e-3]), [0])
    train(small, images)
    store = train(large, images)
    assert len(load.load(store, sweep=small.id).trials) == 2
    assert len(load.load(store, sweep=large.id).trials) == 3
    assert set(load.load(store, condition="params.regularizer != 'l1'").trials["method"]) == {"none", "l2"}


def test_scopes_are_separate_methods(recipe, images):
    train(grid(recipe, cells(["l1"], [1e-3]), [0]), images)
    store = train(grid(recipe, cells(["l1"], [1e-3]), [0], scope="all"), images)
    assert set(load.load(store).trials["method"]) == {"none", "l1", "l1 scope=all"}


def test_curves_are_exactly_mlflows_with_and_without_epochs_csv(recipe, images, tmp_path, monkeypatch):
    """Also of a trial that diverged; the file is not there for runs of earlier versions, or damaged."""
    store = train(grid(recipe, cells(["l1"], [1e-3, 1e30]), [0]), images)
    trials = load.load(store).trials
    assert "diverged" in set(trials["outcome"])
    with monkeypatch.context() as patch:
        patch.setattr(store, "histories", lambda run_ids, name: [] if not run_ids else pytest.fail("asked"))
        read = load.epochs(store, trials)
    files = list((tmp_path / "work" / "mlruns").rglob("epochs.csv"))
    assert len(files) == 3
    for content in (b"", b"\x80", b"epoch,train/loss\n1,a\n", b"epoch\nnan\n", b"train/loss\n1\n", None):
        for path in files:
            path.write_bytes(content) if content is not None else path.unlink()
        pd.testing.assert_frame_equal(read, load.epochs(store, trials), check_exact=True)
    points = [(row.run_id, row.epoch) for row in read.itertuples()]
    for name in load.CURVES:
        of_run = {(run_id, step): value for run_id, step, value in store.histories(trials["run_id"], name)}
        np.testing.assert_array_equal(read[name], [of_run.get(point, np.nan) for point in points])


def test_trials_without_files_are_still_reported(recipe, images, tmp_path):
    store = train(grid(recipe, cells(["l1"], [1e-3]), [0]), images)
    curves = gather(store).epochs
    (tmp_path / "work" / "mlruns").rename(tmp_path / "work" / "moved")
    material = gather(store)
    assert material.weights == {}
    pd.testing.assert_frame_equal(material.epochs, curves, check_exact=True)
    assert material.layers.empty
    assert build.write(material, tmp_path / "out").exists()


def test_the_command_writes_the_report_and_publishes_that_and_nothing_else(recipe, images, run_here, elsewhere):
    store = train(grid(recipe, cells(["l1"], [1e-3]), [0, 1]), images)
    (elsewhere / "private.txt").write_text("mine")
    (elsewhere / "figures").mkdir()
    (elsewhere / "figures" / "private.png").write_text("mine")
    code, text = run_here(report.main, experiment="e", out=".")
    assert code == 0
    assert "**Exploratory.**" in text
    assert f"written: {elsewhere / 'report.md'}; also an artifact of run" in text
    assert (elsewhere / "report.md").read_text().startswith("# Regularization on striped\n")
    parent = load.load(store).sweeps[-1]
    found = store.client.list_artifacts(parent, "report") + store.client.list_artifacts(parent, "report/figures")
    names = {file.path for file in found if not file.is_dir}
    assert names == {f"report/{name}" for name in output.written(elsewhere)}
    assert {"report/report.md", "report/cells.csv", "report/figures/forest.png"} <= names
