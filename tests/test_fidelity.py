"""The engine against the notebook's plain loop: the same weights and batch order give the same training."""

import dataclasses
import re

import numpy as np
import pytest
import torch

from benchmarks import notebook_loop
from regbench import data
from regbench.api.experiments import EXPERIMENTS, experiment
from regbench.commands import notebook
from regbench.engines import sequential
from regbench.training import single
from regbench.training.device_data import DeviceData
from regbench.training.events import Epoch, Trained

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    digits = data.load("digits", tmp_path_factory.mktemp("none"))
    # each test image is looked at seven times, slowly in float64
    return dataclasses.replace(digits, test_images=digits.test_images[:50], test_labels=digits.test_labels[:50])


def plain_loop(model, trial, digits, **options) -> list:
    """Train a model by the notebook's loop, in its own precision; return what it tells of each epoch."""
    torch.set_default_dtype(getattr(torch, trial.recipe.precision))  # what ToTensor makes
    try:
        return list(notebook_loop.train(model, trial, digits, CPU, **options))
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("name", EXPERIMENTS)
@pytest.mark.parametrize(("precision", "steps", "tolerance"), [("float32", 10, 1e-4), ("float64", 11, 1e-10)])
def test_every_parameter_agrees(name, precision, steps, tolerance, digits, monkeypatch):
    """Norm of the difference over norm; losses and accuracies too.

    In float32 rounding alone, as by another number of threads, makes a difference of 1e-2 after 200 steps on this data.
    That it is the same function is seen in float64.
    """
    train_size = 310  # a last batch that is smaller, in each of several epochs
    per_epoch = -(-train_size // EXPERIMENTS[name][2])
    epochs = -(-steps // per_epoch)
    trial = experiment(name, digits, train_size, epochs, seed=3)
    trial = dataclasses.replace(trial, recipe=dataclasses.replace(trial.recipe, precision=precision))
    model = notebook_loop.network(10, seed=3).to(getattr(torch, precision))
    plain = plain_loop(model, trial, digits, max_steps=steps)

    # the engine knows no half epochs: its last one gets only the batches that complete the steps
    last = steps - (epochs - 1) * per_epoch
    whole = single.batches

    def cut(count, batch_size, seed, epoch):
        return whole(count, batch_size, seed, epoch)[: last if epoch == epochs else None]

    monkeypatch.setattr(single, "batches", cut)
    events = list(sequential.train([trial], DeviceData(digits, CPU)))
    ours = [event.metrics for event in events if isinstance(event, Epoch)]
    (trained,) = [event for event in events if isinstance(event, Trained)]

    for parameter, theirs in model.state_dict().items():
        difference = torch.linalg.vector_norm(trained.weights[parameter].double() - theirs.double())
        assert difference <= tolerance * torch.linalg.vector_norm(theirs.double()), parameter
    assert len(ours) == len(plain) == epochs
    for mine, (loss, accuracy, _) in list(zip(ours, plain, strict=True))[:-1]:  # the last epoch was cut
        assert mine["train/objective"] == pytest.approx(loss, rel=1e-5)
        assert mine["train/accuracy"] == pytest.approx(accuracy, abs=1e-3)


@pytest.mark.parametrize(
    ("change", "same"), [({}, True), ({"lam": 2e-4}, False), ({"seed": 1}, False), ({"regularizer": "l2"}, False)]
)
def test_the_comparison_can_fail(change, same, digits):
    """Where the engine gets another lam, seed or regularizer than the plain loop, its weights are others."""
    trial = experiment("l1", digits, 200, 1, seed=0)
    trial = dataclasses.replace(trial, recipe=dataclasses.replace(trial.recipe, precision="float64"))
    model = notebook_loop.network(10, seed=0).double()
    plain_loop(model, trial, digits)
    events = sequential.train([dataclasses.replace(trial, **change)], DeviceData(digits, CPU))
    (trained,) = [event for event in events if isinstance(event, Trained)]
    differences = [
        (torch.linalg.vector_norm(trained.weights[name] - w) / torch.linalg.vector_norm(w)).item()
        for name, w in model.state_dict().items()
    ]
    assert max(differences) < 1e-10 if same else max(differences) > 1e-6


@pytest.mark.usefixtures("database")
def test_the_printed_lines_agree(run_here):
    """Both commands print the same loss and accuracy for each epoch, and the same test accuracy.

    The engine's has the four accuracies side by side at the end.
    """

    def printed(main, **options: object) -> str:
        code, text = run_here(main, **options)
        assert code == 0
        return text

    shared = {"dataset": "digits", "train_size": 120, "epochs": 2, "seed": 5}
    engine = printed(notebook.main, **shared, verbose="true")
    *_, names, accuracies = engine.strip().splitlines()
    assert names.split() == list(EXPERIMENTS) == ["none", "l1", "l2", "weight_decay"]
    for name in EXPERIMENTS:
        loop = printed(notebook_loop.main, name=name, **shared)
        ours = re.findall(rf"\) {name} .*loss ([\d.]+), accuracy ([\d.]+)", engine)
        theirs = re.findall(r"epoch .*: loss ([\d.]+), accuracy ([\d.]+)", loop)
        assert len(theirs) == 2
        np.testing.assert_allclose(np.array(ours, float), np.array(theirs, float), atol=1.01e-4)
        ours_test = re.search(rf"\) {name} .*test accuracy ([\d.]+)", engine)[1]
        theirs_test = re.search(r"test accuracy ([\d.]+)", loop)[1]
        assert float(ours_test) == pytest.approx(float(theirs_test), abs=0.003)  # one image of 360
        assert f"{float(ours_test):.2%}" in accuracies.split()


def test_the_loop_drops_inputs_of_dense_layers_in_training_only():
    model, images = notebook_loop.network(10, 0), torch.rand(4, 3, 32, 32)
    plain = model.eval()(images)
    notebook_loop.drop_inputs(model, 0.5)
    assert torch.equal(model(images), plain)
    assert not torch.equal(model.train()(images), plain)
