"""The learning rate of an epoch, against torch's schedulers."""

import dataclasses
from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.optim import lr_scheduler

from regbench.engines import sequential
from regbench.training import schedule
from regbench.training.device_data import DeviceData
from regbench.training.events import Epoch, Trained
from regbench.training.optimizer import Optimizer
from regbench.training.randomness import initial_model
from regbench.trial import SCHEDULES, Recipe, Trial
from tests.conftest import TINY

RECIPE = Recipe("none", "", 16, 0, epochs=8, lr=0.1, momentum=0.5, schedule="constant", average="none")


def torchs(recipe: Recipe) -> Iterator[float]:
    """Yield the learning rate of each epoch by torch's own schedulers."""
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=recipe.lr)
    length = recipe.epochs - recipe.warmup
    made = {
        "constant": lambda: lr_scheduler.ConstantLR(optimizer, factor=1.0),
        "cosine": lambda: lr_scheduler.CosineAnnealingLR(optimizer, T_max=length),
        "linear": lambda: lr_scheduler.LinearLR(optimizer, start_factor=1.0, end_factor=0.0, total_iters=length),
        # from the first epoch before which a half, three quarters of them are done
        "step": lambda: lr_scheduler.MultiStepLR(optimizer, [-(-length // 2), -(-3 * length // 4)]),
    }
    if recipe.warmup:
        rise = lr_scheduler.LinearLR(optimizer, start_factor=1 / (recipe.warmup + 1), total_iters=recipe.warmup)
        scheduler = lr_scheduler.SequentialLR(optimizer, [rise, made[recipe.schedule]()], [recipe.warmup])
    else:
        scheduler = made[recipe.schedule]()
    for _ in range(recipe.epochs):
        yield optimizer.param_groups[0]["lr"]
        optimizer.step()
        scheduler.step()


@settings(deadline=None)  # the first optimizer imports torch's compiler
@given(st.data(), st.integers(1, 60), st.sampled_from(SCHEDULES), st.floats(1e-4, 10))
def test_it_is_that_of_torchs_schedulers(data, epochs, name, lr):
    warmup = data.draw(st.integers(0, epochs - 1))
    recipe = dataclasses.replace(RECIPE, epochs=epochs, schedule=name, warmup=warmup, lr=lr)
    found = [schedule.lr(recipe, epoch) for epoch in range(1, epochs + 1)]
    assert found == pytest.approx(list(torchs(recipe)), rel=1e-10, abs=1e-10 * lr)
    assert all(0 < one <= lr for one in found)


def test_without_a_schedule_it_is_the_recipes_bit_for_bit():
    assert {schedule.lr(RECIPE, epoch) for epoch in range(1, 9)} == {RECIPE.lr}


def test_every_schedule_of_a_recipe_is_known():
    assert set(schedule.FACTORS) == set(SCHEDULES)


def test_a_step_takes_the_rate_of_its_epoch_and_hooks_its_tau():
    """After half of the epochs a tenth of it; momentum 0.5 makes the effective step twice as long."""
    recipe = dataclasses.replace(RECIPE, schedule="step")
    plain, decayed = (
        Optimizer([torch.ones(1, 2, 3)], [Trial(recipe, *cell, 0)]) for cell in (("none", 0.0), ("decoupled_wd", 1.0))
    )
    for epoch, lr in ((4, 0.1), (5, 0.01), (1, 0.1)):  # in any order: nothing but the epoch counts
        for optimizer, expected in ((plain, 1 - lr * 0.25), (decayed, (1 - lr * 0.25) / (1 + 2 * lr))):
            optimizer.weights[0].fill_(1)
            optimizer.rule.momenta[0].zero_()
            optimizer.begin_epoch(epoch)
            optimizer.step([torch.full((1, 2, 3), 0.25)])
            torch.testing.assert_close(optimizer.weights[0], torch.full((1, 2, 3), expected))


def test_a_training_is_that_of_torchs_sgd_and_scheduler(images):
    recipe = Recipe(
        images.name, images.fingerprint, 120, 0, TINY, epochs=5, batch_size=120, lr=0.05, precision="float64",
        schedule="cosine", warmup=2, average="none",
    )  # fmt: skip
    device_data = DeviceData(images, torch.device("cpu"))
    *epochs, trained = sequential.train([Trial(recipe, "none", 0.0, 0)], device_data)
    assert isinstance(trained, Trained) and sum(isinstance(event, Epoch) for event in epochs) == 5
    model = initial_model(TINY, device_data.num_classes, 0).double()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    for lr in torchs(recipe):
        optimizer.param_groups[0]["lr"] = lr
        optimizer.zero_grad()
        pixels = device_data.train_images.double() / 255
        torch.nn.functional.cross_entropy(model(pixels), device_data.train_labels).backward()
        optimizer.step()
    for name, w in model.state_dict().items():
        torch.testing.assert_close(trained.weights[name], w, rtol=1e-9, atol=1e-12)
