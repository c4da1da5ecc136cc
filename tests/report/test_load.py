"""Runs read back from a real MLflow, and the report command on them."""

import dataclasses
import re

import numpy as np
import pandas as pd
import pytest
from rich.console import Console
from safetensors.numpy import load_file

from regbench import plan as planning
from regbench.commands import report
from regbench.engines import select
from regbench.errors import UserError
from regbench.regularizers import cells
from regbench.report import build, load, output
from regbench.report.inputs import gather
from regbench.report.recipes import differing
from regbench.report.render import render
from regbench.run import run_plan
from regbench.tracking import schema, writer_process
from regbench.tracking.store import Store
from regbench.trial import NEUTRAL, Recipe, grid
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
    (runs,) = load.load(store)
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
    outputs = gather(store)[0].outputs
    assert set(outputs) == {"none", "l1", "l2"}
    for method, (name, w) in outputs.items():
        own = runs.trials[(runs.trials["method"] == method) & (runs.trials["seed"] == 0)].iloc[0]
        kept = load_file(load.artifact(store, own["artifacts"], "weights/model.safetensors", []))
        np.testing.assert_allclose(w, kept[name], rtol=1e-3, atol=1e-7)


def test_fresh_seeds_are_read_back(recipe, images, tmp_path):
    """Also where an earlier sweep has its grid on some of them: what is of a grid anywhere is of the grid."""
    train(grid(recipe, cells(["l1"], [1e-3]), [2]), images)
    sweep = grid(recipe, cells(["l1"], [1e-3, 1e30]), [0, 1], confirm=range(2, 8), looks=(6,))
    store = train(sweep, images)
    (runs,) = load.load(store, sweep=sweep.id)
    assert (runs.confirm, runs.looks, runs.choice) == (tuple(range(2, 8)), (6,), {"l1": 1e-3})
    assert runs.chosen_on == {"l1": {0, 1}}
    stages = {(t.lam, t.seed): t.stage for t in runs.trials.itertuples() if t.method == "l1"}
    grid_cells = {(lam, seed): "grid" for lam in (1e-3, 1e30) for seed in (0, 1)}
    assert stages == grid_cells | {(1e-3, seed): "confirm" for seed in range(2, 8)}
    (every,) = load.load(store)
    assert set(every.trials.loc[every.trials["stage"] == "grid", "seed"]) == {0, 1, 2}
    (material,) = gather(store, sweep=sweep.id)
    assert material.analysis.comparisons["l1"].looked == 6
    assert material.analysis.shown["l1"] == tuple(range(2, 8))
    assert set(material.layers["seed"]) == set(range(2, 8))
    build.write([material], tmp_path / "out")


def sweep_run(store, **tags: str) -> str:
    tags = {schema.KIND: "sweep", schema.SWEEP: "s"} | {getattr(schema, name): value for name, value in tags.items()}
    return store.client.create_run(store.experiment_id, tags=tags).info.run_id


def trial_run(store, sweep: str, stage: str, status: str = "FINISHED", recipe: str = "r", **params: object) -> None:
    key = f"{recipe}{params}"
    tags = {schema.KIND: "trial", schema.KEY: key, schema.RECIPE: recipe} | schema.membership(sweep, stage)
    run_id = store.client.create_run(store.experiment_id, tags=tags).info.run_id
    for name, value in params.items():
        store.client.log_param(run_id, name, value)
    store.client.log_metric(run_id, "test/accuracy", 0.5)
    store.client.set_terminated(run_id, status)


@pytest.fixture
def store(database) -> Store:
    found = Store("e")
    found.create()
    return found


