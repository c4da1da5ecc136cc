"""Recorded steps, by a recording that runs the work again where a GPU would replay it."""

import dataclasses
from contextlib import contextmanager, nullcontext

import pytest
import torch

from regbench.training import cuda_graph, stack
from regbench.training.device_data import DeviceData
from regbench.trial import Recipe, Trial
from tests.conftest import TINY

CPU = torch.device("cpu")


class Faked(cuda_graph.Recording):
    """As a graph does, it knows only the tensors and numbers that it was made with, and recording does nothing."""

    replayed = 0

    def __init__(self, work, given) -> None:
        self._given, self._work = given.clone(), work
        self._optimizer = work.__self__.optimizer
        self._lr = self._optimizer.lr

    def __call__(self, given) -> None:
        type(self).replayed += 1
        self._given.copy_(given)
        now, self._optimizer.lr = self._optimizer.lr, self._lr
        self._work(self._given)
        self._optimizer.lr = now


class Forgets(Faked):
    """What is wrong with a recording that was made of other memory."""

    def __call__(self, given) -> None:
        self._work(self._given)


class Refused(Faked):
    def __init__(self, work, given) -> None:
        raise RuntimeError("operation not permitted when stream is capturing")


@contextmanager
def holding(kept: list, value: str):
    kept.append(value)
    yield
    kept.remove(value)


@pytest.fixture
def recipe(images) -> Recipe:
    return Recipe(images.name, images.fingerprint, 120, 40, TINY, epochs=3, batch_size=30, lr=0.05)


@pytest.mark.parametrize(
    ("options", "made"),
    [
        ({"schedule": "constant"}, 1),
        ({"average": "ema"}, 2),
        ({"optimizer": "adam"}, 2),
        ({"augment": "flip_crop"}, 2),
    ],
)
def test_replayed_steps_train_as_the_others_do(recipe, images, monkeypatch, options, made):
    """Three epochs of two whole batches and a short one: the short ones, and the first three steps, are not replayed.

    Another learning rate takes another recording.
    """
    recipe = dataclasses.replace(recipe, **options)
    recordings = []
    monkeypatch.setattr(cuda_graph, "Recording", lambda *given: recordings.append(given) or Faked(*given))
    monkeypatch.setattr(Faked, "replayed", 0)
    device_data = DeviceData(images, CPU)
    trials = [Trial(recipe, "l1", 1e-3, 0), Trial(recipe, "weight_decay", 1e-2, 1)]
    plain, recorded = (stack.Training(trials, device_data, record) for record in (False, True))
    for epoch in (1, 2, 3):
        expected, found = plain.epoch(epoch), recorded.epoch(epoch)
        for one, other in zip(expected, found, strict=True):
            assert one | {"time/epoch": 0} == other | {"time/epoch": 0}
    assert (Faked.replayed, len(recordings)) == (4, made)
    for name, w in plain.state.items():
        assert torch.equal(w, recorded.state[name]), name


@pytest.mark.parametrize(("faked", "faithful"), [(Faked, True), (Forgets, False), (Refused, False)])
def test_a_recording_is_used_only_where_it_gives_the_same(recipe, images, monkeypatch, faked, faithful):
    monkeypatch.setattr(cuda_graph, "Recording", faked)
    for options in ({}, {"average": "ema"}, {"augment": "flip_crop"}):
        assert stack.faithful(dataclasses.replace(recipe, **options), DeviceData(images, CPU)) is faithful


def test_a_step_that_cannot_be_recorded_is_done_each_time(recipe, images, monkeypatch, caplog):
    monkeypatch.setattr(cuda_graph, "Recording", Refused)
    device_data = DeviceData(images, CPU)
    plain, refused = (stack.Training([Trial(recipe, "l1", 1e-3, 0)], device_data, record) for record in (False, True))
    for epoch in (1, 2, 3):
        plain.epoch(epoch), refused.epoch(epoch)
    assert caplog.text.count("steps are not recorded: operation not permitted when stream is capturing") == 1
    for name, w in plain.state.items():
        assert torch.equal(w, refused.state[name]), name


def test_only_packaged_networks_and_regularizers_on_a_gpu_are_recorded(recipe, images, monkeypatch):
    """One of the user's may count its steps, which a recording would not."""
    settings = []
    monkeypatch.setattr(stack, "faithful", lambda *_: settings == ["float32"])
    monkeypatch.setattr(stack.precision, "settings", lambda kind, _: holding(settings, kind))
    packaged = dataclasses.replace(recipe, model="notebook")
    device_data = DeviceData(images, CPU)
    trials = [Trial(packaged, "l1", 1e-3, 0)]
    assert not stack.recordable(trials, device_data)
    device_data.device = torch.device("cuda")
    assert stack.recordable(trials, device_data)
    assert not stack.recordable([Trial(recipe, "l1", 1e-3, 0)], device_data)
    assert not stack.recordable([*trials, dataclasses.replace(trials[0], regularizer="tests.plugins:Log")], device_data)


@pytest.mark.parametrize("name", ["dropout", "input_noise", "cutout", "mixup"])
def test_steps_with_random_numbers_are_recorded_too(recipe, images, monkeypatch, name):
    """A replayed one has those of its own place, which is counted on the device."""
    monkeypatch.setattr(stack, "faithful", lambda *_: True)
    monkeypatch.setattr(stack.precision, "settings", lambda *_: nullcontext())
    recipe = dataclasses.replace(recipe, model="notebook")
    device_data = DeviceData(images, CPU)
    device_data.device = torch.device("cuda")
    for options in ({}, {"augment": "flip_crop"}, {"input_noise": 0.1}):
        some = dataclasses.replace(recipe, **options)
        assert stack.recordable([Trial(some, "l1", 1e-3, 0), Trial(some, name, 0.1, 0)], device_data)
