import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, log_loss

from regbench import networks
from regbench.measures import pruned
from regbench.measures.final import measure
from regbench.measures.logits import calibration, classification, collapsed
from regbench.training.events import Trained
from regbench.trial import Recipe, Trial
from tests.conftest import TINY


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**31), count=st.integers(10, 200))
def test_classification_agrees_with_scikit_learn(seed, count):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(count, 5, generator=generator) * 3
    labels = torch.arange(count) % 5
    found = classification(logits, labels)
    assert found["accuracy"] == accuracy_score(labels, logits.argmax(1))
    expected = log_loss(labels, logits.double().softmax(1).numpy(), labels=range(5))
    assert found["loss"] == pytest.approx(expected, rel=1e-5)


def test_collapsed_means_that_the_image_does_not_matter():
    same = torch.tensor([[1.0, 2.0]]).repeat(5, 1)
    assert collapsed(same)
    assert not collapsed(same + torch.arange(5)[:, None] * 1e-3)
    assert not collapsed(torch.full((5, 2), torch.nan))


def test_gaps_are_positive_when_the_training_images_are_known_better():
    right, wrong = torch.tensor([[5.0, 0.0]] * 4), torch.tensor([[5.0, 0.0], [0.0, 5.0]] * 2)
    labels = torch.zeros(4, dtype=torch.int64)
    trial = Trial(Recipe("x", "f", 4, 0, TINY), "none", 0.0, 0)
    weights = networks.build(TINY, 2).state_dict()
    found = measure(Trained(trial, weights, tuple(weights), right, labels, wrong, labels, 1.0)).metrics
    assert found["gap/accuracy"] == 0.5
    assert found["gap/loss"] > 0
    assert found["test/accuracy"] == 0.5


def test_calibration_by_hand():
    """Four images of two classes: 0.9 right, 0.9 wrong, 0.6 right, 0.6 right.

    The bin of 0.9 holds two, half of them right: 2/4 |1/2 - 0.9| = 0.2; that of 0.6 two right ones: 2/4 |1 - 0.6| = 0.2.
    Brier: (2 * 0.1^2 + 2 * 0.9^2 + 2 * 2 * 0.4^2) / 4 = 0.57.
    """
    probabilities = torch.tensor([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.4, 0.6]], dtype=torch.float64)
    found = calibration(probabilities.log(), torch.tensor([0, 1, 0, 1]))
    assert found["ece"] == pytest.approx(0.4, abs=1e-12)
    assert found["brier"] == pytest.approx(0.57, abs=1e-12)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**31), scale=st.sampled_from([0.0, 0.1, 3.0, 1e4]))
def test_calibration_agrees_with_a_loop_over_bins(seed, scale):
    generator = torch.Generator().manual_seed(seed)
    logits, labels = torch.randn(200, 4, generator=generator) * scale, torch.arange(200) % 4
    confidence, predicted = logits.double().softmax(1).max(1)
    expected = 0.0
    for low in range(15):
        inside = (confidence > low / 15) & (confidence <= (low + 1) / 15)
        if inside.any():
            accuracy = (predicted == labels)[inside].double().mean()
            expected += inside.double().mean() * (accuracy - confidence[inside].mean()).abs()
    found = calibration(logits, labels)
    assert found["ece"] == pytest.approx(float(expected), abs=1e-9)
    assert 0 <= found["brier"] <= 2


def test_a_bin_holds_its_upper_edge():
    """1/3 is the upper edge of the fifth bin, 0.36 is in the sixth: not averaged with each other."""
    probabilities = torch.tensor([[1, 1, 1], [1.08, 0.96, 0.96]], dtype=torch.float64) / 3
    found = calibration(probabilities.log(), torch.tensor([0, 1]))
    assert found["ece"] == pytest.approx((2 / 3 + 0.36) / 2, abs=1e-12)


def test_calibration_of_the_sure_and_of_the_lost():
    right = calibration(torch.tensor([[1e4, 0.0], [0.0, 1e4]]), torch.tensor([0, 1]))
    assert right == {"ece": 0.0, "brier": 0.0}
    assert all(map(math.isnan, calibration(torch.full((2, 2), torch.nan), torch.tensor([0, 1])).values()))


def test_the_largest_share_within_a_point():
    curve = {0.0: 0.70, 0.5: 0.71, 0.8: 0.69, 0.9: 0.6899, 0.95: 0.10}
    assert pruned.measures(curve) == {
        "prune/0": 0.70, "prune/0.5": 0.71, "prune/0.8": 0.69, "prune/0.9": 0.6899, "prune/0.95": 0.10,
        "sparsity_at_1pp": 0.8,
    }  # fmt: skip
    # exactly a point less, though 0.13 - 0.01 is more than 0.12 in floating point
    assert pruned.measures({0.0: 0.13, 0.5: 0.12})["sparsity_at_1pp"] == 0.5
    assert pruned.measures({}) == {}
