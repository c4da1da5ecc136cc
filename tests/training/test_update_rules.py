"""The optimizers, against torch's: alone and in stacks, with every schedule and with averaged weights."""

import dataclasses
from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from regbench import data
from regbench.data.split import split
from regbench.engines import stacked
from regbench.training import optimizer as optimizing
from regbench.training import schedule, single, stack, update_rules
from regbench.training.average import EMA_DECAY
from regbench.training.device_data import DeviceData
from regbench.training.optimizer import Optimizer, Piece, Term
from regbench.training.randomness import batches, initial_model
from regbench.training.update_rules import Adam, Product
from regbench.trial import NOTEBOOK, OPTIMIZERS, SCHEDULES, Recipe, Trial
from tests.conftest import striped

CPU = torch.device("cpu")
DENSE = "tests.networks:Dense"
EPOCHS, BATCH = 10, 30  # of 120 images: 40 steps
LR = {"sgd": 0.05, "nesterov": 0.05, "adam": 0.003}
CELLS = [
    *(("none", 0.0), ("weight_decay", 0.1), ("decoupled_wd", 0.1), ("none", 0.0), ("weight_decay", 0.01)),
    *(("decoupled_wd", 0.01), ("weight_decay", 0.001)),
]


def recipe(optimizer: str, name: str, average: str = "none", momentum: float = 0.9) -> Recipe:
    return Recipe(
        "striped", "", 120, 0, DENSE, EPOCHS, BATCH, LR[optimizer], momentum, optimizer, name,
        warmup=2, average=average, precision="float64",
    )  # fmt: skip


def torchs(trial: Trial, parameters) -> torch.optim.Optimizer:
    """Return torch's optimizer for a trial; of decoupled decay it has Adam's alone."""
    momentum, name, lam = trial.recipe.momentum, trial.recipe.optimizer, trial.lam
    if name == "adam":
        cls = torch.optim.AdamW if trial.regularizer == "decoupled_wd" else torch.optim.Adam
        return cls(parameters, betas=(momentum, 0.999), weight_decay=lam)
    return torch.optim.SGD(parameters, momentum=momentum, nesterov=name == "nesterov", weight_decay=lam)


def trials(optimizer: str, name: str, average: str) -> list[Trial]:
    cells = [(reg if optimizer == "adam" else reg.replace("decoupled_wd", "weight_decay"), lam) for reg, lam in CELLS]
    return [Trial(recipe(optimizer, name, average), *cell, seed, "all") for seed, cell in enumerate(cells)]


