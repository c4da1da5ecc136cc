"""The verdicts on a family: against Holm's procedure, all patterns of signs, and their own laws."""

import math
from itertools import combinations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.multitest import multipletests

from regbench.statistics.looks import ALPHA
from regbench.statistics.paired import PairedTest
from regbench.statistics.verdict import MARGIN, Verdict, judge

THOUSANDTHS = st.integers(-12, 16).map(lambda count: count / 1000)
LOOKS = st.sets(st.integers(1, 12), min_size=1, max_size=3).map(lambda looks: tuple(sorted(looks)))


@st.composite
def families(draw):
    """One to four regularizers, each with a level of its own, up to 13 seeds, and pairs that gave no accuracy."""
    family = {}
    for name in "abcd"[: draw(st.integers(1, 4))]:
        level = draw(st.sampled_from([-0.02, -0.004, 0.0, 0.0, 0.004, 0.02]))
        values = draw(st.lists(st.one_of(*[THOUSANDTHS] * 9, st.just(math.nan)), min_size=0, max_size=13))
        family[name] = [level + value for value in values]
    return family


def told_apart(comparison):
    return comparison.verdict in (Verdict.BETTER, Verdict.WORSE)


def alternating(seeds, mean, scale=0.001):
    return [mean + scale * (-1) ** seed for seed in range(seeds)]


@settings(max_examples=150, deadline=None)
@given(families(), LOOKS)
def test_a_verdict_never_contradicts_its_interval(family, looks):
    found = judge(family, looks)
    assert list(found) == list(family)
    for name, comparison in found.items():
        interval = comparison.difference
        assert (comparison.verdict is Verdict.BETTER) == (interval.low > 0)
        assert (comparison.verdict is Verdict.WORSE) == (interval.high < 0)
        assert told_apart(comparison) == (comparison.p_adjusted <= ALPHA * (1 + 1e-9))
        inside = interval.low <= 0 <= interval.high
        assert (comparison.verdict is Verdict.EQUIVALENT) == (inside and comparison.negligible)
        assert comparison.negligible == (interval.low >= -MARGIN and interval.high <= MARGIN)
        if comparison.verdict is Verdict.NO_DIFFERENCE:
            assert comparison.looked == looks[-1] and interval.bounded
        if comparison.looked:
            seen = np.array(family[name][: comparison.looked])
            counted = seen[np.isfinite(seen)]
            assert interval.n == len(counted) and interval.mean == pytest.approx(counted.mean())
            assert comparison.p_adjusted >= PairedTest(counted).p_value
        else:
            assert comparison.verdict is Verdict.TOO_FEW and not interval.bounded and comparison.p_adjusted == 1


@settings(max_examples=80, deadline=None)
@given(families(), LOOKS, st.randoms(use_true_random=False))
def test_the_order_of_a_family_does_not_matter(family, looks, random):
    shuffled = dict(random.sample(list(family.items()), len(family)))
    assert repr({name: judge(shuffled, looks)[name] for name in family}) == repr(judge(family, looks))


@settings(max_examples=80, deadline=None)
@given(families(), LOOKS)
def test_what_is_settled_is_not_judged_again(family, looks):
    for look in looks:
        before = judge({name: values[:look] for name, values in family.items()}, looks)
        after = judge(family, looks)
        for name, comparison in before.items():
            if comparison.settled:
                assert after[name] == comparison


@settings(max_examples=60, deadline=None)
@given(families(), st.integers(6, 12))
def test_a_single_look_is_holms_procedure(family, look):
    family = {name: np.nan_to_num(np.resize(values or [0.0], look)) for name, values in family.items()}
    p_values = [PairedTest(values).p_value for values in family.values()]
    rejected = multipletests(p_values, ALPHA, method="holm")[0]
    assert [told_apart(comparison) for comparison in judge(family, (look,)).values()] == rejected.tolist()


@settings(max_examples=40, deadline=None)
@given(families(), LOOKS)
def test_only_signs_change_if_all_differences_are_reversed(family, looks):
    swap = {Verdict.BETTER: Verdict.WORSE, Verdict.WORSE: Verdict.BETTER}
    mirrored = judge({name: [-value for value in values] for name, values in family.items()}, looks)
    for name, comparison in judge(family, looks).items():
        assert mirrored[name].verdict == swap.get(comparison.verdict, comparison.verdict)
        assert mirrored[name].difference.low == -comparison.difference.high
        assert mirrored[name].p_adjusted == comparison.p_adjusted


@pytest.mark.parametrize("looks", [(10,), (8, 10), (6, 8, 10)])
def test_looks_together_err_in_at_most_alpha_of_all_patterns(looks):
    magnitudes = np.array([9, 1, 4, 12, 7, 2, 15, 3, 10, 6]) / 1000
    patterns = list(product((-1, 1), repeat=10))
    wrong = [told_apart(judge({"a": magnitudes * signs}, looks)["a"]) for signs in patterns]
    assert 0 < np.mean(wrong) <= ALPHA


