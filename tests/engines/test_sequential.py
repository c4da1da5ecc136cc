import dataclasses
import os

import numpy as np
import pytest
import torch

from regbench.engines import sequential
from regbench.measures import weights as sparsity
from regbench.measures.final import measure
from regbench.measures.logits import classification, collapsed
from regbench.regularizers import cells
from regbench.training import precision, single
from regbench.training.device_data import DeviceData
from regbench.training.events import Epoch, Failed, Started, Trained
from regbench.training.optimizer import Optimizer
from regbench.training.randomness import batches, initial_model
from regbench.trial import Recipe, Trial, grid
from tests.conftest import TINY

CPU = torch.device("cpu")


@pytest.fixture
def recipe(images) -> Recipe:
    return Recipe(images.name, images.fingerprint, 120, 40, TINY, epochs=3, batch_size=32, lr=0.05)


def run(trials, images):
    return list(sequential.train(trials, DeviceData(images, CPU)))


def results(trials, images) -> dict[str, Trained]:
    return {event.trial.name: event for event in run(trials, images) if isinstance(event, Trained)}


def test_a_trial_tells_its_story_in_order(recipe, images):
    trial = Trial(recipe, "l2", 1e-3, 0)
    events = run([trial], images)
    assert [type(event) for event in events] == [Started, Epoch, Epoch, Epoch, Trained]
    assert [event.epoch for event in events[1:4]] == [1, 2, 3]
    first, last = events[1].metrics, events[3].metrics
    assert set(first) == {
        "train/loss", "train/accuracy", "train/objective", "val/loss", "val/accuracy", "time/epoch",
    }  # fmt: skip
    assert last["train/loss"] < first["train/loss"]
    assert last["train/objective"] > last["train/loss"]
    trained = events[4]
    assert trained.train_logits.shape == (80, 4)
    assert trained.test_logits.shape == (40, 4)


def test_it_learns(recipe, images):
    (trained,) = results([Trial(dataclasses.replace(recipe, epochs=15), "none", 0.0, 0)], images).values()
    assert classification(trained.test_logits, trained.test_labels)["accuracy"] > 0.9


def test_no_validation_part_no_validation_metrics(recipe, images):
    events = run([Trial(dataclasses.replace(recipe, val_size=0), "none", 0.0, 0)], images)
    assert not any(name.startswith("val/") for name in events[1].metrics)
    assert events[-1].train_logits.shape == (120, 4)


@pytest.mark.parametrize("model", [TINY, "tests.networks:Noisy"])
def test_the_same_trial_gives_the_same_weights_whatever_ran_before(recipe, images, model):
    recipe = dataclasses.replace(recipe, model=model)
    sweep = grid(recipe, cells(["l1", "l2"], [1e-3]), [0, 1])
    together = results(sweep.trials, images)
    torch.manual_seed(1234)
    torch.rand(7)
    state = torch.get_rng_state()
    for trial in reversed(sweep.trials):
        alone = results([trial], images)[trial.name]
        for name, w in alone.weights.items():
            assert torch.equal(w, together[trial.name].weights[name]), (trial.name, name)
    assert torch.equal(torch.get_rng_state(), state)  # the caller's random numbers are its own


def test_seeds_are_paired_across_regularizers(recipe, images, monkeypatch):
    """The same seed: the same initial weights, batches and split for each regularizer; another seed: others."""
    seen: dict[str, list] = {}
    step = single.Training.step

    def spy(training, pictures, labels):
        first = next(training.model.parameters()).detach().clone()
        seen.setdefault(current.name, []).append((pictures.clone(), first))
        return step(training, pictures, labels)

    monkeypatch.setattr(single.Training, "step", spy)
    for current in grid(recipe, cells(["l1", "l2"], [1e-2]), [0, 1]).trials:
        run([current], images)
    first = seen["none seed=0"]
    for name in ("l1 lam=1e-2 seed=0", "l2 lam=1e-2 seed=0"):
        assert all(torch.equal(a[0], b[0]) for a, b in zip(first, seen[name], strict=True))
        assert torch.equal(first[0][1], seen[name][0][1])
        assert not torch.equal(first[-1][1], seen[name][-1][1])
    assert not torch.equal(first[0][0], seen["none seed=1"][0][0])
    assert not torch.equal(first[0][1], seen["none seed=1"][0][1])


def test_samples_are_counted_not_batches(recipe, images, monkeypatch):
    """80 images in batches of 32: the last has 16 and weighs half of the others."""
    losses = iter([1.0, 2.0, 4.0])

    def constant(training, pictures, labels):
        return torch.tensor(next(losses)), torch.nn.functional.one_hot(labels, 4).float(), torch.tensor(0.0)

    monkeypatch.setattr(single.Training, "step", constant)
    epoch = run([Trial(dataclasses.replace(recipe, epochs=1), "none", 0.0, 0)], images)[1]
    assert epoch.metrics["train/loss"] == pytest.approx((32 * 1 + 32 * 2 + 16 * 4) / 80)
    assert epoch.metrics["train/accuracy"] == 1.0


