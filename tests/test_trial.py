import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regbench.regularizers import cells
from regbench.trial import NEUTRAL, Recipe, Trial, format_lam, format_seeds, grid, parse_seeds, side_by_side

RECIPE = Recipe("folder-name", "f" * 64, train_size=100, val_size=10)


def test_the_baseline_comes_first_and_seeds_are_outermost():
    trials = grid(RECIPE, cells(["l1", "l2"], [1e-3, 1e-4]), [5, 3]).trials
    assert [trial.name for trial in trials[:5]] == [
        "none seed=5",
        "l1 lam=1e-3 seed=5",
        "l1 lam=1e-4 seed=5",
        "l2 lam=1e-3 seed=5",
        "l2 lam=1e-4 seed=5",
    ]
    assert [trial.seed for trial in trials] == [5] * 5 + [3] * 5


def test_the_baseline_can_be_left_out_and_is_never_there_twice():
    assert {t.regularizer for t in grid(RECIPE, cells(["l1"], [1e-3], baseline=False), [0]).trials} == {"l1"}
    assert len(grid(RECIPE, cells(["none"], None), [0]).trials) == 1
    assert len(grid(RECIPE, cells(["none", "l1"], [1e-3]), [0]).trials) == 2


def test_auto_is_each_regularizers_own_grid():
    assert len(grid(RECIPE, cells(["l1", "l2"], None), [0, 1]).trials) == 2 * (1 + 7 + 7)


def test_the_key_is_of_what_decides_the_result():
    base = Trial(RECIPE, "l1", 1e-3, 0)
    others = [
        dataclasses.replace(base, lam=1e-4),
        dataclasses.replace(base, seed=1),
        dataclasses.replace(base, regularizer="l2"),
        dataclasses.replace(base, scope="all"),
    ]
    changed = {
        "fingerprint": "0" * 64, "train_size": 90, "val_size": 5, "epochs": 3, "batch_size": 7, "lr": 0.1,
        "momentum": 0.5, "model": "tests.networks:Tiny", "precision": "bf16", "schedule": "step", "warmup": 2,
        "average": "ema", "optimizer": "adam", "augment": "flip_crop", "input_noise": 0.1,
    }  # fmt: skip
    recipes = [dataclasses.replace(RECIPE, **{name: value}) for name, value in changed.items()]
    others += [dataclasses.replace(base, recipe=recipe) for recipe in recipes]
    keys = {trial.key for trial in [base, *others]}
    assert len(keys) == 1 + len(others)
    assert set(changed) | {"dataset"} == {field.name for field in dataclasses.fields(Recipe)}


def test_a_recipe_of_earlier_versions_keeps_its_id_and_its_keys(monkeypatch):
    """They had one optimizer, no schedule, no average and no augmentation: what was trained then is finished."""
    monkeypatch.setattr("regbench.identity.RESULT_VERSION", 1)
    recipe = dataclasses.replace(RECIPE, **NEUTRAL)
    assert recipe.id == "6db67f4a2f60"
    key = "655d7161677c5df7394ca3277e2ad751799c2f94fc9b6a89dec989c7826120a7"
    assert Trial(recipe, "l1", 1e-3, 0).key == key


def test_a_recipe_says_what_is_not_as_it_was():
    recipe = dataclasses.replace(RECIPE, **NEUTRAL)
    assert str(recipe).endswith("lr 0.01, momentum 0.9, float32")
    recipe = dataclasses.replace(recipe, optimizer="adam", schedule="cosine", warmup=1, average="ema")
    assert str(recipe).endswith(
        "momentum 0.9, optimizer adam, cosine schedule, warm-up 1 epoch, weights averaged (ema), float32"
    )
    recipe = dataclasses.replace(recipe, average="none", augment="flip_crop", input_noise=0.1)
    assert str(recipe).endswith("warm-up 1 epoch, augmented (flip_crop), input noise 0.1, float32")


def test_the_key_does_not_know_where_the_data_is():
    elsewhere = dataclasses.replace(RECIPE, dataset="another-folder")
    assert Trial(RECIPE, "l1", 1e-3, 0).key == Trial(elsewhere, "l1", 1e-3, 0).key
    assert RECIPE.id == elsewhere.id


def test_the_key_is_the_same_in_another_process():
    code = (
        "from regbench.trial import *; "
        "print(Trial(Recipe('x', 'f'*64, train_size=100, val_size=10), 'l1', 1e-3, 0).key)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parent.parent,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout.strip() == Trial(RECIPE, "l1", 1e-3, 0).key


def test_a_sweeps_id_does_not_depend_on_the_order_of_arguments():
    first = grid(RECIPE, cells(["l1", "l2"], [1e-3, 1e-4]), [0, 1])
    assert first.id == grid(RECIPE, cells(["l2", "l1"], [1e-4, 1e-3]), [1, 0]).id
    assert first.id != grid(RECIPE, cells(["l1", "l2"], [1e-3]), [0, 1]).id


def test_nothing_that_a_plan_needs_imports_torch():
    """A plan is to be answered at once, and torch takes seconds to import."""
    code = "import sys, regbench.__main__, regbench.plan, regbench.engines.select; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parent.parent, timeout=60).returncode == 0


@pytest.mark.parametrize(
    ("lam", "text"), [(1e-4, "1e-4"), (3.5e-5, "3.5e-5"), (2.0, "2"), (0.25, "0.25"), (0.1, "0.1"), (0.01, "1e-2")]
)
def test_lams_are_written_short(lam, text):
    assert format_lam(lam) == text


@given(st.floats(min_value=1e-30, max_value=1e30))
def test_a_written_lam_reads_back_the_same(lam):
    assert float(format_lam(lam)) == lam


@given(st.sets(st.integers(0, 100), max_size=30))
def test_written_seeds_read_back_the_same(seeds):
    assert parse_seeds(format_seeds(seeds)) == tuple(sorted(seeds))


def test_learning_rates_that_are_nearly_the_same_are_told_apart():
    rates = (0.1234567, 0.1234568)
    recipes = [dataclasses.replace(RECIPE, lr=lr) for lr in rates]
    both = side_by_side([grid(recipe, cells(["l1"], [1e-3]), [0]) for recipe in recipes])
    assert both.methods == ("l1 lr=0.1234567", "l1 lr=0.1234568")
    assert [f"lr {lr}," in str(recipe) for lr, recipe in zip(rates, recipes, strict=True)] == [True, True]


def test_recipes_that_differ_in_something_else_are_not_named_by_their_learning_rate():
    """As those of the notebook's experiments."""
    parts = [
        grid(RECIPE, cells(["l1", "l2"], [1e-3]), [0]),
        grid(dataclasses.replace(RECIPE, epochs=9), cells(["l1_prox"], [1e-3]), [0]),
    ]
    both = side_by_side(parts)
    assert both.methods == ("l1", "l2", "l1_prox") and both.family == 2
    assert both.name(both.trials[0]) == "none seed=0"
