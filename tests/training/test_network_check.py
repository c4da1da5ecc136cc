"""Networks as people write them: each trains alike on both engines and loads back, or is refused before training."""

import dataclasses
import logging
import math
import random
import warnings

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from regbench.commands import sweep as command
from regbench.engines import sequential, stacked
from regbench.errors import UserError
from regbench.measures.final import measure
from regbench.measures.multiplications import per_image
from regbench.tracking import artifacts, pictures, schema
from regbench.training import network_check, stack_check
from regbench.training.device_data import DeviceData
from regbench.training.events import Epoch, Trained
from regbench.training.optimizer import Optimizer
from regbench.trial import Recipe, Trial
from tests import strange_networks
from tests.conftest import striped

CPU = torch.device("cpu")
CELLS = (("none", 0.0, "weights"), ("l1", 1e-4, "all"), ("group_lasso", 1e-4, "all"), ("one_shot", 0.5, "all"))
STACKS = (
    "Base", "Tied", "Scalar", "OneTrained", "Lazy", "Extra", "Buffers", "Containers", "OwnModes", "InPlace", "Freezes",
    "Strided", "NumpyWeights", "Keeps", "Added", "Attention", "Scripted", "Parallel", "Half", "OtherTypes", "PassesOn",
    "ByPlace", "Unpicklable", "Grouped", "SavesItself", "NormalizesBatches", "Same",
)  # fmt: skip
ALONE = ("AssignsData", "DrawsInTraining", "Gradients", "Parametrized", "OldNorms", "Recurrent", "Embedded")
REFUSED = {
    "ManyOutputs": "returns a dict on images [32, 3, 32, 32] in training mode, expected (32, 4): logits for 4 cl",
    "OtherShapeInTraining": "returns shape (1, 32, 4) on images [32, 3, 32, 32] in training mode, expected (32, 4)",
    "Infinite": "returns NaN or infinity on images [32, 3, 32, 32] in training mode",
    "Detached": "logits that depend on no trainable parameter; leave out what cuts them off (detach()",
    "Whole": "returns torch.int64",
    "AlwaysDropout": "draws random numbers in evaluation mode too (F.dropout needs training=self.training)",
    "Remembers": "it keeps something from one call to the next",
    "Counts": "changes its attribute 'pool.calls' with each call",
    "GrowsByHand": "makes, drops or resizes 'extra.bias' while it runs; do that in its constructor",
    "OwnGenerator": "begins with another 'fc.weight' each time, whatever the seed",
    "OwnGeneratorInTraining": "does not train the same twice from one seed",
    "PlainList": "Python lists of layers a torch.nn.ModuleList",
    "ComplexWeights": "trains the complex 'turn'",
    "SameMemory": "share memory and are not the same: 'a.weight' and 'b.weight'",
    "Expanded": "'scale' and itself",
    "TrainsItself": "make its train(mode=True) like that of torch.nn.Module",
    "Renames": "leaves 'a.weight' out of its state_dict(), or renames it",
    "OddBuffer": "holds 'odd' sparse or quantized",
    "OddName": "does not go into model.safetensors",
    "ReservedName": "'__metadata__' of type torch.float32 does not go into model.safetensors",
    "Pixels": "returns shape (32, 4, 1, 1) on images [32, 3, 32, 32] in training mode, expected (32, 4): logits for 4 "
    "classes; end with flatten(1)",
    "HooksLate": "waits for the .grad of 'a.weight' (register_post_accumulate_grad_hook), which gets none here",
    "MissingFile": "give its files by their absolute paths",
    "Shrinks": "images are 32 x 32: take strides and poolings out of it",
    "KeepsGraph": "detach() what it keeps from one call to the next",
    "Thousand": "expected (32, 4): logits for 4 classes; its constructor gets their number as num_classes",
    "Device": "leave out .cuda() and devices of its own",
    "DoubleOnly": "make tensors of the images' type, as in torch.zeros(3, dtype=x.dtype)",
    "EvaluatesAlone": "make its train(mode=True) like that of torch.nn.Module",
    "Compared": "write @dataclass(eq=False)",
    "OneBatchSize": "does not run on images [32, 3, 32, 32] in training mode (shape '[20, -1]' is invalid",
}


