import numpy as np
import pytest

from regbench import data
from regbench.data.images import Images
from regbench.errors import UserError
from tests.conftest import striped


def test_digits_are_real_images_that_need_no_files(tmp_path):
    digits = data.load("digits", tmp_path / "nowhere")
    assert len(digits.train_labels) + len(digits.test_labels) == 1797
    assert np.bincount(digits.test_labels).min() >= 34
    assert digits.train_images.max() == 255
    # a network is not needed to see that they are digits: the nearest class mean gets most of them
    means = np.stack([digits.train_images[digits.train_labels == k].mean(0) for k in range(10)])
    distance = ((digits.test_images[:, None, 0].astype(float) - means[None, :, 0]) ** 2).sum((2, 3))
    assert (distance.argmin(1) == digits.test_labels).mean() > 0.85


def test_the_fingerprint_sees_every_part():
    base = striped()
    parts = [base.train_images, base.train_labels, base.test_images, base.test_labels]
    prints = {base.fingerprint, Images("renamed", base.classes, *parts).fingerprint}
    assert len(prints) == 1
    for position in range(4):
        changed = [array.copy() for array in parts]
        if position % 2:
            changed[position][:2] = changed[position][1::-1]
        else:
            changed[position][0, 0, 0, 0] ^= 1
        prints.add(Images("striped", base.classes, *changed).fingerprint)
    prints.add(Images("striped", tuple(reversed(base.classes)), *parts).fingerprint)
    assert len(prints) == 6


def test_a_class_without_images_is_named():
    base = striped()
    with pytest.raises(UserError, match="no train images for class extra"):
        Images("x", (*base.classes, "extra"), base.train_images, base.train_labels, base.test_images, base.test_labels)


def test_an_unknown_data_set_is_answered_with_the_known_ones(tmp_path):
    with pytest.raises(UserError, match="dataset='mnist' is unknown; accepted: cifar10, digits, fashion_mnist, folder"):
        data.load("mnist", tmp_path)
