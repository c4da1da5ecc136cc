"""The packaged networks: what they are, that both engines train them alike, and what they are spared or refused."""

import dataclasses
import math

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from regbench import networks, preflight
from regbench.engines import sequential, stacked
from regbench.errors import UserError
from regbench.measures.final import measure
from regbench.measures.multiplications import per_image
from regbench.training import network_check, stack, stack_check
from regbench.training.device_data import DeviceData
from regbench.training.events import Epoch, Trained
from regbench.trial import Recipe, Sweep, Trial
from tests.conftest import striped

CPU = torch.device("cpu")
NORMALIZED = ("notebook_bn", "resnet8")
SIZES = {"notebook": 3_163_114, "notebook_bn": 3_165_210, "resnet8": 75_290}
CELLS = [("none", 0.0, "weights"), ("l1", 1e-3, "no_norm"), ("one_shot", 0.5, "weights"), ("dropout", 0.5, "weights")]


@pytest.fixture(scope="module")
def images():
    return striped(train=28, test=8)


@pytest.fixture
def recipe(images) -> Recipe:
    return Recipe(
        images.name,
        images.fingerprint,
        28,
        8,
        epochs=2,
        batch_size=8,
        lr=0.01,
        precision="float64",
        schedule="constant",
    )


def trials(recipe: Recipe, model: str, **changes: object) -> list[Trial]:
    recipe = dataclasses.replace(recipe, model=model, **changes)
    return [Trial(recipe, name, lam, seed, scope) for seed, (name, lam, scope) in enumerate(CELLS)]


def trained(events) -> dict[Trial, Trained]:
    return {event.trial: event for event in events if isinstance(event, Trained)}


def test_those_that_are_there_have_the_size_that_they_say():
    assert set(networks.PACKAGED) == set(SIZES)
    for name, size in SIZES.items():
        model = networks.build(name, 10)
        assert sum(p.numel() for p in model.parameters()) == size
        assert f"{size:,} parameters" in " ".join(networks.find(name).__doc__.split())
        assert model(torch.rand(2, 3, 32, 32)).shape == (2, 10)


@pytest.mark.parametrize(("model", "average"), [("notebook_bn", "ema"), ("resnet8", "none")])
def test_both_engines_train_alike_running_statistics_included(recipe, images, model, average):
    some, device_data = trials(recipe, model, average=average), DeviceData(images, CPU)
    alone, together = (trained(train) for train in (
        sequential.train(some, device_data), stacked.train(some, device_data, len(some))
    ))  # fmt: skip
    for trial in some:
        expected, found = alone[trial], together[trial]
        assert found.parameters == expected.parameters and found.weights.keys() == expected.weights.keys()
        for name, w in expected.weights.items():
            assert found.weights[name].shape == w.shape and found.weights[name].dtype == w.dtype
            torch.testing.assert_close(found.weights[name], w, rtol=1e-8, atol=1e-10, msg=f"{trial.name} {name}")
        torch.testing.assert_close(found.test_logits, expected.test_logits, rtol=1e-7, atol=1e-8)
    assert found.weights["bn1.num_batches_tracked"] == 6
    assert not torch.equal(found.weights["bn1.running_mean"], together[some[0]].weights["bn1.running_mean"])


@pytest.mark.parametrize("model", NORMALIZED)
def test_sixteen_bits_take_the_same_way(recipe, images, model):
    some, device_data = trials(recipe, model, precision="bf16", epochs=1)[:2], DeviceData(images, CPU)
    alone, together = trained(sequential.train(some, device_data)), trained(stacked.train(some, device_data, 2))
    for trial in some:
        for name in ("conv1.weight", "bn1.running_mean"):
            found, expected = together[trial].weights[name], alone[trial].weights[name]
            assert found.dtype == torch.float32
            assert (found - expected).norm() <= 0.03 * expected.norm()


@pytest.mark.parametrize("model", NORMALIZED)
def test_a_trial_that_has_lost_its_weights_leaves_its_neighbours_statistics_alone(recipe, images, model):
    some, device_data = trials(recipe, model, epochs=1)[:2], DeviceData(images, CPU)
    calm, beside = (stack.Training(some, device_data) for _ in range(2))
    with torch.no_grad():
        for w in beside.stack.parameters.values():
            w[1] = torch.nan
    calm.epoch(1), beside.epoch(1)
    for name, w in calm.state.items():
        if name.startswith("weights."):
            assert torch.equal(beside.state[name][0], w[0]), name
    assert beside.stack.state["bn1.running_var"][1].isnan().all()