@pytest.fixture(autouse=True)
def quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch, about some of these networks
        yield


def recipe(images, name: str, **changes: object) -> Recipe:
    made = Recipe(images.name, images.fingerprint, 90, 30, f"tests.strange_networks:{name}", 1, 32, 0.05)
    return dataclasses.replace(made, **changes)


def trained(events) -> dict[Trial, Trained]:
    found = [event for event in events if event.__class__.__name__ in ("Trained", "Failed")]
    assert all(isinstance(event, Trained) for event in found), found
    return {event.trial: event for event in found}


@pytest.mark.parametrize("name", [*STACKS, *ALONE])
def test_it_trains_on_each_engine_and_loads_back_from_its_file(images, name, tmp_path):
    """In float32: not all of them take float64."""
    network, device_data = getattr(strange_networks, name), DeviceData(images, CPU)
    network_check.check(recipe(images, name), images, CPU)
    if name in ALONE:
        with pytest.raises(UserError, match=r"engine='stacked' cannot train .* take engine=sequential"):
            stack_check.check(recipe(images, name), images)
    else:
        stack_check.check(recipe(images, name), images)
    trials = [
        Trial(recipe(images, name, average=("none", "ema")[seed % 2]), *cell[:2], seed, cell[2])
        for seed, cell in enumerate(CELLS)
    ]
    alone = trained(sequential.train(trials, device_data))
    together = {} if name in ALONE else trained(stacked.train(trials, device_data, len(trials)))
    for trial, expected in alone.items():
        for event in filter(None, (expected, together.get(trial))):
            result = measure(event)
            assert result.status == "ok"
            if name in ("Parametrized", "OldNorms"):
                assert math.isnan(result.metrics["theoretical_speedup"])
                assert not any(row["macs"] for row in result.layers if "parametrizations" in row["layer"])
            torch.testing.assert_close(event.test_logits, expected.test_logits, rtol=1e-3, atol=1e-4)
            assert event.weights.keys() == expected.weights.keys()
            artifacts.write(tmp_path, event.weights, result.layers)
            if name in ("Scalar", "Containers") and trial.regularizer == "l1":  # plots take longer than all the rest
                assert not pictures.draw(tmp_path, trial.name)
            assert_loads(network, load_file(tmp_path / schema.MODEL), images, event.test_logits, name)