def test_of_a_sweep_that_was_started_twice_and_grew_the_newest_choice_and_looks_count(store):
    sweep_run(store, CONFIRM="2-5", LOOKS="4", CHOICE='{"l1": 0.1, "l2": 0.5}')
    sweep_run(store, SWEEP="t", CONFIRM="2-7, 9", LOOKS="3,7", CHOICE='{"l1": 0.2}')
    sweep_run(store, SWEEP="another", CONFIRM="90-99", LOOKS="10", CHOICE='{"l1": 0.3}')  # without a trial looked at
    trial_run(store, "s", "grid", regularizer="l1", lam=0.1, seed=0)
    trial_run(store, "t", "confirm", regularizer="l1", lam=0.1, seed=2)
    (runs,) = load.load(store)
    assert (runs.confirm, runs.looks, runs.choice) == ((2, 3, 4, 5, 6, 7, 9), (3, 7), {"l1": 0.2, "l2": 0.5})
    assert load.load(store, sweep="s")[0].confirm == (2, 3, 4, 5)


def test_a_sweep_of_several_recipes_has_chosen_for_each(store):
    """An earlier sweep of one of them too; of a third none is chosen yet."""
    sweep_run(store, CONFIRM="2-5", LOOKS="4", CHOICE='{"l1": 0.1, "l2": 0.5}')
    sweep_run(store, SWEEP="t", CONFIRM="4-9", LOOKS="6", CHOICE='{"a": {"l1": 0.2}, "b": {"l1": 0.3}}')
    for recipe in "abc":
        trial_run(store, "t", "grid", recipe=recipe, regularizer="l1", lam=0.1, seed=1)
        trial_run(store, "t", "confirm", recipe=recipe, regularizer="l1", lam=0.1, seed=4)
    trial_run(store, "s", "grid", recipe="a", regularizer="l1", lam=0.1, seed=0)
    found = load.load(store)
    assert [runs.recipe_id for runs in found] == ["a", "b", "c"]
    assert [runs.choice for runs in found] == [{"l1": 0.2, "l2": 0.5}, {"l1": 0.3}, {}]
    assert [runs.chosen_on for runs in found] == [{"l1": {1}, "l2": {0}}, {"l1": {1}}, {}]
    assert [(runs.confirm, runs.looks) for runs in found] == [
        (tuple(range(2, 10)), (8,)),  # each was judged once, after all of its own
        *[(tuple(range(4, 10)), (6,))] * 2,
    ]


def test_what_failed_is_listed_with_its_own_recipe_and_a_recipe_that_finished_nothing_is_counted(store):
    trial_run(store, "s", "grid", recipe="a", regularizer="l1", lam=0.1, seed=0)
    trial_run(store, "s", "grid", "FAILED", recipe="a", regularizer="l1", lam=0.1, seed=1)
    trial_run(store, "s", "grid", "KILLED", recipe="b", regularizer="l1", lam=0.1, seed=0)
    (runs,) = load.load(store)
    assert (runs.recipe_id, runs.others["seed"].tolist(), runs.unreported) == ("a", [1], 1)
    assert "* 1 run of other recipes, of which no trial has finished, is not looked at." in render(gather(store)[0], [])
    (alone,) = load.load(store, recipe="b")
    assert (len(alone.trials), alone.others["status"].tolist(), alone.unreported) == (0, ["KILLED"], 0)


def test_others_tell_how_they_ended_and_of_what_they_are(store):
    trial_run(store, "s", "grid", regularizer="l1", lam=0.1, seed=0)
    trial_run(store, "s", "confirm", "FAILED", regularizer="l1", lam=0.1, seed=3, scope="all")
    others = load.load(store)[0].others
    assert others[["method", "lam", "seed", "status"]].to_numpy().tolist() == [["l1 scope=all", 0.1, 3, "FAILED"]]


@pytest.mark.parametrize("tags", [
    {"CONFIRM": "a", "LOOKS": "1"}, {"CONFIRM": "1-5"}, {"CONFIRM": "1-5", "LOOKS": "1,"}, {"CHOICE": "[1]"},
    {"CHOICE": "{"},
])  # fmt: skip
def test_tags_that_regbench_has_not_written_are_refused(store, tags):
    run_id = sweep_run(store, **tags)
    trial_run(store, "s", "grid", regularizer="l1", lam=0.1, seed=0)
    with pytest.raises(UserError, match=f"of run {run_id} are not as regbench has written them"):
        load.load(store)


