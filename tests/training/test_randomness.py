"""The random numbers that are given to regularizers: functions of seed, kind, epoch and place."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from regbench.training import randomness
from regbench.training.randomness import AUGMENT, DENSE_INPUT, Stream

CPU = torch.device("cpu")


def drawn(seeds: list[int], epoch: int, *counts: int, kind: int = DENSE_INPUT) -> list[np.ndarray]:
    stream = Stream(seeds, kind, CPU)
    stream.begin_epoch(epoch)
    return [stream.uniform((len(seeds), count)).numpy() for count in counts]


def reference(seed: int, kind: int, epoch: int, first: int, count: int) -> np.ndarray:
    """SplitMix64 of the paper, its state after each step mixed, in NumPy's unsigned numbers."""
    start = np.random.SeedSequence([seed, kind, epoch]).generate_state(1, np.uint64)[0] >> np.uint64(1)
    z = start + np.arange(first, first + count, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    halves = (z ^ (z >> np.uint64(31))).view(np.int32) >> 8
    return (halves * 2.0**-24 + 0.5).astype(np.float32)


@given(
    st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=5),
    st.integers(1, 1000),
    st.lists(st.integers(1, 300), min_size=1, max_size=4),
    st.integers(1, 200),
)
@settings(deadline=None)
def test_they_are_splitmix64_whatever_is_made_at_once(seeds, epoch, counts, part):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(randomness, "PART", part)
        found = drawn(seeds, epoch, *counts)
    for row, seed in enumerate(seeds):
        first = 0
        for numbers, count in zip(found, counts, strict=True):
            places = -(-count // 2)
            assert np.array_equal(numbers[row], reference(seed, DENSE_INPUT, epoch, first, places)[:count])
            first += places


def test_another_seed_kind_or_epoch_has_others():
    base, *others = (
        drawn([seed], epoch, 1000, kind=kind)[0][0]
        for seed, epoch, kind in ((3, 5, AUGMENT), (4, 5, AUGMENT), (3, 6, AUGMENT), (3, 5, DENSE_INPUT))
    )
    for other in others:
        assert abs(np.corrcoef(base, other)[0, 1]) < 0.15
        assert not np.array_equal(base, other)


def test_an_epoch_begins_where_it_does_after_any_other():
    stream = Stream([7], AUGMENT, CPU)
    for epoch in (1, 2):
        stream.begin_epoch(epoch)
        last = stream.uniform((1, 11))
        stream.uniform((1, 5))
    assert np.array_equal(last.numpy(), drawn([7], 2, 11, kind=AUGMENT)[0])


def test_the_tensors_that_a_recorded_step_reads_stay_where_they_are():
    stream = Stream([1, 2], AUGMENT, CPU)
    before = [stream._start.data_ptr(), stream._places.data_ptr()]
    stream.begin_epoch(3)
    stream.uniform((2, 4))
    assert [stream._start.data_ptr(), stream._places.data_ptr()] == before


def test_they_are_uniform_and_independent():
    """At a level of 1e-4, of fixed seeds."""
    rows = np.concatenate([drawn([seed], 1, 100_000)[0] for seed in range(20)])
    assert rows.min() >= 0
    assert rows.max() < 1
    assert (rows * 2**24 % 1 == 0).all()
    numbers = rows.flatten().astype(float)
    assert stats.kstest(numbers, "uniform").pvalue > 1e-4
    for lag in (1, 2, 3, 64, 2048):
        z = np.corrcoef(numbers[:-lag], numbers[lag:])[0, 1] * len(numbers) ** 0.5
        assert abs(z) < 4, lag
    # of pairs of halves, and of trials with neighbouring seeds
    pairs = np.histogram2d(numbers[::2], numbers[1::2], bins=16)[0]
    assert stats.chisquare(pairs.flatten()).pvalue > 1e-4
    for one, other in pairwise(rows):
        assert abs(np.corrcoef(one, other)[0, 1]) * len(one) ** 0.5 < 4.5