def assert_loads(network: type, tensors: dict[str, torch.Tensor], images, logits: torch.Tensor, name: str) -> None:
    """Only a network that saves what is no tensor does not load strictly, and that of it alone is missing."""
    loaded = network(4) if name == "ByPlace" else network(num_classes=4)
    missing = loaded.load_state_dict(tensors, strict=name != "Extra").missing_keys
    assert missing == (["_extra_state"] if name == "Extra" else [])
    if name != "Buffers":  # by its own choice its file lacks what it needs
        loaded.float().eval()
        with torch.no_grad():
            found = loaded(torch.from_numpy(images.test_images).float() / 255).float()
        torch.testing.assert_close(found, logits, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", ["Tied", "Scalar", "Buffers", "Lazy", "Containers", "AssignsData", "DrawsInTraining"])
def test_it_goes_on_from_a_checkpoint_to_the_same_bits(images, name, monkeypatch):
    monkeypatch.setenv("REGBENCH_CHECKPOINT_SECONDS", "0")
    device_data, trial = (
        DeviceData(images, CPU),
        Trial(recipe(images, name, epochs=3, average="ema"), "l1", 1e-4, 0, "all"),
    )
    begun, begin = [], Optimizer.begin_epoch
    monkeypatch.setattr(Optimizer, "begin_epoch", lambda self, epoch: begun.append(epoch) or begin(self, epoch))
    for engine in (sequential, stacked):
        if engine is stacked and name in ALONE:
            continue
        expected = trained(engine.train([trial], device_data))[trial]
        events = engine.train([trial], device_data)
        for event in events:
            if isinstance(event, Epoch) and event.epoch == 3:
                break
        events.close()
        begun.clear()
        found = trained(engine.train([trial], device_data))[trial]
        assert begun == [3]
        for part, w in expected.weights.items():
            assert torch.equal(found.weights[part], w), part
        assert torch.equal(found.test_logits, expected.test_logits)


@pytest.mark.parametrize("name", REFUSED)
def test_it_is_refused_before_training(images, name):
    with pytest.raises(UserError) as refused:
        network_check.check(recipe(images, name), images, CPU)
    text = str(refused.value)
    assert text.startswith(f"model='tests.strange_networks:{name}' ") and "\n" not in text
    assert REFUSED[name] in text


@pytest.mark.parametrize(
    ("sizes", "advice"),
    [((60, 0, 59), "60"), ((120, 60, 59), "60"), ((61, 0, 20), "21"), ((3, 0, 2), "3")],
)
def test_a_last_batch_of_one_image_is_told_with_a_batch_size_that_works(images, sizes, advice):
    train, val, batch = sizes
    images = striped(train=120, classes=3)
    odd = recipe(images, "NormalizesBatches", train_size=train, val_size=val, batch_size=batch)
    with pytest.raises(UserError, match=rf"the last batch, 1 image with batch_size={batch} .*, for instance {advice}$"):
        network_check.check(odd, images, CPU)
    network_check.check(dataclasses.replace(odd, batch_size=int(advice)), images, CPU)


def test_every_part_that_is_evaluated_counts():
    """Of the images trained on, held out and tested, only the last leave one over."""
    images = striped(train=120, test=41)
    odd = recipe(images, "OneImageLess", train_size=120, val_size=40, batch_size=20)
    with pytest.raises(
        UserError, match=r"does not evaluate the last batch, 1 image with batch_size=20 .* instance 21$"
    ):
        network_check.check(odd, images, CPU)


def test_a_batch_of_one_is_no_last_batch(images):
    odd = recipe(images, "NormalizesBatches", batch_size=1)
    with pytest.raises(
        UserError, match=r"does not run on images \[1, 3, 32, 32\] in training mode \(Expected more than 1"
    ):
        network_check.check(odd, images, CPU)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("Extra", "saves _extra_state, which is not a tensor and is left out of model.safetensors"),
        ("Probabilities", "returns probabilities (a softmax at its end?)"),
        ("Same", "begins with the same weights for every seed"),
        (
            "Parametrized",
            "has no theoretical_speedup: its multiplications are not known (addmm takes what is computed",
        ),
    ],
)
def test_an_oddity_is_told_and_trained(images, name, told, caplog):
    per_image.cache_clear()
    with caplog.at_level(logging.WARNING):
        network_check.check(recipe(images, name), images, CPU)
    assert told in caplog.text
    caplog.clear()
    network_check.check(recipe(images, "Base"), images, CPU)
    assert not caplog.text


def test_what_a_constructor_sets_of_torch_for_the_whole_program_is_put_back(images):
    """The first network of a process would begin otherwise than the next ones, and other trials would change."""
    network_check.check(recipe(images, "Settles"), images, CPU)
    assert torch.get_default_dtype() == torch.float32
    assert torch.zeros(1).device == CPU and torch.is_grad_enabled()


def test_other_random_numbers_are_left_as_they_were(images):
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    network_check.check(recipe(images, "DrawsInTraining"), images, CPU)
    assert torch.equal(before[0], torch.get_rng_state()) and before[2] == random.getstate()
    assert (before[1] == np.random.get_state()[1]).all()


@pytest.mark.usefixtures("database")
def test_the_command_refuses_or_trains(run_here, capsys):
    options = {"dataset": "digits", "train_size": 120, "epochs": 1, "seeds": 0, "reg": "l1", "lam": "1e-4"}
    code, _ = run_here(command.main, model="tests.strange_networks:ManyOutputs", **options)
    assert code == 2
    code, out = run_here(command.main, model="tests.strange_networks:Containers", scope="all", **options)
    assert code == 0, out
