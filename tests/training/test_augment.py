"""Augmented images: those of torchvision, the same in both engines and after a kill, and none in evaluation."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.transforms.v2 import functional as V

from regbench.engines import sequential, stacked
from regbench.training import augment, network_check, single, stack, stack_check
from regbench.training.device_data import DeviceData, pixels
from regbench.training.events import Epoch, Trained
from regbench.training.stacked_networks import Stack
from regbench.trial import Recipe, Trial
from tests.conftest import TINY

CPU = torch.device("cpu")
ENGINES = {
    "sequential": sequential.train,
    "stacked": lambda trials, device_data: stacked.train(trials, device_data, len(trials)),
}
MOVED = {"augment": "flip_crop"}
NOISY = {"augment": "flip_crop", "input_noise": 0.1}
CELLS = [("none", 0.0), ("input_noise", 0.2), ("cutout", 0.5), ("mixup", 0.4), ("mixup", 2.0), ("dropout", 0.5)]


@pytest.fixture
def recipe(images) -> Recipe:
    return Recipe(images.name, images.fingerprint, 120, 40, TINY, epochs=3, batch_size=32, lr=0.05)


def trials_of(recipe: Recipe, options: dict[str, object]) -> list[Trial]:
    recipe = dataclasses.replace(recipe, **options)
    return [Trial(recipe, *cell, seed) for seed, cell in enumerate(CELLS)]


@pytest.fixture
def seen(monkeypatch) -> list[tuple[bool, torch.Tensor]]:
    """What networks are given: whether in training, and pixels [K, N, 3, 32, 32]."""
    given: list[tuple[bool, torch.Tensor]] = []
    alone, together = single.Training.forward, Stack.forward

    def one(self, x):
        given.append((self.model.training, x[None].clone()))
        return alone(self, x)

    def many(self, x, training):
        given.append((training, x.clone()))
        return together(self, x, training)

    monkeypatch.setattr(single.Training, "forward", one)
    monkeypatch.setattr(Stack, "forward", many)
    return given


def trained_on(seen: list, train, trials: list[Trial], device_data: DeviceData) -> list[torch.Tensor]:
    """Return the batches [K, N, 3, 32, 32] of a training, in order."""
    seen.clear()
    list(train(trials, device_data))
    return [x for training, x in seen if training]


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**31), epoch=st.integers(1, 100), images=st.integers(0, 2**31))
def test_flip_crop_is_that_of_torchvision(seed, epoch, images):
    recipe = Recipe("", "", 12, 0, augment="flip_crop")
    some = torch.randint(0, 256, (12, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(images))
    moves = torch.from_numpy(augment.moves(recipe, 12, seed, epoch))
    found = augment.flip_crop(some, moves)
    assert found.dtype == torch.uint8
    for image, (flipped, top, left), moved in zip(some, moves.tolist(), found, strict=True):
        expected = V.crop(V.pad(image, [4, 4, 4, 4]), top, left, 32, 32)
        assert torch.equal(moved, V.horizontal_flip(expected) if flipped else expected)
    stacked_up = augment.flip_crop(some.view(3, 4, 3, 32, 32), moves.view(3, 4, 3))
    assert torch.equal(stacked_up.flatten(0, 1), found)


def test_each_move_is_as_likely():
    moves = augment.moves(Recipe("", "", 0, 0, augment="flip_crop"), 81_000, 0, 1)
    views, counts = np.unique(moves, axis=0, return_counts=True)
    assert views.tolist() == [[flip, top, left] for flip in (0, 1) for top in range(9) for left in range(9)]
    # chi squared of 161 degrees of freedom, mean 161 and standard deviation 18
    assert ((counts - 500) ** 2 / 500).sum() < 161 + 4 * 18


def test_a_seed_and_an_epoch_decide_the_moves():
    recipe = Recipe("", "", 0, 0, augment="flip_crop")
    first, again, epoch, seed = (augment.moves(recipe, 50, *of) for of in ((0, 1), (0, 1), (0, 2), (1, 1)))
    assert (first == again).all()
    assert (first != epoch).any(1).mean() > 0.9
    assert (first != seed).any(1).mean() > 0.9
    assert augment.moves(dataclasses.replace(recipe, augment="none"), 50, 0, 1) is None


@pytest.mark.parametrize("options", [MOVED, NOISY, {"input_noise": 0.1}])
def test_networks_see_the_same_in_both_engines_and_in_any_stack(recipe, images, seen, options):
    """Bit for bit, in all steps of two epochs, with whatever regularizer, alone and beside others."""
    device_data, trials = DeviceData(images, CPU), trials_of(recipe, options | {"epochs": 2})
    expected = [trained_on(seen, sequential.train, [trial], device_data) for trial in trials]
    assert {len(batches) for batches in expected} == {6}
    for size in (1, 3, len(trials)):
        for first in range(0, len(trials), size):
            part = trials[first : first + size]
            found = trained_on(seen, ENGINES["stacked"], part, device_data)
            rows = sorted(range(size), key=lambda row: part[row].regularizer)
            for step, batch in enumerate(found):
                for place, row in enumerate(rows):
                    assert torch.equal(batch[place], expected[first + row][step][0]), (size, step, part[row].name)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("options", [MOVED, {"input_noise": 0.1}])
def test_training_images_differ_between_epochs_and_seeds_and_others_are_as_they_are(
    recipe, images, seen, engine, options
):
    trials = [Trial(dataclasses.replace(recipe, batch_size=80, **options), "none", 0.0, seed) for seed in (0, 1)]
    device_data = DeviceData(images, CPU)
    plain = pixels(device_data.train_images)
    batches = [trained_on(seen, ENGINES[engine], [trial], device_data) for trial in trials]
    evaluated = torch.cat([x[0] for training, x in seen if not training])
    known = {image.numpy().tobytes() for image in torch.cat([plain, pixels(device_data.test_images)])}
    assert all(image.numpy().tobytes() in known for image in evaluated)
    epochs = [{image.numpy().tobytes() for image in batch[0]} for some in batches for batch in some]
    for number, one in enumerate(epochs):
        assert len(one & known) < 4
        assert all(len(one & other) < 4 for other in epochs[:number])


def test_the_recipes_noise_is_gaussian_and_not_clipped(recipe, images, seen):
    trial = Trial(dataclasses.replace(recipe, batch_size=80, input_noise=0.3), "none", 0.0, 0)
    (noisy, *_) = trained_on(seen, sequential.train, [trial], DeviceData(images, CPU))
    (plain, *_) = trained_on(
        seen, sequential.train, [dataclasses.replace(trial, recipe=dataclasses.replace(trial.recipe, input_noise=0.0))],
        DeviceData(images, CPU),
    )  # fmt: skip
    noise = (noisy - plain).flatten() / 0.3
    count = noise.numel()
    assert abs(noise.mean()) < 4 * count**-0.5
    assert abs(noise.square().mean() - 1) < 4 * (2 / count) ** 0.5
    assert abs((noise.abs() < 1).double().mean() - 0.682689) < 4 * (0.2166 / count) ** 0.5
    assert noisy.min() < 0


@pytest.mark.parametrize("engine", ENGINES)
def test_a_training_that_was_cut_off_goes_on_to_the_same_bits(recipe, images, engine, monkeypatch):
    monkeypatch.setenv("REGBENCH_CHECKPOINT_SECONDS", "0")
    train, device_data, trials = ENGINES[engine], DeviceData(images, CPU), trials_of(recipe, NOISY)
    begun, moves = [], augment.moves
    monkeypatch.setattr(augment, "moves", lambda *given: begun.append(given[-1]) or moves(*given))
    for some in [trials] if engine == "stacked" else [[trial] for trial in trials]:
        expected = {event.trial: event for event in train(some, device_data) if isinstance(event, Trained)}
        events = train(some, device_data)
        for event in events:
            if isinstance(event, Epoch) and event.epoch == 2:
                break
        events.close()
        begun.clear()
        found = {event.trial: event for event in train(some, device_data) if isinstance(event, Trained)}
        assert set(begun) == {2, 3}
        for trial in some:
            for name, w in expected[trial].weights.items():
                assert torch.equal(found[trial].weights[name], w), (trial.name, name)


def test_a_step_can_be_timed_and_an_augmented_network_checked(recipe, images):
    recipe = dataclasses.replace(recipe, **NOISY)
    trials = [Trial(recipe, "mixup", 0.5, 0), Trial(recipe, "cutout", 0.5, 0)]
    assert 0 < single.seconds_per_step(trials[0], images, CPU, 0.01) < 10
    assert 0 < stack.seconds_per_step(trials, images, CPU, 0.01) < 10
    network_check.check(recipe, images, CPU)
    stack_check.check(recipe, images)