@cache
def expected(trial: Trial) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Return the weights after 40 steps of torch's optimizer, and torch's averages of them."""
    images = striped()
    part, _ = split(images.train_labels, 120, 0, trial.seed)
    model = initial_model(DENSE, len(images.classes), trial.seed).double()
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(EMA_DECAY))
    optimizer = torchs(trial, model.parameters())
    for epoch in range(1, EPOCHS + 1):
        # that it is torch's scheduler: test_schedule.py
        optimizer.param_groups[0]["lr"] = schedule.lr(trial.recipe, epoch)
        for positions in batches(120, BATCH, trial.seed, epoch):
            chosen = part[positions]
            optimizer.zero_grad()
            pixels = torch.from_numpy(images.train_images[chosen]).double() / 255
            F.cross_entropy(model(pixels), torch.from_numpy(images.train_labels[chosen])).backward()
            optimizer.step()
            average.update_parameters(model)
    return model.state_dict(), average.module.state_dict()


def alone(trial: Trial, device_data: DeviceData) -> dict[str, torch.Tensor]:
    training = single.Training(trial, device_data.num_classes, CPU)
    part, _ = split(device_data.labels, 120, 0, trial.seed)
    for epoch in range(1, EPOCHS + 1):
        single.train_epoch(training, epoch, device_data, device_data.index(part))
    with training.evaluated():
        return training.weights


def together(some: list[Trial], device_data: DeviceData) -> list[dict[str, torch.Tensor]]:
    training = stack.Training(some, device_data)
    for epoch in range(1, EPOCHS + 1):
        training.epoch(epoch)
    with training.evaluated():
        return [training.stack.weights(row) for row in range(len(some))]


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("optimizer", ["nesterov", "adam"])
def test_forty_steps_are_those_of_torchs_optimizer(optimizer, name):
    """Of seven trials, some with weight decay: one after the other, in a stack of one, and in one of seven."""
    device_data = DeviceData(striped(), CPU)
    for which, average in enumerate(("none", "ema")):
        some = trials(optimizer, name, average)
        found = [
            *zip(some, together(some, device_data), strict=True),
            *zip(some[1:2], together(some[1:2], device_data), strict=True),
            *((trial, alone(trial, device_data)) for trial in some[:3]),
        ]
        for trial, weights in found:
            theirs = expected(dataclasses.replace(trial, recipe=recipe(optimizer, name)))[which]
            for part, w in theirs.items():
                torch.testing.assert_close(weights[part], w, rtol=0, atol=1e-10)


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(OPTIMIZERS), st.floats(0.1, 0.95), st.integers(0, 2**31), st.sampled_from([0.0, 1e-3, 1.0]))
def test_any_gradients_move_weights_as_torchs_optimizer_does(name, momentum, seed, lam):
    """Large, tiny and zero ones, given as tensors, expanded ones and products, of two trials."""
    generator = torch.Generator().manual_seed(seed)
    start = torch.randn(2, 3, 4, generator=generator, dtype=torch.float64)
    some = [
        Trial(recipe(name, "constant", momentum=momentum), "weight_decay" if lam else "none", lam, s) for s in (0, 1)
    ]
    ours = [start.clone() for _ in range(3)]
    optimizer = Optimizer(ours, some)
    optimizer.begin_epoch(EPOCHS)
    theirs = [start.clone() for _ in range(3)]
    oracle = torchs(some[0], theirs)
    oracle.param_groups[0]["lr"] = some[0].recipe.lr
    for scale in (1.0, 1e3, 1e-3, 0.0, 1.0):
        left, right = (torch.randn(2, 5, n, generator=generator, dtype=torch.float64) for n in (3, 4))
        product = Product(scale * left, right)
        one = scale * torch.randn(2, 1, 4, generator=generator, dtype=torch.float64)
        plain = scale * torch.randn(2, 3, 4, generator=generator, dtype=torch.float64)
        for w, g in zip(theirs, (product.formed(), one.expand(2, 3, 4), plain), strict=True):
            w.grad = g.clone()
        oracle.step()
        optimizer.step([product, one.expand(2, 3, 4), plain])
        for w, other in zip(ours, theirs, strict=True):
            torch.testing.assert_close(w, other, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_gradients_are_left_as_they_are_where_no_regularizer_acts(name):
    g = torch.randn(1, 3, 4)
    before = g.clone()
    Optimizer([torch.randn(1, 3, 4)], [Trial(recipe(name, "constant"), "none", 0.0, 0)]).step([g])
    assert torch.equal(g, before)


@pytest.mark.parametrize("name", ["nesterov", "adam"])
def test_the_notebooks_stack_forms_the_products_that_sgd_does_not(name, tmp_path):
    digits = data.load("digits", tmp_path)
    large = Recipe("digits", "", 60, 0, NOTEBOOK, 1, 30, LR[name], 0.9, name, "constant", precision="float64")
    some = [Trial(large, *cell, 0) for cell in (("none", 0.0), ("l1", 1e-4))]
    device_data = DeviceData(digits, CPU)
    training = stack.Training(some, device_data)
    training.epoch(1)
    for row, trial in enumerate(some):
        one = single.Training(trial, device_data.num_classes, CPU)
        single.train_epoch(one, 1, device_data, training.train_part[row])
        for part, w in one.weights.items():
            torch.testing.assert_close(training.stack.weights(row)[part], w, rtol=0, atol=1e-9, msg=part)


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("regularizer", ["l1_prox", "decoupled_wd", "imp"])
def test_a_part_at_a_time_is_the_whole(name, regularizer, monkeypatch):
    """A CPU's cache is smaller than a layer: each part has its own state, tau and mask."""
    found = []
    for chunk in (8, 1 << 18):
        monkeypatch.setattr(optimizing, "CHUNK", chunk)
        generator = torch.Generator().manual_seed(0)
        w = torch.randn(2, 6, 5, generator=generator)
        optimizer = Optimizer([w], [Trial(recipe(name, "constant"), regularizer, 0.05, s) for s in (0, 1)])
        assert len(optimizer.pieces[0]) == (6 if chunk == 8 else 1)
        for epoch in (1, 2, 3):
            optimizer.step([torch.randn(2, 6, 5, generator=generator)])
            optimizer.end_epoch(epoch)
        found.append(w)
    assert torch.equal(*found)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_all_trials_at_once_as_on_a_gpu_are_one_regularizer_after_the_other(name):
    cells = [("none", 0.0), ("l1_prox", 50.0), ("decoupled_wd", 0.5), ("elastic_net", 0.1), ("imp", 0.9), ("l2", 0.1)]
    some, found = [Trial(recipe(name, "constant"), *cell, seed) for seed, cell in enumerate(cells)], []
    for at_once in (False, True):
        generator = torch.Generator().manual_seed(0)
        w = torch.randn(6, 6, 5, generator=generator)
        optimizer = Optimizer([w], some)
        if at_once:
            covering = [group for group in optimizer.groups if group.covers(0)]
            terms = (Term(group, group.rows, group.column(w), group.masks[0]) for group in covering)
            optimizer.pieces = [[Piece((slice(None),), tuple(terms))]]
        for epoch in (1, 2, 3):
            optimizer.step([torch.randn(6, 6, 5, generator=generator)])
            optimizer.end_epoch(epoch)
        assert not optimizer.failed
        found.append(w)
    assert (found[0][1] == 0).any()
    assert torch.equal(*found)


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize(
    "regularizer", ["one_shot", "imp", "random_pruning", "random_at_init", "tests.plugins:PrunesAndMoves"]
)
def test_what_is_pruned_stays_exactly_zero(name, regularizer):
    generator = torch.Generator().manual_seed(0)
    w = torch.randn(2, 10, 10, generator=generator)
    optimizer = Optimizer([w], [Trial(recipe(name, "constant"), regularizer, 0.8, s) for s in (0, 1)])
    for epoch in range(1, EPOCHS + 1):
        optimizer.begin_epoch(epoch)
        zero = w == 0
        for _ in range(3):
            optimizer.step([torch.randn(2, 10, 10, generator=generator)])
            assert torch.equal(w == 0, zero)
        optimizer.end_epoch(epoch)
    assert ((w == 0).sum((1, 2)) == 80).all()


def test_adam_counts_its_steps_where_the_weights_are():
    """A recorded step could read nothing back, and would repeat what the host counts: meta tensors have no numbers."""
    meta = torch.empty(2, 3, 4, device="meta")
    rule = Adam([meta], 0.9)
    assert rule.steps.device == meta.device
    rule.begin_step()
    assert rule.move(0, (slice(None),), meta, meta, 0.1).device == meta.device
    assert rule.state.keys() == {"momentum.0", "square.0", "steps"}


def test_a_stacks_memory_counts_what_an_optimizer_keeps(images):
    sizes = {
        name: stacked.bytes_per_trial(Trial(recipe(name, "constant"), "none", 0.0, 0), DeviceData(images, CPU))
        for name in OPTIMIZERS
    }
    weights = sum(w.nbytes for w in initial_model(DENSE, 4, 0).double().state_dict().values())
    assert sizes["nesterov"] == sizes["sgd"]
    assert sizes["adam"] == sizes["sgd"] + 3 * weights


def test_every_optimizer_of_a_recipe_is_known():
    assert set(update_rules.RULES) == set(OPTIMIZERS)