def test_the_objective_is_the_loss_with_the_penalty_at_each_step(recipe, images):
    """With a learning rate of next to nothing the weights stay, and the penalty is that of the initial weights."""
    trial = Trial(dataclasses.replace(recipe, lr=1e-30, epochs=1), "l1", 0.5, 0)
    measured = run([trial], images)[1].metrics
    weights = sparsity.regularized(initial_model(TINY, 4, 0).state_dict())
    penalty = 0.5 * sum(w.abs().sum().item() for w in weights.values())
    assert measured["train/objective"] - measured["train/loss"] == pytest.approx(penalty, rel=1e-5)


def test_a_trial_that_raises_is_a_result_and_the_next_one_runs(recipe, images):
    bad = Trial(dataclasses.replace(recipe, model="tests.networks:RaisesInTraining"), "none", 0.0, 0)
    events = run([bad, Trial(recipe, "none", 0.0, 0)], images)
    assert isinstance(events[1], Failed)
    assert events[1].reason == "RuntimeError: no training today"
    assert isinstance(events[-1], Trained)


def test_a_diverged_trial_stops_and_says_when(recipe, images):
    trial = Trial(dataclasses.replace(recipe, lr=50.0, epochs=30), "l2", 10.0, 0)
    events = run([trial], images)
    assert events[-1].diverged.startswith("the training loss is nan in epoch")
    assert sum(isinstance(event, Epoch) for event in events) < 30


def test_weights_that_the_last_step_broke_are_diverged_too(recipe, images):
    trial = Trial(dataclasses.replace(recipe, lr=100.0, epochs=1, batch_size=80), "l2", 1e36, 0)
    (trained,) = results([trial], images).values()
    assert not trained.diverged
    assert measure(trained).status == "diverged"


def test_metrics_are_of_what_is_trained_and_not_of_running_statistics(recipe, images):
    trial = Trial(dataclasses.replace(recipe, model="tests.networks:Noisy"), "none", 0.0, 0)
    (trained,) = results([trial], images).values()
    assert "body.4.running_mean" in trained.weights
    assert not [name for name in trained.parameters if "running" in name]


def test_a_huge_penalty_collapses_the_network(recipe, images):
    """Weights of L1 swing around zero by about lr * lam, so that a small lr makes them small enough."""
    trial = Trial(dataclasses.replace(recipe, lr=1e-7, momentum=0.0, epochs=60), "l1", 3e5, 0)
    trained = results([trial], images)[trial.name]
    assert max(w.abs().max() for w in sparsity.regularized(trained.weights).values()) < 0.1
    recipe_to_zero = dataclasses.replace(recipe, lr=0.05, momentum=0.0, epochs=20)
    shrunk = results([Trial(recipe_to_zero, "weight_decay", 19.0, 0)], images)
    assert collapsed(next(iter(shrunk.values())).test_logits)


@pytest.mark.parametrize(("count", "size"), [(80, 32), (64, 32), (5, 100), (1, 1)])
def test_an_epochs_batches_hold_each_image_once(count, size):
    found = batches(count, size, seed=3, epoch=1)
    assert sorted(np.concatenate(found).tolist()) == list(range(count))
    assert all(len(batch) == size for batch in found[:-1])
    assert not any(np.array_equal(a, b) for a, b in zip(found, batches(count, size, 3, 2), strict=True)) or count < 3


@pytest.mark.parametrize(("kind", "products"), [("tf32", "high"), ("float32", "highest")])
def test_the_settings_of_torch_are_put_back(kind, products, monkeypatch):
    """Those of a GPU, which are set without one too; also where a step raises."""
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)

    def state() -> tuple:
        return (
            torch.are_deterministic_algorithms_enabled(),
            torch.is_deterministic_algorithms_warn_only_enabled(),
            torch.get_float32_matmul_precision(),
            torch.backends.cudnn.allow_tf32,
            torch.backends.cudnn.benchmark,
            torch.backends.cudnn.deterministic,
            torch.backends.cudnn.conv.fp32_precision,
            torch.utils.deterministic.fill_uninitialized_memory,
        )

    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    before = state()
    found = []

    def step() -> None:
        with precision.settings(kind, torch.device("cuda")):
            found.extend([state(), os.environ["CUBLAS_WORKSPACE_CONFIG"]])
            raise RuntimeError("a step")

    with pytest.raises(RuntimeError, match="a step"):
        step()
    tf32 = kind == "tf32"
    assert found == [(True, True, products, tf32, False, True, "tf32" if tf32 else "ieee", False), ":4096:8"]
    assert state() == before
    with precision.settings("float64", CPU):
        assert state() == before


def test_gradients_that_share_memory_do_not_get_each_others_penalty(recipe):
    """Of a + b both have one tensor as gradient, and of a sum all elements have one number."""
    trial = Trial(recipe, "l2", 0.5, 0, "all")
    w = [torch.full((1, 2, 3), value) for value in (1.0, 2.0, 3.0)]
    one, many = torch.full((1, 2, 3), 0.25), torch.full((1, 1, 1), 0.25).expand(1, 2, 3)
    optimizer = Optimizer([tensor.clone() for tensor in w], [trial])
    optimizer.step([one, one, many])
    for tensor, moved in zip(w, optimizer.weights, strict=True):
        torch.testing.assert_close(moved, tensor - recipe.lr * (0.25 + 2 * 0.5 * tensor))
