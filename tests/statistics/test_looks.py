"""Places of the looks, and the error spent at them."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regbench.statistics.looks import ALPHA, schedule, seeds_needed, spending
from regbench.statistics.paired import PairedTest

SEEDS, FAMILY = st.integers(1, 100), st.integers(1, 60)


@pytest.mark.parametrize(
    ("seeds", "regularizers", "looks"),
    [(40, 3, (12, 24, 40)), (20, 3, (12, 20)), (6, 3, (6,)), (40, 1, (12, 24, 40)), (1, 1, (1,)), (0, 3, ())],
)
def test_places(seeds, regularizers, looks):
    assert schedule(seeds, regularizers) == looks


@given(SEEDS, FAMILY)
def test_looks_rise_to_all_seeds(seeds, regularizers):
    looks = schedule(seeds, regularizers)
    assert looks[-1] == seeds and looks[0] > 0 and all(a < b for a, b in pairwise(looks)) and len(looks) <= 3


@settings(deadline=None)
@given(SEEDS, FAMILY)
def test_every_look_but_the_last_can_decide(seeds, regularizers):
    looks = schedule(seeds, regularizers)
    for look, spent in zip(looks[:-1], spending(looks), strict=False):
        assert PairedTest([0.01] * look).interval(spent / regularizers).bounded


@given(st.sets(st.integers(1, 200), min_size=1), st.floats(0.001, 0.5))
def test_spending_adds_up_to_alpha(looks, alpha):
    looks = sorted(looks)
    shares = spending(looks, alpha)
    assert len(shares) == len(looks) and min(shares) > 0
    assert sum(shares) == pytest.approx(alpha)


def test_spending_is_in_proportion_to_the_new_seeds():
    assert spending((12, 24, 40)) == pytest.approx((0.3 * ALPHA, 0.3 * ALPHA, 0.4 * ALPHA))
    assert spending(()) == ()


@pytest.mark.parametrize(("regularizers", "seeds"), [(1, 6), (2, 7), (3, 7), (4, 8), (6, 8), (7, 9), (12, 9), (13, 10)])
def test_seeds_needed(regularizers, seeds):
    assert seeds_needed(regularizers) == seeds
    assert PairedTest([0.01] * seeds).interval(ALPHA / regularizers).bounded
    assert not PairedTest([0.01] * (seeds - 1)).interval(ALPHA / regularizers).bounded