def test_foreign_running_and_replaced_runs_are_not_pooled(recipe, images):
    sweep = grid(recipe, cells(["l1"], [1e-3]), [0])
    train(sweep, images)
    store = train(sweep, images, rerun=True)
    store.client.create_run(store.experiment_id, run_name="a stranger's")
    tags = {schema.KIND: "trial", schema.KEY: "k", schema.RECIPE: recipe.id, schema.OWNER: writer_process.current()}
    store.client.create_run(store.experiment_id, tags=tags, run_name="still running")
    (runs,) = load.load(store)
    assert len(runs.trials) == 2
    assert runs.foreign == 1
    assert runs.others[["name", "status"]].to_numpy().tolist() == [["still running", "RUNNING"]]


def test_of_trials_that_were_trained_again_with_other_code_the_newest_count(recipe, images, monkeypatch, tmp_path):
    sweep = grid(recipe, cells(["l1"], [1e-3]), [0, 1])
    train(sweep, images)
    monkeypatch.setattr("regbench.identity.RESULT_VERSION", 0)
    store = train(grid(recipe, cells(["l1"], [1e-3]), [0, 1]), images)
    assert len(store.search(f"tags.`{schema.KIND}` = 'trial'")) == 8
    (runs,) = load.load(store)
    assert (len(runs.trials), runs.outdated) == (4, 4)
    newest = [run.info.run_id for run in store.search(f"tags.`{schema.KIND}` = 'trial'")][4:]
    assert runs.trials["run_id"].tolist() == newest
    build.write(gather(store), tmp_path / "out")
    assert "4 trials were trained again after regbench" in (tmp_path / "out" / "report.md").read_text()


def test_recipes_are_apart_and_one_can_be_chosen(recipe, images):
    other = dataclasses.replace(recipe, epochs=1, lr=0.02)
    train(grid(recipe, cells(["l1"], [1e-3]), [0]), images)
    store = train(grid(other, cells(["l1"], [1e-3]), [0, 1]), images)
    found = load.load(store)
    assert [(runs.recipe_id, runs.recipe["lr"], len(runs.trials)) for runs in found] == [
        (recipe.id, "0.01", 2), (other.id, "0.02", 4)
    ]  # fmt: skip
    assert len({*found[0].sweeps, *found[1].sweeps}) == 2
    (chosen,) = load.load(store, recipe=other.id)
    assert (chosen.recipe["epochs"], len(chosen.trials)) == ("1", 4)
    with pytest.raises(UserError, match="recipe='nope' is that of no trial"):
        load.load(store, recipe="nope")


def test_trials_of_earlier_versions_are_pooled_with_those_of_the_same_recipe(recipe, images, monkeypatch):
    """They lack the parameters of newer options, which had no effect on them."""
    recipe, now = dataclasses.replace(recipe, **NEUTRAL), schema.trial_params
    with monkeypatch.context() as patch:
        patch.setattr(schema, "trial_params", lambda trial: {k: v for k, v in now(trial).items() if k not in NEUTRAL})
        store = train(grid(recipe, cells(["l1"], [1e-3]), [0]), images)
        assert not any("schedule" in run.data.params for run in store.search(""))
    store = train(grid(recipe, cells(["l1"], [1e-3]), [0, 1]), images)
    (runs,) = load.load(store)
    assert (len(runs.trials), runs.outdated, len(store.search(f"tags.`{schema.KIND}` = 'trial'"))) == (4, 0, 4)
    assert runs.recipe.items() >= {"schedule": "constant", "warmup": "0", "average": "none"}.items()
    train(grid(dataclasses.replace(recipe, schedule="cosine"), cells(["l1"], [1e-3]), [0]), images)
    assert differing([runs.recipe for runs in load.load(store)]) == {"schedule": ("constant", "cosine")}


