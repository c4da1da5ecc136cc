"""The engine against the notebook's plain loop: the same weights and batch order give the same training."""

import dataclasses
import re

import numpy as np
import pytest
import torch

from benchmarks import notebook, notebook_loop
from benchmarks.notebook import EXPERIMENTS, experiment
from regbench import data
from regbench.engine import sequential
from regbench.engine.events import Epoch, Trained
from regbench.engine.resident import Resident

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    return data.load("digits", tmp_path_factory.mktemp("none"))


@pytest.mark.parametrize("name", EXPERIMENTS)
@pytest.mark.parametrize(("precision", "steps", "tolerance"), [("float32", 10, 1e-4), ("float64", 40, 1e-10)])
def test_every_parameter_agrees(name, precision, steps, tolerance, digits, monkeypatch):
    """Norm of the difference over norm; losses and accuracies too.

    In float32 rounding alone, as by another number of threads, makes a difference of 1e-2 after 200 steps on this data.
    That it is the same function is seen in float64.
    """
    per_epoch = -(-len(digits.train_labels) // EXPERIMENTS[name][2])
    epochs = -(-steps // per_epoch)
    trial = experiment(name, digits, len(digits.train_labels), epochs, seed=3)
    trial = dataclasses.replace(trial, recipe=dataclasses.replace(trial.recipe, precision=precision))
    model = notebook_loop.network(10, seed=3).to(getattr(torch, precision))
    torch.set_default_dtype(getattr(torch, precision))  # what ToTensor makes
    try:
        plain = list(notebook_loop.train(model, trial, digits, CPU, max_steps=steps))
    finally:
        torch.set_default_dtype(torch.float32)

    # the engine knows no half epochs: its last one gets only the batches that complete the steps
    last = steps - (epochs - 1) * per_epoch
    whole = sequential.batches

    def cut(count, batch_size, seed, epoch):
        return whole(count, batch_size, seed, epoch)[: last if epoch == epochs else None]

    monkeypatch.setattr(sequential, "batches", cut)
    events = list(sequential.train([trial], Resident(digits, CPU)))
    ours = [event.metrics for event in events if isinstance(event, Epoch)]
    (trained,) = [event for event in events if isinstance(event, Trained)]

    for parameter, theirs in model.state_dict().items():
        difference = torch.linalg.vector_norm(trained.weights[parameter].double() - theirs.double())
        assert difference <= tolerance * torch.linalg.vector_norm(theirs.double()), parameter
    assert len(ours) == len(plain) == epochs
    for mine, (loss, accuracy, _) in list(zip(ours, plain, strict=True))[:-1]:  # the last epoch was cut
        assert mine["train/objective"] == pytest.approx(loss, rel=1e-5)
        assert mine["train/accuracy"] == pytest.approx(accuracy, abs=1e-3)


def test_the_plain_loop_is_not_the_engine_in_disguise(digits):
    """The comparison above can fail: another seed, and another lam, give other weights."""
    trial = experiment("l1", digits, 200, 1, seed=0)
    first, second = notebook_loop.network(10, seed=0), notebook_loop.network(10, seed=1)
    for model in (first, second):
        list(notebook_loop.train(model, trial, digits, CPU))
    assert not torch.allclose(first.l3.weight, second.l3.weight)


@pytest.mark.usefixtures("database")
def test_the_printed_lines_agree(run_here):
    """Both commands print the same loss and accuracy for each epoch, and the same test accuracy."""

    def printed(main, **options: object) -> str:
        code, text = run_here(main, **options)
        assert code == 0
        return text

    shared = {"dataset": "digits", "train_size": 400, "epochs": 2, "seed": 5}
    engine = printed(notebook.main, **shared)
    for name in EXPERIMENTS:
        loop = printed(notebook_loop.main, name=name, **shared)
        ours = re.findall(rf"\) {name} .*loss ([\d.]+), accuracy ([\d.]+)", engine)
        theirs = re.findall(r"epoch .*: loss ([\d.]+), accuracy ([\d.]+)", loop)
        assert len(theirs) == 2
        np.testing.assert_allclose(np.array(ours, float), np.array(theirs, float), atol=1.01e-4)
        ours_test = re.search(rf"\) {name} .*test accuracy ([\d.]+)", engine)[1]
        theirs_test = re.search(r"test accuracy ([\d.]+)", loop)[1]
        assert float(ours_test) == pytest.approx(float(theirs_test), abs=0.003)  # one image of 360
