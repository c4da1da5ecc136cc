"""The best networks of a sweep as MLflow's logged models, against a real MLflow on SQLite."""

import io
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import mlflow
import pytest
import torch
from mlflow import MlflowClient
from mlflow.models import Model
from rich.console import Console
from safetensors.torch import load_file

import regbench
from regbench import models, networks
from regbench import plan as planning
from regbench.engines import select
from regbench.regularizers import cells
from regbench.report.figures import describe_missing
from regbench.report.inputs import gather
from regbench.results import Result
from regbench.run import run_plan
from regbench.tracking import logged_models, schema
from regbench.tracking.store import Store
from regbench.trial import Recipe, Trial, grid
from tests.conftest import PROJECT, TINY, striped

pytestmark = [pytest.mark.usefixtures("database"), pytest.mark.models]


@pytest.fixture
def recipe(images):
    return Recipe(images.name, images.fingerprint, 120, 40, TINY, epochs=2, batch_size=40)


@pytest.fixture
def sweep(recipe):
    return grid(recipe, cells(["l1"], [1e-3, 0.5]), [0, 1])


@pytest.fixture
def loading(monkeypatch):
    """As in a notebook of somebody who does not trust the store."""
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", Store("e").uri)


def train(sweep, images, rerun=False, weights="all") -> str:
    """Run a sweep as a command does; return what it printed."""
    console, store = Console(file=io.StringIO(), width=300), Store("e")
    plan = planning.make(sweep, store, rerun)
    run_plan(plan, images, store, select.sequential("cpu"), console, "a sweep", weights=weights)
    return console.file.getvalue()


def logged() -> dict:
    store = Store("e")
    found = store.client.search_logged_models([store.experiment_id])
    assert len({model.name for model in found}) == len(found)
    return {model.name: model for model in found}


def runs(condition: str) -> dict:
    return {run.info.run_id: run for run in Store("e").search(condition)}


def pixels(images) -> torch.Tensor:
    return torch.from_numpy(images.test_images).float() / 255


def test_the_best_network_of_each_chosen_cell_is_logged_with_all_that_belongs_to_it(sweep, images, loading):
    told = train(sweep, images)
    found, trials = logged(), runs(schema.where(schema.KIND, "trial"))
    (parent,) = runs(schema.where(schema.KIND, "sweep")).values()
    assert set(found) == {"none", "l1 lam=1e-3"}
    for name, model in found.items():
        same = [run for run in trials.values() if run.info.run_name.startswith(f"{name} ")]
        best = max(same, key=lambda run: (run.data.metrics["val/accuracy"], -int(run.data.params["seed"])))
        assert (model.source_run_id, str(model.status)) == (best.info.run_id, "READY")
        assert {one.key: one.value for one in model.metrics} == best.data.metrics
        (data,) = best.inputs.dataset_inputs
        assert {(one.dataset_name, one.dataset_digest) for one in model.metrics} == {
            (data.dataset.name, data.dataset.digest)
        }
        assert model.params == best.data.params
        assert [one.model_id for one in best.outputs.model_outputs] == [model.model_id]
        # no point of the run's own is there twice
        client = Store("e").client
        assert len(client.get_metric_history(best.info.run_id, "val/accuracy")) == 2
        info = Model.load(f"models:/{model.model_id}")
        assert info.metadata["classes"] == list(images.classes)
        assert "divided by 255" in info.metadata["input"]
        assert info.model_id == model.model_id and info.run_id == best.info.run_id
        assert info.signature.inputs.inputs[0].shape == (-1, 3, 32, 32)
        assert info.signature.outputs.inputs[0].shape == (-1, 4)
        assert f'load_model("models:/{model.model_id}")' in model.tags[schema.NOTE]
        assert f"models:/{model.model_id}  {best.info.run_name}" in told
        assert f'load_model("models:/{model.model_id}")  # {best.info.run_name}' in parent.data.tags[schema.NOTE]
        network = networks.build(TINY, 4)
        weights = client.download_artifacts(best.info.run_id, "weights/model.safetensors")
        network.load_state_dict(load_file(weights))
        loaded = mlflow.pytorch.load_model(f"models:/{model.model_id}")
        for size in (1, 2, 40):
            batch = pixels(images)[:size]
            with torch.no_grad():
                assert torch.equal(loaded(batch), network.eval()(batch)), size
        predicted = mlflow.pyfunc.load_model(f"models:/{model.model_id}").predict(pixels(images).numpy())
        labels = torch.from_numpy(images.test_labels)
        assert (torch.from_numpy(predicted).argmax(1) == labels).double().mean() == best.data.metrics["test/accuracy"]
    assert {one.model_id for one in parent.outputs.model_outputs} == {model.model_id for model in found.values()}


