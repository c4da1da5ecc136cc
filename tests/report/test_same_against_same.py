"""A/A: real trainings between which nothing differs must not be told apart."""

import numpy as np
import pytest
import torch

from regbench import data
from regbench.engines import sequential
from regbench.measures.logits import classification
from regbench.regularizers import cells
from regbench.statistics.verdict import Verdict, judge
from regbench.training.device_data import DeviceData
from regbench.training.events import Trained
from regbench.trial import Recipe, grid
from tests.conftest import TINY

SEEDS = 6
LAM = 1e-3


@pytest.fixture(scope="module")
def accuracies(tmp_path_factory) -> dict[str, np.ndarray]:
    """Test accuracies [seed] on digits: `none` with twice as many seeds as the others."""
    digits = data.load("digits", tmp_path_factory.mktemp("none"))
    recipe = Recipe("digits", digits.fingerprint, 600, 60, TINY, epochs=10, batch_size=50, lr=0.05)
    trials = [
        *grid(recipe, cells(["none"], None), range(2 * SEEDS)).trials,
        *grid(recipe, cells(["l2"], [LAM], baseline=False), range(SEEDS)).trials,
        *grid(recipe, cells(["weight_decay"], [2 * LAM], baseline=False), range(SEEDS)).trials,
    ]
    found: dict[str, list[float]] = {}
    for event in sequential.train(trials, DeviceData(digits, torch.device("cpu"))):
        if isinstance(event, Trained):
            accuracy = classification(event.test_logits, event.test_labels)["accuracy"]
            found.setdefault(event.trial.regularizer, []).append(accuracy)
    return {name: np.array(values) for name, values in found.items()}


def verdict(test: np.ndarray, baseline: np.ndarray) -> Verdict:
    return judge({"same": test - baseline}, [SEEDS])["same"].verdict


def test_the_trainings_do_learn_and_differ_between_seeds(accuracies):
    assert accuracies["none"].mean() > 0.85
    assert len(set(accuracies["none"])) > 5


def test_none_against_none_with_other_seeds(accuracies):
    none = accuracies["none"]
    assert verdict(none[SEEDS:], none[:SEEDS]) in (Verdict.NO_DIFFERENCE, Verdict.EQUIVALENT)


def test_l2_against_weight_decay_at_twice_the_lam(accuracies):
    assert verdict(accuracies["l2"], accuracies["weight_decay"]) in (Verdict.NO_DIFFERENCE, Verdict.EQUIVALENT)


def test_a_regularizer_that_ruins_the_network_is_told_apart(accuracies):
    """The comparison can fail: a loss of half the accuracy is seen."""
    none = accuracies["none"][:SEEDS]
    assert verdict(none / 2, none) is Verdict.WORSE