def test_a_sweep_and_a_filter_select(recipe, images):
    small, large = grid(recipe, cells(["l1"], [1e-3]), [0]), grid(recipe, cells(["l1", "l2"], [1e-3]), [0])
    train(small, images)
    store = train(large, images)
    assert len(load.load(store, sweep=small.id)[0].trials) == 2
    assert len(load.load(store, sweep=large.id)[0].trials) == 3
    assert set(load.load(store, condition="params.regularizer != 'l1'")[0].trials["method"]) == {"none", "l2"}


def test_scopes_are_separate_methods(recipe, images):
    train(grid(recipe, cells(["l1"], [1e-3]), [0]), images)
    store = train(grid(recipe, cells(["l1"], [1e-3]), [0], scope="all"), images)
    assert set(load.load(store)[0].trials["method"]) == {"none", "l1", "l1 scope=all"}


def test_curves_are_exactly_mlflows_with_and_without_epochs_csv(recipe, images, tmp_path, monkeypatch):
    """Also of a trial that diverged; the file is not there for runs of earlier versions, or damaged."""
    store = train(grid(recipe, cells(["l1"], [1e-3, 1e30]), [0]), images)
    trials = load.load(store)[0].trials
    assert "diverged" in set(trials["outcome"])
    with monkeypatch.context() as patch:
        patch.setattr(store, "histories", lambda run_ids, name: [] if not run_ids else pytest.fail("asked"))
        read = load.epochs(store, trials)
    files = list((tmp_path / "here" / "mlruns").rglob("epochs.csv"))
    assert len(files) == 3
    for content in (b"", b"\x80", b"epoch,train/loss\n1,a\n", b"epoch\nnan\n", b"train/loss\n1\n", None):
        for path in files:
            path.write_bytes(content) if content is not None else path.unlink()
        pd.testing.assert_frame_equal(read, load.epochs(store, trials), check_exact=True)
    points = [(row.run_id, row.epoch) for row in read.itertuples()]
    for name in load.CURVES:
        of_run = {(run_id, step): value for run_id, step, value in store.histories(trials["run_id"], name)}
        np.testing.assert_array_equal(read[name], [of_run.get(point, np.nan) for point in points])


def test_histograms_are_those_of_each_cells_first_seed_and_runs_may_lack_them(recipe, images, tmp_path):
    store = train(grid(recipe, cells(["l1"], [1e-3, 1e-2]), [0, 1]), images)
    found = gather(store)[0].histograms
    assert {tuple(key) for key in found[["method", "lam", "seed"]].to_numpy()} == {
        ("none", 0.0, 0), ("l1", 1e-3, 0), ("l1", 1e-2, 0),
    }  # fmt: skip
    sizes = found.groupby(["method", "lam", "layer"])["count"].sum()
    assert set(sizes["l1", 1e-3].index) == {"body.0.weight", "out.weight", ""} and (sizes > 0).all()
    assert sizes["l1", 1e-3][""] == sizes["l1", 1e-3].drop("").sum()
    for content in (b"", b"\x80", b"layer,low,high,count\na,b,c,d\n", b"layer\n1\n", None):
        for path in (tmp_path / "here" / "mlruns").rglob("histograms.csv"):
            path.write_bytes(content) if content is not None else path.unlink()
        (material,) = gather(store)
        assert material.histograms.empty and not material.missing


def test_trials_without_files_are_still_reported(recipe, images, tmp_path):
    store = train(grid(recipe, cells(["l1"], [1e-3]), [0]), images)
    curves = gather(store)[0].epochs
    (tmp_path / "here" / "mlruns").rename(tmp_path / "here" / "moved")
    (material,) = gather(store)
    assert material.outputs == {} and material.histograms.empty
    pd.testing.assert_frame_equal(material.epochs, curves, check_exact=True)
    assert material.layers.empty
    assert build.write([material], tmp_path / "out").exists()


