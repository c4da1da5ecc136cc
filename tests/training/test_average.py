"""Averaged weights: what is evaluated, pruned and saved, on both engines, and that training does not see them."""

import copy
import dataclasses

import pytest
import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from regbench.engines import sequential, stacked
from regbench.measures.final import measure
from regbench.measures.logits import classification
from regbench.training import average, single, stack
from regbench.training.average import EMA_DECAY, Average
from regbench.training.device_data import DeviceData
from regbench.training.events import Epoch, Trained
from regbench.training.stacked_networks import NotebookStack
from regbench.trial import NOTEBOOK, Recipe, Trial
from tests.conftest import TINY

CPU = torch.device("cpu")
NORMALIZED = "tests.networks:Normalized"
ENGINES = {
    "sequential": sequential.train,
    "stacked": lambda trials, device_data: stacked.train(trials, device_data, len(trials)),
}
CELLS = [
    ("none", 0.0),
    ("l2", 1e-3),
    ("l1_prox", 1e-3),
    ("imp", 0.8),
    ("random_pruning", 0.5),
    ("random_at_init", 0.5),
    ("dropout", 0.5),
]


@pytest.fixture
def recipe(images) -> Recipe:
    return Recipe(
        images.name, images.fingerprint, 120, 40, NORMALIZED, epochs=4, batch_size=32, lr=0.05, precision="float64",
        schedule="cosine", warmup=1, average="ema",
    )  # fmt: skip


def trained(events) -> dict[Trial, Trained]:
    return {event.trial: event for event in events if isinstance(event, Trained)}


def plain(trial: Trial) -> Trial:
    return dataclasses.replace(trial, recipe=dataclasses.replace(trial.recipe, average="none"))


def test_it_is_torchs_averaged_model(recipe, images):
    """Weights and running statistics bit for bit; what is counted is that of the last step."""
    trial, device_data = Trial(recipe, "l2", 1e-2, 0), DeviceData(images, CPU)
    training = single.Training(trial, device_data.num_classes, CPU)
    expected = AveragedModel(training.model, multi_avg_fn=get_ema_multi_avg_fn(EMA_DECAY), use_buffers=True)
    counts = 0
    for first in range(0, 120, 20):
        training.step(*(some[first : first + 20] for some in (device_data.train_images, device_data.train_labels)))
        expected.update_parameters(training.model)
        counts += 1
    last = copy.deepcopy(training.model.state_dict())
    with training.evaluated():
        found = training.weights
    for name, w in expected.module.state_dict().items():
        if name == "body.4.num_batches_tracked":
            assert found[name] == counts
        else:
            assert torch.equal(found[name], w), name
            assert not torch.equal(found[name], last[name]), name
    for name, w in training.model.state_dict().items():
        assert torch.equal(last[name], w), name


@pytest.mark.parametrize("model", [NORMALIZED, NOTEBOOK])
def test_both_engines_average_alike(recipe, images, model):
    recipe = dataclasses.replace(recipe, model=model, lr=0.01)
    if model == NOTEBOOK:  # large, and each test image is looked at seven times
        recipe = dataclasses.replace(recipe, epochs=2, train_size=60, val_size=12, batch_size=24)
        images = dataclasses.replace(images, test_images=images.test_images[:8], test_labels=images.test_labels[:8])
    device_data = DeviceData(images, CPU)
    trials = [Trial(recipe, *cell, seed) for seed, cell in enumerate(CELLS[: 6 if model == NORMALIZED else 2])]
    alone, together = (list(train(trials, device_data)) for train in ENGINES.values())
    for trial in trials:
        expected, found = trained(alone)[trial], trained(together)[trial]
        for name, w in expected.weights.items():
            torch.testing.assert_close(found.weights[name], w, rtol=1e-9, atol=1e-10)
        torch.testing.assert_close(found.test_logits, expected.test_logits, rtol=1e-8, atol=1e-9)
        assert found.pruned == pytest.approx(expected.pruned)
        ours, theirs = (
            [event.metrics["val/loss"] for event in events if isinstance(event, Epoch) and event.trial == trial]
            for events in (together, alone)
        )
        assert ours == pytest.approx(theirs, rel=1e-8)


@pytest.mark.parametrize("engine", ENGINES)
def test_training_does_not_see_it_and_all_that_is_measured_does(recipe, images, engine):
    trial, device_data = Trial(recipe, "l2", 1e-3, 0), DeviceData(images, CPU)
    with_average, without = (list(ENGINES[engine]([one], device_data)) for one in (trial, plain(trial)))
    for ours, theirs in zip(with_average[1:-1], without[1:-1], strict=True):
        assert {name: value for name, value in ours.metrics.items() if name.startswith("train/")} == {
            name: value for name, value in theirs.metrics.items() if name.startswith("train/")
        }
        assert ours.metrics["val/loss"] != theirs.metrics["val/loss"]
    found = with_average[-1]
    fresh = single.Training(plain(trial), device_data.num_classes, CPU)
    fresh.model.load_state_dict(found.weights)
    torch.testing.assert_close(fresh.predict(device_data.test_images), found.test_logits, rtol=1e-10, atol=1e-12)
    assert found.pruned[0.0] == classification(found.test_logits, found.test_labels)["accuracy"]
    assert not torch.equal(found.weights["out.weight"], without[-1].weights["out.weight"])


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(("name", "lam"), [("imp", 0.8), ("one_shot", 0.8), ("random_at_init", 0.8), ("l1_prox", 0.03)])
def test_what_is_pruned_or_shrunk_to_zero_is_zero_in_the_average_too(recipe, images, engine, name, lam):
    trial, device_data = Trial(recipe, name, lam, 0), DeviceData(images, CPU)
    averaged, last = (trained(ENGINES[engine]([one], device_data))[one] for one in (trial, plain(trial)))
    for part, w in last.weights.items():
        if w.ndim > 1:
            assert torch.equal(averaged.weights[part] == 0, w == 0), part
            assert (w == 0).any()
    assert measure(averaged).metrics["sparsity/exact"] == measure(last).metrics["sparsity/exact"]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("epoch", [1, 3])
