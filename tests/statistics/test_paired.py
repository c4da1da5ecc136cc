"""The paired test against Fisher's and Student's data, SciPy, all patterns of signs, and its own laws."""

import math
from fractions import Fraction
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from regbench.statistics import paired
from regbench.statistics.paired import Interval, PairedTest, noise

# Darwin (1876), heights of 15 pairs of maize, crossed minus self-fertilized, in eighths of an inch, as in
# Fisher (1935), The Design of Experiments, sections 17 and 21; also the data set ZeaMays of R's HistData.
DARWIN = np.array([49, -67, 8, 16, 6, 23, 28, 41, 14, 29, 56, 24, 75, 60, -48], dtype=float)

# Student (1908): extra hours of sleep of ten patients under two drugs, second minus first; the data set sleep of R.
SLEEP = np.array([1.2, 2.4, 1.3, 1.3, 0.0, 1.0, 1.8, 0.8, 4.6, 1.4])

ALPHAS = st.one_of(st.sampled_from([0.05, 0.05 / 3, 0.05 / 14, 2 / 2**8, 0.5]), st.floats(1e-4, 0.9))


def differences(n):
    """Differences between accuracies of 1,000 images: a grid coarse enough to produce ties and zeros."""
    spans = st.sampled_from([1, 5, 50, 1000])
    return spans.flatmap(lambda span: arrays(np.int64, n, elements=st.integers(-span, span))).map(lambda k: k / 1000)


@pytest.fixture
def few_flips(monkeypatch):
    """Have a group of 16 patterns stand for all of them, as 2**15 do above 15 pairs."""
    monkeypatch.setattr(paired, "MOST_FLIPS", 4)
    paired._sets.cache_clear()
    yield
    paired._sets.cache_clear()


def test_darwins_maize():
    # Fisher (1935), section 21: 863 of the 32,768 patterns reach the observed sum of 314, on either side.
    assert DARWIN.sum() == 314
    assert PairedTest(DARWIN).p_value == 2 * 863 / 2**15


def test_students_sleep():
    # No difference is negative and one is zero: that one's sign is free, so that four of 1,024 patterns count.
    assert PairedTest(SLEEP).p_value == 4 / 2**10


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 9).flatmap(differences))
def test_p_value_is_scipys(values):
    whole = np.rint(1000 * values)  # SciPy breaks ties of a mean that is zero but for rounding
    expected = stats.permutation_test((whole,), np.mean, permutation_type="samples", n_resamples=np.inf)
    assert PairedTest(values).p_value == pytest.approx(expected.pvalue)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 17).flatmap(differences), ALPHAS, st.data())
def test_interval_holds_what_the_test_does_not_reject(values, alpha, data):
    interval = PairedTest(values).interval(alpha)
    members = data.draw(st.lists(st.integers(0, len(values) - 1), min_size=1, unique=True), label="bound")
    anywhere = data.draw(st.integers(-2000, 2000), label="thousandths") / 1000
    for delta in (0.0, anywhere, float(np.mean(values[members])), interval.low, interval.high):
        if math.isfinite(delta):
            rejected = PairedTest(values - delta).p_value <= alpha + 1e-12
            assert rejected == (not interval.low <= round(delta, 12) <= interval.high)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 17).flatmap(differences), ALPHAS, st.randoms(use_true_random=False))
def test_laws(values, alpha, random):
    test = PairedTest(values)
    interval = test.interval(alpha)
    assert 2 / 2 ** min(len(values), 15) <= test.p_value <= 1
    assert interval.low - 1e-12 <= interval.mean <= interval.high + 1e-12
    assert (interval.n, interval.level) == (len(values), 1 - alpha)
    wider = test.interval(alpha / 2)
    assert wider.low <= interval.low and interval.high <= wider.high
    mirrored = PairedTest(-values)
    assert mirrored.p_value == test.p_value
    assert (-mirrored.interval(alpha).high, -mirrored.interval(alpha).low) == (interval.low, interval.high)
    moved = PairedTest(values + 0.25).interval(alpha)
    assert (moved.low, moved.high) == pytest.approx((interval.low + 0.25, interval.high + 0.25), abs=1e-11)
    assert PairedTest(4 * values).p_value == test.p_value
    if len(values) <= 15:
        assert PairedTest(random.sample(list(values), len(values))).p_value == test.p_value


def rejected(magnitudes, alpha):
    """Return the share of all patterns of signs with which the test rejects: its error if nothing differs."""
    tests = [PairedTest(np.multiply(magnitudes, signs)) for signs in product((-1, 1), repeat=len(magnitudes))]
    hits = [test.p_value <= alpha for test in tests]
    intervals = [test.interval(alpha) for test in tests]
    assert hits == [not interval.low <= 0 <= interval.high for interval in intervals]
    return Fraction(sum(hits), len(hits))


@settings(max_examples=15, deadline=None)
@given(arrays(np.int64, 8, elements=st.integers(0, 30)), st.integers(1, 40))
def test_error_is_never_above_the_level(magnitudes, count):
    assert rejected(magnitudes / 1000, count / 128) <= Fraction(count, 128)


def test_error_is_the_level_without_ties():
    magnitudes = np.array([1, 2, 4, 8, 16, 32, 64, 128]) / 1000
    for count in (1, 3, 6, 20):
        assert rejected(magnitudes, count / 128) == Fraction(count, 128)


