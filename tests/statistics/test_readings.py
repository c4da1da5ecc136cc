"""Invented results whose right reading is not in doubt, as paired differences in percentage points."""

import math

import numpy as np
import pytest

from regbench.statistics.verdict import Verdict, judge

BETTER, WORSE, EQUIVALENT, NO_DIFFERENCE, TOO_FEW = Verdict
COLLAPSE = -65.0  # from 75 % to chance of ten classes
QUIET = [0.2, -0.1, 0.0, -0.3, 0.1, 0.2, -0.2, 0.1, -0.1, 0.0, -0.2, 0.2]
USUAL = [0.7, 1.4, 0.2, 1.1, 1.9, 0.6, 0.9, 1.5, -0.1, 1.2, 0.8, 1.3]


def read(*differences_pp, looks=(12,)):
    """Return verdict and interval in percentage points of each of a family."""
    family = {str(place): np.array(values) / 100 for place, values in enumerate(differences_pp)}
    return list(judge(family, looks).values())


def test_one_lucky_seed():
    # one pair of twelve is far ahead and the others differ by nothing: the mean of +0.5 is that pair's alone
    (found,) = read([*QUIET[:11], 6.0])
    assert found.verdict is NO_DIFFERENCE
    # as the lucky seed gets lost among many, what is left is that it changes next to nothing
    (found,) = read([6.0, *QUIET * 3, *QUIET[:3]], looks=(40,))
    assert found.verdict is EQUIVALENT


def test_one_collapse():
    # better by a point but for one seed, at which it fell to chance: what it does to a further training is not known
    (found,) = read([*USUAL[:11], COLLAPSE])
    assert found.verdict is NO_DIFFERENCE
    assert 100 * found.difference.mean == pytest.approx(-4.57, abs=0.01)  # the collapse counts
    # the same where `none` fell to chance once: no merit of the regularizer
    (found,) = read([*QUIET[:11], -COLLAPSE])
    assert found.verdict is NO_DIFFERENCE


def test_ties():
    # of a thousand test images at most one is told differently, in either direction
    (found,) = read([0.0, 0.1, 0.0, 0.0, -0.1, 0.0, 0.1, 0.0, 0.0, -0.1, 0.0, 0.0])
    assert found.verdict is EQUIVALENT
    # ten ties and two wins: two pairs of coins fall alike in one of two throws
    (found,) = read([0.0] * 10 + [2.0, 2.0])
    assert found.verdict is NO_DIFFERENCE and found.p_adjusted == 0.5


def test_all_equal():
    # a lam so small that no prediction changes
    (found,) = read([0.0] * 12)
    assert found.verdict is EQUIVALENT and found.p_adjusted == 1
    # the same gain at each of twelve seeds is no chance
    (found,) = read([0.8] * 12)
    assert found.verdict is BETTER and not found.negligible


def test_huge_spread():
    # a mean gain of 1.6 points among differences of eight: neither a gain nor its absence is shown
    (found,) = read([9.0, -7.5, 12.0, -3.0, 6.5, -10.0, 8.0, 2.5, -6.0, 11.0, -8.5, 5.5])
    assert found.verdict is NO_DIFFERENCE and found.difference.high > 0.05


def test_a_tiny_sure_difference():
    # a tenth of a point at every seed is surely there, and practically none
    (found,) = read([0.1, 0.12, 0.08, 0.11, 0.09, 0.1, 0.13, 0.07, 0.1, 0.1, 0.11, 0.09])
    assert found.verdict is BETTER and found.negligible


def test_a_sure_large_gain():
    (found,) = read([3.1, 2.6, 3.4, 2.9, 3.3, 2.2, 3.0, 2.7, 3.6, 2.8, 3.2, 2.5])
    assert found.verdict is BETTER and not found.negligible and found.difference.low > 0.02
    # one seed against eleven does not undo it
    assert read([*USUAL[:11], -0.4])[0].verdict is BETTER


def test_a_sure_loss():
    (found,) = read([-2.1, -1.4, -2.6, -1.8, -2.0, -1.2, -2.4, -1.9, -1.6, -2.2, -1.7, -2.3])
    assert found.verdict is WORSE and not found.negligible


@pytest.mark.parametrize("seeds", [1, 3, 5])
def test_few_seeds(seeds):
    # however large and unanimous: five fair coins show the same side in one of sixteen throws
    (found,) = read([4.0, 4.2, 3.9, 4.1, 4.3][:seeds], looks=(seeds,))
    assert found.verdict is TOO_FEW
    # seven are enough for one regularizer, and with twenty beside it they are not
    assert read([4.0] * 7, looks=(7,))[0].verdict is BETTER
    assert read([4.0] * 7, *[[0.1, -0.1] * 3 + [0.0]] * 20, looks=(7,))[0].verdict is TOO_FEW


def test_one_method_that_always_collapses_beside_a_quiet_one():
    # the collapse is worse beyond doubt and takes nothing from what the other shows
    collapsed, quiet = read([COLLAPSE + value for value in QUIET], QUIET)
    assert collapsed.verdict is WORSE and quiet.verdict is EQUIVALENT
    collapsed, usual = read([COLLAPSE + value for value in QUIET], USUAL)
    assert collapsed.verdict is WORSE and usual.verdict is BETTER


def test_trainings_that_failed_are_neither_wins_nor_losses():
    (found,) = read([*USUAL[:10], math.nan, math.nan])
    assert found.verdict is BETTER and found.difference.n == 10


def test_a_gain_that_shows_only_with_more_seeds():
    # half a point among differences of one and a half: open at the first look, found at the last
    slow = [2.0, -1.2, 0.6, 1.6, -0.9, 2.4, -1.5, 1.1, 0.2, -0.4, 1.9, 0.3]
    assert read(slow, looks=(12, 24, 40))[0].verdict is TOO_FEW
    (found,) = read([*slow * 3, *slow[:4]], looks=(12, 24, 40))
    assert found.verdict is BETTER and found.looked == 40