@pytest.mark.parametrize("model", [TINY, NORMALIZED])
def test_a_training_that_was_cut_off_goes_on_to_the_same_bits(recipe, images, engine, epoch, model, monkeypatch):
    """Averages, learning rate and momentum, after a first epoch of warm-up and in the middle of the cosine."""
    monkeypatch.setenv("REGBENCH_CHECKPOINT_SECONDS", "0")
    recipe = dataclasses.replace(recipe, model=model, precision="float32")
    cells = CELLS if engine == "stacked" else CELLS[3:4]
    train, device_data = ENGINES[engine], DeviceData(images, CPU)
    trials = [Trial(recipe, *cell, seed) for seed, cell in enumerate(cells)]
    expected = list(train(trials, device_data))
    events = train(trials, device_data)
    for event in events:
        if isinstance(event, Epoch) and event.epoch == epoch + 1:
            break
    events.close()
    begun, begin = [], average.Average.update
    monkeypatch.setattr(average.Average, "update", lambda self, now: begun.append(bool(self.begun)) or begin(self, now))
    again = list(train(trials, device_data))
    assert begun == [True] * 3 * (4 - epoch)  # the average went on as well
    for trial in trials:
        ours, theirs = (
            [{**event.metrics, "time/epoch": 0} for event in some if isinstance(event, Epoch) and event.trial == trial]
            for some in (again, expected)
        )
        assert ours == theirs
        for name, w in trained(expected)[trial].weights.items():
            assert torch.equal(trained(again)[trial].weights[name], w), name
        assert torch.equal(trained(again)[trial].test_logits, trained(expected)[trial].test_logits)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_trial_that_diverges_is_told_and_its_neighbour_left_alone(recipe, images, engine):
    recipe = dataclasses.replace(recipe, precision="float32")
    bad, good = Trial(recipe, "l2", 1e36, 0), Trial(recipe, "l2", 1e-3, 1)
    found = trained(ENGINES[engine]([bad, good], DeviceData(images, CPU)))
    assert found[bad].diverged and found[bad].pruned == {}
    assert not found[good].diverged
    assert all(w.isfinite().all() for w in found[good].weights.values())


def test_weights_are_back_where_an_evaluation_fails(recipe, images):
    device_data = DeviceData(images, CPU)
    alone = single.Training(Trial(recipe, "none", 0.0, 0), device_data.num_classes, CPU)
    together = stack.Training([Trial(recipe, "none", 0.0, seed) for seed in (0, 1)], device_data)
    alone.step(device_data.train_images[:20], device_data.train_labels[:20])
    for first in (0, 20):
        together.batch(together.train_part[:, first : first + 20])
    for training in (alone, together):
        before = {name: w.clone() for name, w in training.state.items()}
        with pytest.raises(RuntimeError, match="out of memory"), training.evaluated():
            raise RuntimeError("out of memory")
        for name, w in training.state.items():
            assert torch.equal(w, before[name]), name


def test_without_it_nothing_is_kept(recipe, images):
    trial, device_data = plain(Trial(recipe, "none", 0.0, 0)), DeviceData(images, CPU)
    trainings = single.Training(trial, 4, CPU), stack.Training([trial], device_data)
    for training in trainings:
        assert training.average is None
        assert not [name for name in training.state if name.startswith("average")]


def test_the_memory_of_a_stack_counts_it(recipe, images):
    trial, device_data = Trial(recipe, "none", 0.0, 0), DeviceData(images, CPU)
    more = stacked.bytes_per_trial(trial, device_data) - stacked.bytes_per_trial(plain(trial), device_data)
    values = stack.Training([trial], device_data).average.values
    assert more >= sum(w.nbytes for w in values.values()) > 0


def test_a_step_reads_nothing_back(recipe):
    """A recorded one could not: what decides whether the first values are copied is on the host."""
    average = Average({"w": torch.zeros(2, 3), "count": torch.tensor(3)})
    assert average.begun.device == CPU
    meta = {name: w.to("meta") for name, w in average.values.items()}
    average.values = meta  # has no numbers to be read
    for _ in range(2):
        average.update(meta)
    assert average.begun


def test_the_notebooks_stack_is_averaged_as_any_other(recipe, images):
    trial = Trial(dataclasses.replace(recipe, model=NOTEBOOK), "none", 0.0, 0)
    training = stack.Training([trial], DeviceData(images, CPU))
    assert isinstance(training.stack, NotebookStack)
    assert training.average.values.keys() == training.stack.state.keys()
