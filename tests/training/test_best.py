"""What early stopping would have given, on both engines, and that training does not see it."""

import dataclasses
import math

import pytest
import torch

from regbench.data.split import split
from regbench.engines import sequential, stacked
from regbench.measures.final import measure
from regbench.training.device_data import DeviceData
from regbench.training.events import Epoch, Trained
from regbench.training.single import Training, train_epoch
from regbench.trial import Recipe, Trial

CPU = torch.device("cpu")
ENGINES = {
    "sequential": sequential.train,
    "stacked": lambda trials, device_data: stacked.train(trials, device_data, len(trials)),
}


@pytest.fixture
def recipe(images) -> Recipe:
    # so large a rate that validation goes up and down
    return Recipe(
        images.name, images.fingerprint, 120, 40, "tests.networks:Normalized", epochs=6, batch_size=32, lr=0.5,
        precision="float64", schedule="constant",
    )  # fmt: skip


def stopped(trial: Trial, data: DeviceData, epochs: int) -> torch.Tensor:
    """Return the test images' logits of a training that ends after so many epochs."""
    part, _ = map(data.index, split(data.labels, trial.recipe.train_size, trial.recipe.val_size, trial.seed))
    training = Training(trial, data.num_classes, CPU)
    for epoch in range(1, epochs + 1):
        train_epoch(training, epoch, data, part)
    with training.evaluated():
        return training.predict(data.test_images)


@pytest.mark.parametrize("average", ["none", "ema"])
@pytest.mark.parametrize("engine", ENGINES)
def test_it_is_what_a_training_that_stops_there_gives(recipe, images, engine, average):
    data, recipe = DeviceData(images, CPU), dataclasses.replace(recipe, average=average)
    trials = [Trial(recipe, "none", 0.0, 0), Trial(recipe, "l1_prox", 1e-3, 1), Trial(recipe, "imp", 0.8, 2)]
    events = list(ENGINES[engine](trials, data))
    seen = set()
    for trial in trials:
        curve = [e.metrics["val/accuracy"] for e in events if isinstance(e, Epoch) and e.trial == trial]
        (found,) = (e for e in events if isinstance(e, Trained) and e.trial == trial)
        best = 1 + curve.index(max(curve))
        seen.add(best)
        torch.testing.assert_close(found.best_logits, stopped(trial, data, best), rtol=1e-7, atol=1e-8)
        torch.testing.assert_close(found.test_logits, stopped(trial, data, recipe.epochs), rtol=1e-7, atol=1e-8)
        metrics = measure(found).metrics
        assert metrics["early/epoch"] == found.best_epoch == best
        expected = (found.best_logits.argmax(1) == found.test_labels).double().mean().item()
        assert metrics["early/accuracy"] == pytest.approx(expected)
    assert min(seen) < recipe.epochs


@pytest.mark.parametrize("average", ["none", "ema"])
def test_a_network_that_changes_its_weights_for_evaluation_is_kept_as_in_training(recipe, images, average):
    recipe = dataclasses.replace(recipe, model="tests.networks:Merges", average=average)
    data, trial = DeviceData(images, CPU), Trial(recipe, "none", 0.0, 0)
    (found,) = (e for e in sequential.train([trial], data) if isinstance(e, Trained))
    assert found.best_epoch < recipe.epochs
    torch.testing.assert_close(found.best_logits, stopped(trial, data, found.best_epoch), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("engine", ENGINES)
def test_one_that_diverges_has_what_it_was_before(recipe, images, engine):
    """And one that does so at once has nothing; its neighbour goes on."""
    recipe = dataclasses.replace(recipe, precision="float32", warmup=5, lr=1e2, epochs=6, model="tests.networks:Tiny")
    trials = [Trial(recipe, "none", 0.0, 0), Trial(recipe, "weight_decay", 1e30, 0)]
    found = {e.trial: e for e in ENGINES[engine](trials, DeviceData(images, CPU)) if isinstance(e, Trained)}
    late, at_once = (found[trial] for trial in trials)
    assert at_once.diverged and at_once.best_epoch == 0 and at_once.best_logits is None
    assert not any(name.startswith("early/") for name in measure(at_once).metrics)
    if late.diverged:
        assert late.best_epoch and late.best_logits.isfinite().all()
    assert math.isfinite(measure(late).metrics["early/accuracy"])


@pytest.mark.parametrize("engine", ENGINES)
def test_without_a_validation_part_there_is_nothing_to_stop_by(recipe, images, engine):
    trial = Trial(dataclasses.replace(recipe, val_size=0, epochs=2), "none", 0.0, 0)
    (found,) = (e for e in ENGINES[engine]([trial], DeviceData(images, CPU)) if isinstance(e, Trained))
    assert found.best_epoch == 0 and found.best_logits is None