def test_a_family_errs_in_at_most_alpha_of_all_patterns():
    # both regularizers share the runs of `none`, as they do in a sweep: their signs are flipped together
    first = np.array([9, 1, 4, 12, 7, 2, 15, 3, 10, 6]) / 1000
    second = np.array([2, 8, 5, 1, 9, 14, 3, 7, 4, 11]) / 1000
    patterns = np.array(list(product((-1, 1), repeat=10)))
    other = np.random.default_rng(0).permutation(patterns)
    for signs in (patterns, other):
        pairs = zip(patterns, signs, strict=True)
        wrong = [any(map(told_apart, judge({"a": first * a, "b": second * b}, (8, 10)).values())) for a, b in pairs]
        assert np.mean(wrong) <= ALPHA


def test_pairs_of_regularizers_that_do_not_differ_are_seldom_told_apart_though_each_stops_when_it_is_told_from_none():
    """Three that gain as much, with noise of their own; a pair ends with the one of the two that is settled first."""
    looks, random, wrong, ends = (8, 12), np.random.default_rng(0), [], []
    for gain in (0.0, 0.01, 0.012, 0.02) * 100:
        none, *own = random.normal(0, 0.01, (4, 12)) + np.array([0.0, gain, gain, gain])[:, None]
        with_none = judge({name: values - none for name, values in zip("abc", own, strict=True)}, looks)
        length = {name: found.looked if found.settled else looks[-1] for name, found in with_none.items()}
        trained = {name: values[: length[name]] for name, values in zip("abc", own, strict=True)}
        shorter = {pair: min(length[name] for name in pair) for pair in combinations("abc", 2)}
        family = {(a, b): trained[a][:count] - trained[b][:count] for (a, b), count in shorter.items()}
        wrong.append(any(map(told_apart, judge(family, looks).values())))
        ends += shorter.values()
    assert 0 < np.mean(wrong) <= ALPHA
    assert set(ends) == {8, 12}


@pytest.mark.parametrize(
    ("differences", "verdict", "negligible"),
    [
        (alternating(10, 0.02), Verdict.BETTER, False),
        (alternating(10, 0.002), Verdict.BETTER, True),
        (alternating(10, -0.03), Verdict.WORSE, False),
        (alternating(10, -0.002), Verdict.WORSE, True),
        (alternating(10, 0.0), Verdict.EQUIVALENT, True),
        ([0.0] * 10, Verdict.EQUIVALENT, True),
        (alternating(10, 0.005, scale=0.02), Verdict.NO_DIFFERENCE, False),
        (alternating(9, 0.02), Verdict.TOO_FEW, False),
        ([*alternating(5, 0.02), *[math.nan] * 5], Verdict.TOO_FEW, False),
        ([math.nan] * 10, Verdict.TOO_FEW, False),
        ([], Verdict.TOO_FEW, False),
    ],
)
def test_every_verdict(differences, verdict, negligible):
    comparison = judge({"l1": differences}, (10,))["l1"]
    assert (comparison.verdict, comparison.negligible) == (verdict, negligible)
    assert comparison.settled == (verdict in (Verdict.BETTER, Verdict.WORSE, Verdict.EQUIVALENT))


def test_looks_by_hand():
    family = {
        "sure": alternating(24, 0.02),
        "same": alternating(24, 0.0),
        "slow": alternating(24, 0.01, scale=0.03),
        "late": alternating(11, 0.02),
    }
    found = judge(family, (12, 24, 40))
    assert {name: (c.verdict, c.looked) for name, c in found.items()} == {
        "sure": (Verdict.BETTER, 12),
        "same": (Verdict.EQUIVALENT, 12),
        "slow": (Verdict.TOO_FEW, 24),
        "late": (Verdict.TOO_FEW, 0),
    }
    assert found["sure"].difference.level == pytest.approx(1 - 0.3 * ALPHA / 4)
    # one is told from none and three are left, the equivalent one among them; the second look may spend as much
    assert found["slow"].difference.level == pytest.approx(1 - 0.3 * ALPHA / 3)
    assert found["sure"].p_adjusted == pytest.approx(2 / 2**12 * 4 / 0.3)


def test_one_that_waits_is_judged_when_it_has_the_seeds():
    late = judge({"a": alternating(12, 0.02), "b": alternating(12, 0.02)}, (12, 24))
    assert late["b"].verdict is Verdict.BETTER
    waits = judge({"a": alternating(12, 0.02), "b": alternating(11, 0.02)}, (12, 24))
    assert waits["a"] == late["a"] and waits["b"].looked == 0


def test_verdicts_follow_margin_and_alpha():
    differences = alternating(10, 0.0, scale=0.008)
    assert judge({"l1": differences}, (10,))["l1"].verdict is Verdict.NO_DIFFERENCE
    wide = judge({"l1": differences}, (10,), margin=0.02)["l1"]
    assert wide.verdict is Verdict.EQUIVALENT and wide.margin == 0.02
    assert judge({"l1": alternating(10, 0.02)}, (10,), alpha=0.001)["l1"].verdict is Verdict.TOO_FEW


def test_without_looks_or_regularizers():
    assert judge({}, (10,)) == {}
    unjudged = judge({"l1": [0.01, math.nan, 0.02]}, ())["l1"]
    assert (unjudged.verdict, unjudged.looked, unjudged.difference.n) == (Verdict.TOO_FEW, 0, 2)
    assert unjudged.difference.mean == pytest.approx(0.015) and math.isnan(unjudged.difference.level)


def test_verdicts_read_as_in_the_report():
    expected = ["better", "worse", "equivalent", "no difference shown", "too few seeds"]
    assert [str(verdict) for verdict in Verdict] == expected
