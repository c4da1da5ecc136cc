"""Weights that are normalized: their scale means nothing, and their effective learning rate is told."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from regbench import networks
from regbench.engines import sequential, stacked
from regbench.training import normalization, schedule
from regbench.training.device_data import DeviceData
from regbench.training.events import Epoch, Trained
from regbench.trial import Recipe, Trial
from tests.conftest import TINY

CPU = torch.device("cpu")
NET = "tests.golden:Net"


def before(spec: str) -> tuple[str, ...]:
    return normalization.weights_before(networks.build(spec, 4), spec, 4)


def exact(spec: str) -> nn.Module:
    """Return a network in float64 whose norms divide by nothing but the standard deviation."""
    torch.manual_seed(0)
    model = networks.build(spec, 4).double()
    for layer in model.modules():
        if isinstance(layer, normalization.LAYERS):
            layer.eps = 1e-300
    return model


def test_which_weights_go_directly_into_a_norm():
    assert before("notebook_bn") == ("conv1.weight", "conv2.weight", "l1.weight", "l2.weight")
    blocks = [f"stage{stage}.conv{number}.weight" for stage in (1, 2, 3) for number in (1, 2)]
    assert before("resnet8") == ("conv1.weight", *blocks)
    assert before(NET) == ("conv.weight",)
    assert before("notebook") == before(TINY) == ()
    assert before("tests.networks:Normalized") == ()  # there is a ReLU and a pooling between


def test_a_network_that_does_not_run_by_itself_has_none():
    model = networks.build(NET, 4)
    assert normalization.weights_before(model, "tests.strange_networks:Shrinks", 4) == ()


def test_the_parameters_of_norms():
    assert normalization.parameters(networks.build(NET, 4)) == {"norm.weight", "norm.bias"}
    assert normalization.parameters(networks.build("notebook", 4)) == set()
    model = nn.Sequential(nn.LayerNorm(3), nn.GroupNorm(1, 3), nn.InstanceNorm2d(3, affine=True), nn.RMSNorm(3))
    model.append(nn.Linear(3, 3)).append(nn.LocalResponseNorm(2)).append(nn.InstanceNorm2d(3))
    assert normalization.parameters(model) == {name for name, _ in model.named_parameters() if name[0] != "4"}


@pytest.mark.parametrize("spec", ["notebook_bn", "resnet8"])
@settings(max_examples=2, deadline=None)
@given(factor=st.floats(0.01, 100))
def test_the_scale_of_normalized_weights_changes_nothing_and_their_gradient_is_at_right_angles(spec, factor):
    model = exact(spec)
    names = before(spec)
    images = torch.rand(6, 3, 32, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    labels = torch.arange(6) % 4

    def gradients() -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        logits = model(images)
        some = {name: model.get_parameter(name) for name in names}
        return logits.detach(), dict(
            zip(some, torch.autograd.grad(F.cross_entropy(logits, labels), some.values()), strict=True)
        )

    expected, first = gradients()
    with torch.no_grad():
        for name in names:
            w = model.get_parameter(name)
            assert (w * first[name]).sum().abs() <= 1e-9 * w.norm() * first[name].norm()
            w.mul_(factor)
    found, second = gradients()
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-9)
    for name in names:
        torch.testing.assert_close(second[name] * factor, first[name], rtol=1e-6, atol=1e-9)


@settings(max_examples=3, deadline=None)
@given(factor=st.floats(0.1, 10))
def test_weights_a_times_as_large_learn_the_same_at_a_squared_the_rate(factor):
    """So that lr / ||w||^2 is what counts."""
    model, other = exact(NET), exact(NET)
    images = torch.rand(12, 3, 32, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    labels = torch.arange(12) % 4
    with torch.no_grad():
        other.conv.weight.mul_(factor)
    rates = []
    for one, lr in ((model, 0.1), (other, 0.1 * factor**2)):
        for _ in range(4):
            (gradient,) = torch.autograd.grad(F.cross_entropy(one(images), labels), [one.conv.weight])
            with torch.no_grad():
                one.conv.weight.sub_(gradient, alpha=lr)
        rates.append(normalization.effective_lr(lr, [one.conv.weight[None]]))
    torch.testing.assert_close(other(images), model(images), rtol=1e-8, atol=1e-9)
    torch.testing.assert_close(rates[0], rates[1], rtol=1e-9, atol=0.0)
    assert not torch.allclose(model(images), exact(NET)(images), rtol=1e-4)


def test_it_is_the_mean_over_layers():
    weights = [torch.tensor([[3.0, 4.0], [0.0, 1.0]]), torch.tensor([[[1.0]], [[0.0]]])]
    assert normalization.effective_lr(0.5, weights).tolist() == [(0.5 / 25 + 0.5) / 2, float("inf")]


def test_both_engines_tell_it_of_each_epoch(images):
    recipe = Recipe(
        images.name, images.fingerprint, 60, 20, NET, epochs=3, batch_size=20, lr=0.05, precision="float64",
        schedule="step", average="ema",
    )  # fmt: skip
    trials = [
        Trial(recipe, *cell, seed) for seed, cell in enumerate((("none", 0.0), ("weight_decay", 0.5), ("l1", 0.1)))
    ]
    device_data = DeviceData(images, CPU)
    curves = []
    for events in (sequential.train(trials, device_data), stacked.train(trials, device_data, 3)):
        found = {trial: [] for trial in trials}
        for event in events:
            if isinstance(event, Epoch):
                found[event.trial].append(event.metrics[normalization.METRIC])
        curves.append(found)
    for trial in trials:
        assert curves[1][trial] == pytest.approx(curves[0][trial], rel=1e-8)
    none, decayed = (curves[0][trial] for trial in trials[:2])
    assert decayed[0] > none[0]  # what is decayed is smaller, and turns faster


def test_it_is_of_the_last_weights_and_the_epochs_rate(images):
    recipe = Recipe(images.name, images.fingerprint, 60, 0, NET, epochs=2, batch_size=20, lr=0.05, schedule="cosine")
    events = list(sequential.train([Trial(recipe, "none", 0.0, 0)], DeviceData(images, CPU)))
    (trained,) = [event for event in events if isinstance(event, Trained)]
    last = [event.metrics for event in events if isinstance(event, Epoch)][-1]
    norm = trained.weights["conv.weight"].double().square().sum().item()
    assert last[normalization.METRIC] == pytest.approx(schedule.lr(recipe, 2) / norm, rel=1e-6)


@pytest.mark.parametrize("engine", [sequential, stacked])
def test_without_normalized_weights_there_is_none(images, engine):
    recipe = Recipe(images.name, images.fingerprint, 60, 0, TINY, epochs=1, batch_size=20)
    events = list(engine.train([Trial(recipe, "none", 0.0, 0)], DeviceData(images, CPU)))
    assert not [event for event in events if isinstance(event, Epoch) and normalization.METRIC in event.metrics]
