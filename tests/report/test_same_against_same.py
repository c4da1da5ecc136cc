"""A/A: real trainings between which nothing differs must not be told apart."""

import numpy as np
import pytest
import torch

from regbench import data, metrics
from regbench.engine import sequential
from regbench.engine.events import Trained
from regbench.report.statistics import Grid, Verdict, compare
from regbench.sweep import Recipe, grid
from tests.conftest import TINY

LAMS = (1e-3, 1e-2)


@pytest.fixture(scope="module")
def accuracies(tmp_path_factory) -> dict[tuple[str, float], np.ndarray]:
    """Test accuracies [seed] on digits by regularizer and lam: `none` with 20 seeds, the others with 10."""
    digits = data.load("digits", tmp_path_factory.mktemp("none"))
    recipe = Recipe("digits", digits.fingerprint, len(digits.train_labels), 144, TINY, epochs=3, lr=0.1)
    trials = [
        *grid(recipe, ["none"], None, range(20)).trials,
        *grid(recipe, ["l2"], LAMS, range(10), baseline=False).trials,
        *grid(recipe, ["weight_decay"], [2 * lam for lam in LAMS], range(10), baseline=False).trials,
    ]
    found: dict[tuple[str, float], list[float]] = {}
    for event in sequential.train(trials, digits, torch.device("cpu")):
        if isinstance(event, Trained):
            accuracy = metrics.classification(event.test_logits, event.test_labels)["accuracy"]
            found.setdefault((event.trial.regularizer, event.trial.lam), []).append(accuracy)
    return {cell: np.array(values) for cell, values in found.items()}


def verdict(test: list[np.ndarray], baseline: np.ndarray) -> Verdict:
    grid = Grid(np.arange(1, len(test) + 1), np.array(test), np.array(test))
    return compare({"same": grid}, baseline)["same"].verdict


def test_the_trainings_do_learn_and_differ_between_seeds(accuracies):
    none = accuracies["none", 0.0]
    assert none.mean() > 0.7
    assert len(set(none)) > 5


def test_none_against_none_with_other_seeds(accuracies):
    none = accuracies["none", 0.0]
    assert verdict([none[10:]], none[:10]) in (Verdict.NO_DIFFERENCE, Verdict.EQUIVALENT)


@pytest.mark.parametrize("lam", LAMS)
def test_l2_against_weight_decay_at_twice_the_lam(accuracies, lam):
    found = verdict([accuracies["l2", lam]], accuracies["weight_decay", 2 * lam])
    assert found in (Verdict.NO_DIFFERENCE, Verdict.EQUIVALENT)


def test_a_regularizer_that_ruins_the_network_is_told_apart(accuracies):
    """The comparison can fail: a loss of half the accuracy is seen."""
    none = accuracies["none", 0.0][:10]
    assert verdict([none / 2], none) is Verdict.WORSE
