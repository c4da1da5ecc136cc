import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, log_loss

from regbench import metrics


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**31), count=st.integers(10, 200))
def test_classification_agrees_with_scikit_learn(seed, count):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(count, 5, generator=generator) * 3
    labels = torch.arange(count) % 5
    found = metrics.classification(logits, labels)
    assert found["accuracy"] == accuracy_score(labels, logits.argmax(1))
    expected = log_loss(labels, logits.double().softmax(1).numpy(), labels=range(5))
    assert found["loss"] == pytest.approx(expected, rel=1e-5)


def test_sparsity_counts_weights_and_not_biases():
    weights = {
        "a.weight": torch.tensor([[0.0, -0.0, 5e-4, 1.0]]),
        "a.bias": torch.zeros(3),
        "steps": torch.tensor(7),
    }
    found = metrics.summary(weights)
    assert found["sparsity/exact"] == 0.5  # minus zero is zero
    assert found["sparsity/abs_1e-3"] == 0.75
    assert found["sparsity/abs_1e-4"] == 0.5
    assert found["compression_ratio"] == pytest.approx(7 / 2)  # all floating parameters, biases too
    assert found["norm/max"] == 1.0


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_norms_and_layers_agree_with_numpy(seed):
    random = np.random.default_rng(seed)
    arrays = [random.normal(size=(7, 3)), random.normal(size=(2, 3, 4))]
    found = metrics.tensor_measures([torch.from_numpy(a) for a in arrays])
    flat = np.concatenate([a.flatten() for a in arrays])
    assert found["norm/l1"] == pytest.approx(np.abs(flat).sum(), rel=1e-12)
    assert found["norm/l2"] == pytest.approx(np.linalg.norm(flat), rel=1e-12)
    rows = metrics.layers({"one": torch.from_numpy(arrays[0]), "two": torch.from_numpy(arrays[1])})
    assert [(row["layer"], row["shape"], row["weights"]) for row in rows] == [("one", "7x3", 21), ("two", "2x3x4", 24)]


def test_all_zero_weights_have_no_compression_ratio():
    assert math.isnan(metrics.summary({"w": torch.zeros(2, 2)})["compression_ratio"])


def test_collapsed_means_that_the_image_does_not_matter():
    same = torch.tensor([[1.0, 2.0]]).repeat(5, 1)
    assert metrics.collapsed(same)
    assert not metrics.collapsed(same + torch.arange(5)[:, None] * 1e-3)
    assert not metrics.collapsed(torch.full((5, 2), torch.nan))


def test_gaps_are_positive_when_the_training_images_are_known_better():
    right, wrong = torch.tensor([[5.0, 0.0]] * 4), torch.tensor([[5.0, 0.0], [0.0, 5.0]] * 2)
    labels = torch.zeros(4, dtype=torch.int64)
    found = metrics.final({"w": torch.ones(2, 2)}, (right, labels), (wrong, labels))
    assert found["gap/accuracy"] == 0.5
    assert found["gap/loss"] > 0
    assert found["test/accuracy"] == 0.5