@pytest.mark.parametrize("step", ["log_model_artifacts", "log_outputs"])
def test_cut_off_in_between_the_same_command_completes_it_and_makes_no_second(sweep, images, monkeypatch, step):
    do, count = getattr(MlflowClient, step), iter(range(100))

    def interrupted(self, *args, **kwargs):
        if next(count) == 1:
            raise KeyboardInterrupt
        return do(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, step, interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(sweep, images)
    begun = {model.model_id for model in logged().values()}
    assert begun
    train(sweep, images)
    found = logged()
    assert len(found) == 2 and {str(model.status) for model in found.values()} == {"READY"}
    assert begun <= {model.model_id for model in found.values()}
    (parent,) = runs(schema.where(schema.KIND, "sweep")).values()
    assert len(parent.outputs.model_outputs) == 2
    assert all(model.model_id in parent.data.tags[schema.NOTE] for model in found.values())


def test_a_larger_sweep_takes_the_models_that_are_there(sweep, recipe, images):
    train(sweep, images)
    before = logged()
    larger = grid(recipe, cells(["l1", "l2"], [1e-3]), [0, 1])
    train(larger, images)
    after = logged()
    assert set(after) == {"none", "l1 lam=1e-3", "l2 lam=1e-3"}
    assert after["none"].model_id == before["none"].model_id
    assert {f"{schema.SWEEP}.{one.id}" for one in (sweep, larger)} <= set(after["none"].tags)


def test_what_is_trained_again_gets_a_new_model(recipe, images):
    alone = grid(recipe, cells(["none"], None), [0])
    train(alone, images)
    (before,) = logged().values()
    train(alone, images, rerun=True)
    store = Store("e")
    after = {model.model_id: model.source_run_id for model in store.client.search_logged_models([store.experiment_id])}
    assert len(set(after.values())) == len(after) == 2 and before.model_id in after


def test_a_network_that_cannot_be_exported_is_told_and_the_sweep_is_complete(recipe, images):
    odd = grid(replace(recipe, model="tests.networks:Branches"), cells(["none"], None), [0])
    told = train(odd, images)
    assert "none seed=0 is not logged as a model: torch.export cannot export it (" in told
    assert not logged()
    assert [run.info.status for run in runs(schema.where(schema.KIND, "sweep")).values()] == ["FINISHED"]


def test_a_server_without_logged_models_is_told(sweep, images, monkeypatch):
    def unknown(*_, **__):
        raise mlflow.exceptions.RestException({"error_code": "ENDPOINT_NOT_FOUND", "message": "no such endpoint"})

    monkeypatch.setattr(MlflowClient, "search_logged_models", unknown)
    told = train(sweep, images)
    assert "the trained networks are not all logged as models: ENDPOINT_NOT_FOUND: no such endpoint" in told


def test_warnings_are_told_as_before():
    """Importing mlflow.pytorch alone would end that."""
    code = (
        "import logging; from regbench.tracking import logged_models as l; l._flavor(); logging.warning('still here')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, timeout=120, check=True
    )
    assert "still here" in done.stderr


def test_the_notebooks_network_gives_the_same_bits(tmp_path, loading):
    images = striped(train=40, test=300, classes=10)
    network = networks.build("notebook", 10).eval()
    logged_models.export(network, pixels(images)[:2], {}, tmp_path / "model")
    loaded = mlflow.pytorch.load_model(str(tmp_path / "model"))
    for size in (1, 7, 100, 300):
        batch = pixels(images)[:size]
        with torch.no_grad():
            assert torch.equal(loaded(batch), network(batch)), size


def test_the_best_on_validation_comes_first_and_of_equals_the_lowest_seed(recipe):
    sweep = grid(recipe, cells(["l1"], [1e-3, 1e-4]), [0, 1, 2])
    accuracies = {("none", 0): 0.5, ("none", 1): 0.7, ("none", 2): 0.7, ("l1", 0): 0.6, ("l1", 1): 0.9, ("l1", 2): 0.8}

    def result(trial: Trial) -> Result:
        status = "diverged" if trial.cell == "l1 lam=1e-4" and trial.seed == 1 else "ok"
        accuracy = accuracies[trial.regularizer, trial.seed] - (trial.lam == 1e-3) / 10
        return Result(trial, status, {"val/accuracy": accuracy})

    results = {trial.key: result(trial) for trial in sweep.trials}

    def seeds(lams) -> dict:
        return {
            cell: [trial.seed for trial in trials] for cell, trials in models.candidates(sweep, lams, results).items()
        }

    assert seeds({"l1": 1e-4}) == {"none": [1, 2, 0], "l1 lam=1e-4": [2, 0]}
    # a lam with a trial that diverged takes no part in the grid's own choice
    assert seeds({}) == {"none": [1, 2, 0], "l1 lam=1e-3": [1, 2, 0]}


def test_a_name_has_only_letters_that_mlflow_takes(images, recipe):
    store = Store("e")
    trial = Trial(recipe, "tests.plugins:Log", 0.1, 0, "conv*,l1.weight")
    sweep = grid(recipe, cells(["none"], None), [0])
    run_id = store.client.create_run(store.create()).info.run_id
    model = logged_models._create(store.client, store.experiment_id, sweep, trial, run_id)
    assert model.name == "tests_plugins_Log lam=0_1 scope=conv*,l1_weight"


def files(run) -> set[str]:
    return {Path(file.path).name for file in Store("e").client.list_artifacts(run.info.run_id, schema.WEIGHTS)}


@pytest.mark.parametrize("weights", ["chosen", "none"])
def test_weights_are_kept_of_those_that_were_asked_for(recipe, images, weights):
    sweep = grid(recipe, cells(["l1"], [1e-3, 0.5]), [0], confirm=(5, 6), looks=(2,))
    told = train(sweep, images, weights=weights)
    trials = list(runs(schema.where(schema.KIND, "trial")).values())
    assert len(trials) == 3 + 4
    for run in trials:
        kept = weights == "chosen" and int(run.data.params["seed"]) in sweep.confirm
        expected = {"epochs.csv", "layers.csv", "histograms.csv", "histograms.png", "output.safetensors", "out.png"}
        assert files(run) == expected | ({"model.safetensors"} if kept else set())
        assert run.data.tags.get(schema.KEPT) == (None if kept else schema.LEFT_OUT)
    assert set(logged()) == (set() if weights == "none" else {"none", "l1 lam=1e-3"})
    if weights == "none":
        assert "not logged as models, since their weights were not kept: none, l1 lam=1e-3" in told
    (parent,) = runs(schema.where(schema.KIND, "sweep")).values()
    assert parent.data.tags[schema.KEPT] == weights
    (material,) = gather(Store("e"))
    # a report needs none of them
    assert set(material.outputs) == {"none", "l1"} and len(material.histograms)
    assert describe_missing(material) == ""
    # what is finished without weights is finished
    assert planning.make(sweep, Store("e"), rerun=False).todo == ()


def test_a_grid_alone_has_chosen_at_its_end_and_keeps_all(sweep, images):
    context = schema.SweepContext(sweep, images, "cpu", "sequential", "chosen")
    assert all(map(context.keeps_weights, sweep.trials))


def test_where_nothing_is_held_out_a_grid_alone_has_no_choice(recipe, images):
    told = train(grid(replace(recipe, val_size=0), cells(["l1"], [1e-3, 0.5]), [0]), images)
    assert set(logged()) == {"none"} and "not logged" not in told


def test_a_network_that_changes_for_evaluation_is_the_one_that_was_trained(recipe, images, loading):
    train(grid(replace(recipe, model="tests.networks:Merges"), cells(["none"], None), [0]), images)
    (model,) = logged().values()
    network, batch = regbench.load(model.source_run_id), pixels(images)[:5]
    with torch.no_grad():
        expected = network(batch)
        torch.testing.assert_close(mlflow.pytorch.load_model(f"models:/{model.model_id}")(batch), expected)