def test_error_is_the_level_also_where_a_group_stands_for_all_patterns(few_flips):
    # no two sets of either have the same sum: powers of two, and the set of Conway & Guy (1968)
    for magnitudes in (2 ** np.arange(8), np.array([40, 60, 71, 77, 80, 82, 83, 84])):
        assert [rejected(magnitudes / 1000, count / 8) for count in (1, 2, 3)] == [Fraction(k, 8) for k in (1, 2, 3)]
    assert rejected(np.array([0, 0, 1, 1, 1, 2, 2, 9]) / 1000, 2 / 8) <= Fraction(2, 8)


@pytest.mark.parametrize("draw", ["normal", "standard_cauchy", "laplace"])
def test_coverage_of_many_pairs(draw):
    values = getattr(np.random.default_rng(1), draw)(size=(600, 20))
    intervals = [PairedTest(row).interval(0.1) for row in values]
    covered = sum(interval.low <= 0 <= interval.high for interval in intervals)
    assert stats.binomtest(covered, 600, 0.9).pvalue > 1e-3


def test_a_group_of_patterns_comes_close_to_all(monkeypatch):
    rows = np.random.default_rng(2).normal(0.3, 1, (50, 15))
    exact = np.array([PairedTest(row).p_value for row in rows])
    monkeypatch.setattr(paired, "MOST_FLIPS", 14)
    paired._sets.cache_clear()
    grouped = np.array([PairedTest(row).p_value for row in rows])
    paired._sets.cache_clear()
    assert grouped != pytest.approx(exact, abs=1e-9)
    assert grouped == pytest.approx(exact, abs=0.02)


@pytest.mark.parametrize("n", range(16, 61, 4))
def test_every_pair_has_a_sign_of_its_own(n):
    flipped = paired._sets(n) > 0
    assert len(np.unique(flipped, axis=1).T) == n
    assert flipped.mean(axis=0) == pytest.approx(np.full(n, 0.5), abs=0.001)


@pytest.mark.parametrize("n", [1, 2, 7, 15, 40])
def test_unanimous_pairs_give_the_smallest_p_value(n):
    test = PairedTest(np.arange(1, n + 1))
    assert test.p_value == 2 / 2 ** min(n, 15)
    bounded = test.interval(test.p_value)
    assert bounded.bounded and (bounded.low, bounded.high) == ((1, n) if n <= 15 else (bounded.low, bounded.high))
    assert not test.interval(0.99 * test.p_value).bounded


def test_equal_differences_have_an_interval_without_width():
    interval = PairedTest([0.001] * 8).interval(0.05)
    assert (interval.low, interval.high) == (0.001, 0.001)
    nothing = PairedTest(np.zeros(10))
    assert nothing.p_value == 1 and nothing.interval(0.05).within(0)


def test_ties_that_rounding_breaks_are_counted():
    # The sum is 5.6e-17 in binary and zero in decimal, which every pattern reaches.
    assert PairedTest([0.1, 0.2, -0.3]).p_value == 1


def test_one_outlier_neither_makes_nor_hides_a_difference():
    quiet = np.array([0.001, -0.002, 0.001, -0.001, 0.002, -0.001, 0.001, -0.001, 0.001])
    lucky = PairedTest([*quiet, 0.5])
    assert lucky.mean > 0.05 and lucky.p_value > 0.3 and lucky.interval(0.05).low < 0
    sure = PairedTest([*(0.01 + quiet), 0.5])
    assert sure.p_value == 2 / 2**10 and 0.008 < sure.interval(0.05).low < 0.012


@pytest.mark.parametrize("bad", [[], [0.1, math.nan], [math.inf], [[0.1, 0.2]]])
def test_values_that_are_no_sample_are_refused(bad):
    with pytest.raises(ValueError, match="finite numbers"):
        PairedTest(bad)


def test_within_includes_the_bounds():
    interval = Interval(0.0, -0.005, 0.004, 10, 0.95)
    assert interval.within(0.005) and not interval.within(0.0049)
    assert not Interval(0.0, -math.inf, math.inf, 3, 0.95).within(1)


def test_noise_of_pairs_that_move_together():
    seeds = np.array([0.70, 0.72, 0.74, 0.76])
    shared = noise(seeds + 0.01, seeds)
    assert (shared.spread, shared.correlation, shared.pairing) == pytest.approx((0, 1, 0), abs=1e-9)
    against = noise(seeds, seeds[::-1])
    assert (against.correlation, against.pairing) == pytest.approx((-1, 2))


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 12).flatmap(lambda n: st.tuples(differences(n), differences(n))))
def test_noise_is_that_of_the_paired_differences(pair):
    a, b = pair
    found = noise(a, b)
    assert found.spread == pytest.approx((a - b).std(ddof=1))
    if a.std() and b.std():
        covariance = found.correlation * a.std(ddof=1) * b.std(ddof=1)
        unpaired = a.var(ddof=1) + b.var(ddof=1)
        assert found.pairing == pytest.approx((unpaired - 2 * covariance) / unpaired)


def test_noise_that_is_not_known():
    assert all(math.isnan(value) for value in (noise([0.7], [0.8]).spread, noise([], []).pairing))
    constant = noise([0.7, 0.7], [0.7, 0.7])
    assert constant.spread == 0 and math.isnan(constant.correlation) and math.isnan(constant.pairing)
    assert noise([0.7, 0.7], [0.6, 0.8]).pairing == pytest.approx(1)
