"""Dropout: the same zeros in every engine, none in evaluation, and none for the neighbours."""

import dataclasses

import pytest
import torch

from regbench.engines import sequential, stacked
from regbench.errors import UserError
from regbench.training import dense, single, stack
from regbench.training.device_data import DeviceData
from regbench.training.events import Trained
from regbench.trial import Recipe, Trial
from tests.conftest import TINY

CPU = torch.device("cpu")


@pytest.fixture
def recipe(images) -> Recipe:
    return Recipe(images.name, images.fingerprint, 120, 40, TINY, epochs=2, batch_size=32, lr=0.05, precision="float64")


def weights(events) -> dict[Trial, dict[str, torch.Tensor]]:
    return {event.trial: event.weights for event in events if isinstance(event, Trained)}


@pytest.mark.parametrize("model", [TINY, "tests.networks:Normalized"])
def test_a_trial_drops_the_same_in_both_engines_and_beside_any_neighbour(recipe, images, model):
    recipe = dataclasses.replace(recipe, model=model)
    trials = [Trial(recipe, name, lam, seed) for name, lam, seed in
              (("none", 0.0, 0), ("dropout", 0.5, 0), ("dropout", 0.2, 1), ("label_smoothing", 0.1, 0))]  # fmt: skip
    device_data = DeviceData(images, CPU)
    alone, together = weights(sequential.train(trials, device_data)), weights(stacked.train(trials, device_data, 4))
    pair = weights(stacked.train(trials[1:3], device_data, 2))
    for trial in trials:
        for name, w in alone[trial].items():
            torch.testing.assert_close(together[trial][name], w, rtol=1e-10, atol=1e-12)
    for trial in trials[1:3]:
        for name, w in pair[trial].items():
            torch.testing.assert_close(together[trial][name], w, rtol=1e-10, atol=1e-12)
    drops = [alone[trial]["out.weight"] for trial in trials[:2]]
    assert (drops[0] - drops[1]).abs().max() > 1e-4


def test_evaluation_uses_every_input(recipe, images):
    training = single.Training(Trial(recipe, "dropout", 0.5, 0), 10, CPU)
    some = torch.from_numpy(images.train_images[:8])
    first, second = training.predict(some), training.predict(some)
    training.model.train()
    training.optimizer.begin_epoch(1)
    dropped = training.logits(some)
    assert torch.equal(first, second)
    assert not torch.allclose(first, dropped)


def test_a_seed_and_an_epoch_decide_what_is_dropped(recipe, images):
    some = torch.from_numpy(images.train_images[:8])

    def dropped(seed: int, epoch: int) -> torch.Tensor:
        training = single.Training(Trial(recipe, "dropout", 0.5, seed), 10, CPU)
        training.model.load_state_dict(single.Training(Trial(recipe, "none", 0.0, 0), 10, CPU).model.state_dict())
        training.optimizer.begin_epoch(epoch)
        return training.logits(some)

    assert torch.equal(dropped(1, 1), dropped(1, 1))
    assert not torch.equal(dropped(1, 1), dropped(1, 2))
    assert not torch.equal(dropped(1, 1), dropped(2, 1))


@pytest.mark.parametrize(
    ("model", "has"),
    [("tests.networks:Convolutions", "has no"), ("tests.strange_networks:WithoutLinear", "does not call its")],
)
def test_a_network_that_calls_no_dense_layer_is_refused(recipe, images, model, has):
    with pytest.raises(UserError, match=rf"{has} dense layer .* on the input of which reg='dropout' could act"):
        dense.check(dataclasses.replace(recipe, model=model), images, "dropout")
    dense.check(recipe, images, "dropout")


def test_an_input_given_by_its_name_is_an_input():
    layer = torch.nn.Linear(3, 2).train()
    dense.attach(layer, torch.zeros_like)
    h = torch.ones(4, 3)
    assert torch.equal(layer(input=h), layer(h))
    assert torch.equal(layer(h), layer.bias.expand(4, 2))


def test_what_else_a_layer_is_given_stays():
    class Gated(torch.nn.Linear):
        def forward(self, h, gate, scale=1.0):
            return super().forward(h) * gate * scale

    layer = Gated(3, 2).train()
    dense.attach(layer, torch.zeros_like)
    h, gate = torch.ones(4, 3), torch.tensor(2.0)
    assert torch.equal(layer(h, gate, scale=3.0), 6 * layer.bias.expand(4, 2))
    assert torch.equal(layer(gate=gate, h=h), layer(h, gate))


@pytest.mark.parametrize(
    "seconds_per_step", [single.seconds_per_step, lambda trial, *rest: stack.seconds_per_step([trial], *rest)]
)
def test_a_step_can_be_timed(recipe, images, seconds_per_step):
    """The plan's expected time, and the faster engine on a GPU, are found by that."""
    assert 0 < seconds_per_step(Trial(recipe, "dropout", 0.5, 0), images, CPU, 0.01) < 10