def test_the_command_writes_the_report_and_publishes_that_and_nothing_else(recipe, images, run_here, elsewhere):
    store = train(grid(recipe, cells(["l1"], [1e-3]), [0, 1]), images)
    (elsewhere / "private.txt").write_text("mine")
    (elsewhere / "figures").mkdir()
    (elsewhere / "figures" / "private.png").write_text("mine")
    code, text = run_here(report.main, experiment="e", out=".")
    assert code == 0
    assert "2 fresh seeds are too few for a verdict on `l1`" in text
    assert f"written: {elsewhere / 'report.md'}; also an artifact of run" in text
    assert (elsewhere / "report.md").read_text().startswith("# Regularization on striped\n")
    (parent,) = load.load(store)[0].sweeps
    found = store.client.list_artifacts(parent, "report") + store.client.list_artifacts(parent, "report/figures")
    names = {file.path for file in found if not file.is_dir}
    assert names == {f"report/{name}" for name in output.written(elsewhere)}
    assert {"report/report.md", "report/report.html", "report/cells.csv", "report/figures/forest.png"} <= names


def test_the_command_writes_the_report_in_japanese_and_speaks_english_otherwise(recipe, images, run_here, elsewhere):
    train(grid(recipe, cells(["l1"], [1e-3]), [0, 1]), images)
    code, text = run_here(report.main, experiment="e", out="r", lang="ja")
    assert code == 0
    shown = (elsewhere / "r" / "report.md").read_text(encoding="utf-8")
    assert shown.startswith("# striped での正則化\n")
    assert "`l1` を判定するには新しいシード 2 個では足りない" in shown and shown.split("\n\n")[1] in text
    assert f"written: {elsewhere / 'r' / 'report.md'}; also an artifact of run" in text
    assert "too few seeds" in (elsewhere / "r" / "comparisons.csv").read_text()


def test_the_command_puts_recipes_side_by_side_and_takes_that_away_again(recipe, images, run_here, elsewhere):
    """Two learning rates, as two sweeps: a report on both, one of each below it, all beside the newest sweep's run."""
    train(grid(recipe, cells(["l1"], [1e-3]), [0, 1]), images)
    other = dataclasses.replace(recipe, lr=0.02)
    store = train(grid(other, cells(["l1", "l2"], [1e-3]), [0, 1]), images)
    code, text = run_here(report.main, experiment="e", out="both")
    assert code == 0, text
    assert "The recipes differ in `lr`: `0.01` and `0.02`.\n\n**`lr=0.01`.** Without regularization" in text
    assert "\n\n**`lr=0.02`.** Without regularization" in text
    assert "Each has a whole report" not in text
    folder = elsewhere / "both"
    names = set(output.written(folder))
    assert {"report.md", "recipes.csv", "interactions.csv", "lr=0.01/report.md", "lr=0.02/figures/forest.png"} <= names
    shown = (folder / "report.md").read_text()
    links = re.findall(r"\]\(([^)]*)\)", shown)
    assert {"lr=0.01/report.md", "lr=0.02/report.md", "lr=0.01/figures/forest.png", "lr=0.02/figures/forest.png"} == {
        *links
    }
    parents = [next(iter(runs.sweeps)) for runs in load.load(store)]
    assert f"also an artifact of run {parents[1]}" in text
    root = folder.parent / "mlruns"
    kept = {path.as_posix().partition("/artifacts/report/")[2] for path in root.rglob("*") if path.is_file()} - {""}
    assert kept == names
    single = (folder / "lr=0.02" / "report.md").read_text()
    code, text = run_here(report.main, experiment="e", out="both", recipe=other.id)
    assert code == 0, text
    assert (folder / "report.md").read_text() == single
    assert sorted(path.name for path in folder.iterdir() if path.is_dir()) == ["figures"]
    assert not {"recipes.csv", "interactions.csv"} & {path.name for path in folder.iterdir()}