@pytest.mark.parametrize("model", NORMALIZED)
def test_a_step_of_a_stack_waits_for_nothing(recipe, images, model):
    """A GPU's is recorded: nothing is read back, and no number of the host becomes a tensor."""

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, operation, types, given=(), named=None):
            assert operation not in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.lift_fresh.default)
            return operation(*given, **(named or {}))

    training = stack.Training(trials(recipe, model)[:3], DeviceData(images, CPU))
    training.optimizer.begin_epoch(1)
    chosen = training.train_part[:, :8]
    training.batch(chosen)
    with Watch():
        training.batch(chosen)


@pytest.mark.parametrize("engine", ["sequential", "stacked"])
@pytest.mark.parametrize("model", NORMALIZED)
def test_a_training_that_was_cut_off_goes_on_to_the_same_bits(recipe, images, engine, model, monkeypatch):
    monkeypatch.setenv("REGBENCH_CHECKPOINT_SECONDS", "0")
    some, device_data = trials(recipe, model, precision="float32")[1:2], DeviceData(images, CPU)
    train = {"sequential": sequential.train, "stacked": lambda *given: stacked.train(*given, 1)}[engine]
    (expected,) = trained(train(some, device_data)).values()
    events = train(some, device_data)
    for event in events:
        if isinstance(event, Epoch) and event.epoch == 2:
            break
    events.close()
    (found,) = trained(train(some, device_data)).values()
    for name, w in expected.weights.items():
        assert torch.equal(found.weights[name], w), name


def test_multiplications_are_known():
    """The notebook's are those of `notebook_bn`, since normalization multiplies by no weight of a layer."""
    plain, normalized, residual = (per_image(name, 10) for name in ("notebook", "notebook_bn", "resnet8"))
    assert not plain.unknown and not normalized.unknown and not residual.unknown
    assert dict(normalized.weights) == dict(plain.weights)
    sides = {"conv1": 32, "stage1": 32, "stage2": 16, "stage3": 8, "fc": 1}
    model = networks.build("resnet8", 10)
    expected = {
        name: p.numel() * sides[name.partition(".")[0]] ** 2 for name, p in model.named_parameters() if p.ndim > 1
    }
    assert dict(residual.weights) == expected


@pytest.mark.parametrize("model", NORMALIZED)
def test_all_measures_are_there(recipe, images, model):
    (event,) = trained(sequential.train(trials(recipe, model)[2:3], DeviceData(images, CPU))).values()
    metrics = measure(event).metrics
    assert metrics["sparsity/exact"] == pytest.approx(0.5, abs=1e-3)
    assert metrics["theoretical_speedup"] > 1.01
    assert not [name for name, value in metrics.items() if math.isnan(value)]


@pytest.mark.parametrize("model", NORMALIZED)
def test_they_would_pass_what_a_users_network_must(recipe, images, model):
    network_check.check(trials(recipe, model)[0].recipe, images, CPU)


@pytest.mark.parametrize("model", networks.PACKAGED)
def test_they_are_spared_what_a_users_network_must_pass(recipe, images, model, monkeypatch):
    def refuse(*_: object) -> None:
        raise AssertionError("is checked")

    monkeypatch.setattr(network_check, "check", refuse)
    monkeypatch.setattr(stack, "Training", refuse)
    some = trials(recipe, model)
    preflight.check_classes(["dropout"], model, "cpu")
    preflight.check_sweep(Sweep(tuple(some)), images, "cpu")
    stack_check.check(some[0].recipe, images)


@pytest.mark.parametrize(("size", "batch"), [(17, 8), (20, 19)])
def test_a_last_batch_of_one_image_is_refused_where_it_cannot_be_normalized(recipe, images, size, batch):
    def check(model: str, batch_size: int) -> None:
        one = Trial(
            dataclasses.replace(recipe, model=model, train_size=size, val_size=0, batch_size=batch_size), "none", 0.0, 0
        )
        preflight.check_sweep(Sweep((one,)), images, "cpu")

    with pytest.raises(UserError, match=rf"model='notebook_bn' does not train on the last batch, 1 image .*={batch} "):
        check("notebook_bn", batch)
    check("notebook_bn", batch - 2)
    check("resnet8", batch)  # has a number for each pixel
