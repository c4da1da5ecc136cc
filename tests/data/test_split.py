import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regbench.data.split import check, check_sizes, split
from regbench.errors import UserError

LABELS = np.random.default_rng(0).permutation(np.repeat(np.arange(5), 40))


@settings(max_examples=50, deadline=None)
@given(train_size=st.integers(20, 195) | st.just(200), share=st.floats(0.1, 0.7), seed=st.integers(0, 2**32 - 1))
def test_parts_are_disjoint_stratified_and_of_the_size_asked_for(train_size, share, seed):
    val_size = max(5, int(train_size * share))
    train, validation = split(LABELS, train_size, val_size, seed)
    assert len(train) == train_size - val_size
    assert len(validation) == val_size
    assert not set(train) & set(validation)
    for part in (train, validation):
        counts = np.bincount(LABELS[part], minlength=5)
        assert counts.max() - counts.min() <= 2  # the classes are of equal size


def test_a_seed_decides_the_validation_part_but_not_the_subset():
    parts = [split(LABELS, 100, 20, seed) for seed in (0, 0, 1)]
    assert np.array_equal(parts[0][1], parts[1][1])
    assert not np.array_equal(parts[0][1], parts[2][1])
    assert len({tuple(sorted([*train, *validation])) for train, validation in parts}) == 1


def test_no_validation_part():
    train, validation = split(LABELS, 200, 0, 0)
    assert np.array_equal(train, np.arange(200))
    assert len(validation) == 0


@pytest.mark.parametrize(
    ("train_size", "val_size", "message"),
    [
        (201, 0, "train_size=201 is out of range: this data set has 200"),
        (4, 0, "train_size=4 is out of range"),
        (198, 0, "train_size=198 leaves fewer images out than there are classes"),
        (100, 96, "val_size=96 is out of range for 100 training images in 5 classes: give 0 .* or 5 to 95"),
        (100, 4, "val_size=4 is out of range"),
        (100, 200, "val_size=200 is out of range"),
    ],
)
def test_sizes_that_cannot_be_are_named(train_size, val_size, message):
    with pytest.raises(UserError, match=message):
        check_sizes(LABELS, train_size, val_size)


@pytest.mark.parametrize(
    ("counts", "train_size", "val_size"),
    [((50, 50, 1), 101, 10), ((500, 500, 10), 100, 10), ((500, 500, 2), 1002, 100)],
)
def test_a_class_too_rare_to_divide_is_named(counts, train_size, val_size):
    labels = np.repeat(np.arange(3), counts)
    with pytest.raises(UserError, match=f"class number 2 has only {counts[2]} of"):
        split(labels, train_size, val_size, 0)


@pytest.mark.parametrize("rarest", [1, 2, 3, 5, 30])
@pytest.mark.parametrize(("train_size", "val_size"), [(200, 0), (200, 20), (100, 10), (100, 90)])
def test_the_check_refuses_what_the_split_refuses(rarest, train_size, val_size):
    labels = np.repeat(np.arange(3), [rarest, 100 - rarest, 100])
    outcomes = []
    for function in (check, split):
        try:
            function(labels, train_size, val_size, 0)
            outcomes.append("")
        except UserError as error:
            outcomes.append(str(error))
    assert outcomes[0] == outcomes[1]
