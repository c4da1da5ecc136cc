"""The report's statistics against SciPy, statsmodels, published examples, and their own laws."""

import gc
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats
from statsmodels.stats.multitest import multipletests

from regbench.report import statistics
from regbench.report.statistics import (
    Interval,
    holm,
    near_tied_lams,
    paired_differences,
    probability_of_improvement,
    select_lam,
    select_lam_without_each,
    sign_flip_test,
    t_interval,
    within_best,
)
from regbench.report.verdict import Grid, Verdict, compare, judge

# Darwin (1876), heights of 15 pairs of maize, crossed minus self-fertilized, in eighths of an inch, as in
# Fisher (1935), The Design of Experiments, sections 17 and 21; also the data set ZeaMays of R's HistData.
DARWIN = np.array([49, -67, 8, 16, 6, 23, 28, 41, 14, 29, 56, 24, 75, 60, -48], dtype=float)

# Student (1908): extra hours of sleep of ten patients under two drugs; the data set sleep of R.
SLEEP_1 = np.array([0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0])
SLEEP_2 = np.array([1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4])

LAMS = np.array([1e-4, 1e-3, 1e-2])

finite = st.floats(-1, 1, allow_subnormal=False)


def counts(shape):
    """Accuracies of 1,000 images: a grid coarse enough to produce ties."""
    return arrays(np.int64, shape, elements=st.integers(0, 1000)).map(lambda n: n / 1000)


@st.composite
def sweeps(draw):
    """A grid of accuracies with its baseline: at most four lams and eight seeds."""
    lams, seeds = draw(st.integers(1, 4)), draw(st.integers(2, 8))
    grid = Grid(10.0 ** np.arange(lams), draw(counts((lams, seeds))), draw(counts((lams, seeds))))
    return grid, draw(counts(seeds))


@pytest.fixture(autouse=True, scope="module")
def cheap_garbage_collection():
    """statsmodels collects garbage in every call; that is slow with all that pytest has loaded."""
    gc.freeze()
    yield
    gc.unfreeze()


def winner(seeds, gain=0.02, spread=0.001):
    """A baseline and a grid whose middle lam is better by ``gain`` on every seed, on validation and test."""
    wiggle = spread * np.linspace(-1, 1, seeds)
    baseline = 0.75 + 0.003 * np.cos(np.arange(seeds))
    gains = np.array([[0.0], [gain], [gain - 0.03]])
    accuracies = baseline + gains + wiggle
    return Grid(LAMS, accuracies, accuracies), baseline


def noisy(seeds, shift=0.0, scale=0.02):
    """A baseline and a one-lam grid that differs by ``shift`` on average, alternating around it."""
    baseline = np.full(seeds, 0.75)
    wiggle = scale * np.where(np.arange(seeds) % 2, -1, 1)
    accuracies = (baseline + shift + wiggle - wiggle.mean())[None]
    return Grid([1e-3], accuracies, accuracies), baseline


# --- t_interval ---


def test_t_interval_of_students_sleep_data():
    # R: t.test(extra ~ group, data = sleep, paired = TRUE)
    interval = t_interval(SLEEP_1 - SLEEP_2)
    assert interval.mean == pytest.approx(-1.58)
    assert (interval.low, interval.high) == pytest.approx((-2.4598858, -0.7001142), abs=5e-8)


def test_t_interval_of_darwins_maize():
    # Fisher (1935), section 17: mean 20.93, standard error 9.746, t = 2.148 against 2.145 at 5 %.
    interval = t_interval(DARWIN)
    error = (interval.high - interval.low) / 2 / 2.145
    assert interval.mean == pytest.approx(20.93, abs=0.005)
    assert error == pytest.approx(9.746, abs=0.002)
    assert 0 < interval.low < 0.1


@given(arrays(float, st.integers(2, 30), elements=finite), st.sampled_from([0.5, 0.9, 0.95, 0.99]))
def test_t_interval_is_scipys_and_contains_the_mean(values, level):
    interval = t_interval(values, level)
    assert interval.low <= interval.mean <= interval.high
    if values.std() > 1e-6:
        expected = stats.ttest_1samp(values, 0).confidence_interval(level)
        assert (interval.low, interval.high) == pytest.approx((expected.low, expected.high), rel=1e-9, abs=1e-12)


def test_t_interval_of_one_value_has_no_bounds():
    interval = t_interval([0.7])
    assert (interval.mean, interval.n) == (0.7, 1)
    assert math.isnan(interval.low) and math.isnan(interval.high)


def test_t_interval_of_equal_values_has_no_width():
    assert t_interval([0.5] * 4) == Interval(0.5, 0.5, 0.5, 4, 0.95)


@pytest.mark.parametrize("bad", [[], [0.1, math.nan], [math.inf], [[0.1, 0.2]]])
def test_values_that_are_no_sample_are_refused(bad):
    with pytest.raises(ValueError):
        t_interval(bad)
    with pytest.raises(ValueError):
        sign_flip_test(bad)


@pytest.mark.parametrize("level", [0, 1, 95])
def test_levels_are_fractions(level):
    with pytest.raises(ValueError, match="level"):
        t_interval([1, 2], level)


# --- paired differences, sign-flip test ---


def test_paired_differences():
    assert paired_differences([0.75, 0.5], [0.5, 0.75]).tolist() == [0.25, -0.25]


@pytest.mark.parametrize(("a", "b"), [([1, 2], [1]), ([1, math.nan], [1, 2]), ([1, 2], [1, math.inf])])
def test_pairs_must_be_complete(a, b):
    with pytest.raises(ValueError):
        paired_differences(a, b)


def test_sign_flip_of_darwins_maize():
    # Fisher (1935), section 21: 863 of the 32,768 patterns reach the observed sum of 314, on either side.
    assert DARWIN.sum() == 314
    assert sign_flip_test(DARWIN) == 2 * 863 / 2**15


def test_sign_flip_of_students_sleep_data():
    # No difference is negative and one is zero: that one's sign is free, so four of 1,024 patterns count.
    assert sign_flip_test(SLEEP_2 - SLEEP_1) == 4 / 2**10


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 9).flatmap(lambda n: st.tuples(counts(n), counts(n))))
def test_sign_flip_is_scipys(pair):
    differences = paired_differences(*pair)
    expected = stats.permutation_test((differences,), np.mean, permutation_type="samples", n_resamples=np.inf)
    assert sign_flip_test(differences) == pytest.approx(expected.pvalue)


@given(arrays(float, st.integers(1, 16), elements=finite), st.randoms(use_true_random=False))
def test_sign_flip_laws(differences, random):
    p = sign_flip_test(differences)
    order = list(range(len(differences)))
    random.shuffle(order)
    assert 2 / 2 ** len(differences) <= p <= 1
    assert sign_flip_test(-differences) == p
    assert sign_flip_test(differences[order]) == pytest.approx(p, abs=1e-12)
    assert sign_flip_test(4 * differences) == p


@pytest.mark.parametrize("n", [1, 2, 7, 40])
def test_unanimous_pairs_give_the_smallest_p(n):
    assert sign_flip_test(np.arange(1, n + 1)) == 2 / 2**n


def test_sign_flip_without_any_difference():
    assert sign_flip_test(np.zeros(10)) == 1


def test_sign_flip_counts_ties_that_rounding_breaks():
    # The sum is 5.6e-17 in binary and zero in decimal, which every pattern reaches.
    assert sign_flip_test([0.1, 0.2, -0.3]) == 1


def test_sign_flip_by_random_patterns(monkeypatch):
    exact = sign_flip_test(DARWIN)
    monkeypatch.setattr(statistics, "EXACT_UP_TO", 14)
    drawn = sign_flip_test(DARWIN)
    assert drawn == pytest.approx(exact, abs=0.003) and drawn != exact
    assert sign_flip_test(DARWIN) == drawn
    assert sign_flip_test(DARWIN, seed=1) != drawn
    # Never zero, and counted with the observed pattern: (1 + 0) / (1 + 99).
    assert sign_flip_test(np.ones(60), resamples=99) == 1 / 100


# --- probability of improvement ---


def test_probability_of_improvement_by_hand():
    # Of nine pairs six are won and two are ties.
    assert probability_of_improvement([3, 2, 5], [2, 3, 1]).mean == pytest.approx((6 + 2 / 2) / 9)


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 8).flatmap(lambda n: st.tuples(counts(n), counts(n))))
def test_probability_of_improvement_laws(pair):
    a, b = pair
    interval = probability_of_improvement(a, b, resamples=200)
    u = stats.mannwhitneyu(a, b).statistic
    assert interval.mean == pytest.approx(u / len(a) ** 2)
    assert probability_of_improvement(b, a, resamples=0).mean == pytest.approx(1 - interval.mean)
    assert 0 <= interval.low <= interval.high <= 1
    assert probability_of_improvement(a, b, resamples=200) == interval


def test_bootstrap_draws_seeds_in_pairs():
    # Two seeds far apart, a above b in both. Drawn in pairs, one seed twice means that a wins all; drawn
    # apart, b's high value could meet a's low one four times over and P be 0.
    interval = probability_of_improvement([0.2, 0.9], [0.1, 0.8])
    assert (interval.mean, interval.low, interval.high) == (0.75, 0.75, 1.0)


def test_improvement_has_no_interval_for_one_seed_or_without_resamples():
    for interval in (
        probability_of_improvement([1], [0]),
        probability_of_improvement([1, 2], [0, 0], resamples=0),
    ):
        assert interval.mean == 1
        assert math.isnan(interval.low) and math.isnan(interval.high)
    with pytest.raises(ValueError, match="resamples"):
        probability_of_improvement([1, 2], [0, 0], resamples=-1)


def test_bootstrap_depends_on_its_seed_only():
    rng = np.random.default_rng(3)
    a, b = rng.random(9), rng.random(9)
    np.random.seed(0)
    first = probability_of_improvement(a, b, resamples=50)
    np.random.seed(1)
    assert probability_of_improvement(a, b, resamples=50) == first
    assert any(probability_of_improvement(a, b, resamples=50, seed=seed) != first for seed in (1, 2, 3))


# --- Holm ---


@pytest.mark.parametrize(
    ("p_values", "adjusted"),
    [
        # Documentation of pingouin.multicomp, method "holm".
        ([0.50, 0.003, 0.32, 0.054, 0.0003], [0.64, 0.012, 0.64, 0.162, 0.0015]),
        # Documentation of stdlib's @stdlib/stats/padjust, method "holm".
        ([0.319, 0.201, 0.4, 0.374, 0.113], [0.957, 0.804, 0.957, 0.957, 0.565]),
    ],
)
def test_holm_of_published_examples(p_values, adjusted):
    assert holm(p_values) == pytest.approx(adjusted)


@settings(max_examples=50, deadline=None)
@given(arrays(float, st.integers(1, 8), elements=st.floats(0, 1)))
def test_holm_laws(p):
    adjusted = holm(p)
    order = np.argsort(p, kind="stable")
    by_definition = np.minimum(1, np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)))
    assert adjusted[order] == pytest.approx(by_definition)
    assert adjusted == pytest.approx(multipletests(p, method="holm")[1])
    assert np.all(adjusted >= p) and np.all(adjusted <= 1)
    assert np.all(adjusted <= np.minimum(1, len(p) * p) + 1e-12)


def test_holm_of_nothing_and_of_no_probabilities():
    assert holm([]).size == 0
    for bad in ([0.1, math.nan], [1.1], [-0.1], [[0.1]]):
        with pytest.raises(ValueError):
            holm(bad)


# --- choice of lam ---


def test_select_lam_takes_the_best_mean_and_ignores_the_grids_order():
    validation = np.array([[0.7, 0.7], [0.9, 0.6], [0.6, 0.6]])
    selection = select_lam(validation, LAMS)
    assert (selection.index, selection.lam, selection.edge) == (1, 1e-3, None)
    shuffled = select_lam(validation[[2, 1, 0]][:, ::-1], LAMS[[2, 1, 0]])
    assert (shuffled.index, shuffled.lam, shuffled.edge) == (1, 1e-3, None)


def test_ties_go_to_the_smaller_lam_also_where_rounding_breaks_them():
    # The same three accuracies in another order sum to something else in binary.
    first, second = [0.1, 0.2, 0.3], [0.3, 0.2, 0.1]
    assert np.mean(first) != np.mean(second)
    for validation in ([first, second], [second, first]):
        assert select_lam(validation, [0.1, 0.01]).lam == 0.01
        assert select_lam(validation, [0.01, 0.1]).lam == 0.01


@pytest.mark.parametrize(
    ("means", "edge"), [([3, 2, 1], "lowest"), ([1, 3, 2], None), ([1, 2, 3], "highest"), ([1], "only")]
)
def test_edge_of_the_grid(means, edge):
    validation = np.array(means)[:, None] / 10
    assert select_lam(validation, LAMS[: len(means)]).edge == edge
    assert select_lam(validation[::-1], LAMS[: len(means)][::-1]).edge == edge


def test_leaving_a_seed_out_gives_it_no_say():
    # lam 0 is chosen only because of the first seed.
    validation = np.array([[0.80, 0.70, 0.70], [0.71, 0.72, 0.72]])
    assert select_lam(validation, [1, 2]).index == 0
    assert select_lam_without_each(validation, [1, 2]).tolist() == [1, 0, 0]


@given(sweeps())
def test_leaving_out_equals_choosing_on_the_others(sweep):
    grid, _ = sweep
    choices = select_lam_without_each(grid.validation, grid.lams)
    expected = [select_lam(np.delete(grid.validation, seed, axis=1), grid.lams).index for seed in range(len(choices))]
    assert choices.tolist() == expected


def test_near_ties():
    # Deficits to lam 0: 0; then mean 0.005, standard error 0.0144; then mean 0.1, standard error 0.
    validation = np.array([[0.8, 0.8, 0.8, 0.8], [0.8, 0.83, 0.75, 0.8], [0.7, 0.7, 0.7, 0.7]])
    error = stats.sem(validation[0] - validation[1])
    assert near_tied_lams(validation, LAMS).tolist() == [True, True, False]
    assert near_tied_lams(validation, LAMS, width=0.999 * 0.005 / error).tolist() == [True, False, False]
    assert near_tied_lams(validation, LAMS, width=1.001 * 0.005 / error).tolist() == [True, True, False]
    assert near_tied_lams(validation[:, :1], LAMS).tolist() == [True, True, False]
    with pytest.raises(ValueError, match="width"):
        near_tied_lams(validation, LAMS, width=-1)


def test_a_lam_that_fails_in_one_seed_is_not_tied():
    validation = np.full((2, 10), 0.75)
    validation[1, 3] = 0.1
    assert near_tied_lams(validation, [1, 2]).tolist() == [True, False]


@pytest.mark.parametrize("select", [select_lam, select_lam_without_each, near_tied_lams])
@pytest.mark.parametrize(
    ("validation", "lams", "message"),
    [
        ([[0.1, 0.2]], [1, 2], "1 rows for 2 lams"),
        ([[0.1, 0.2], [0.3, 0.4]], [1, 1], "repeat"),
        ([[0.1, math.nan]], [1], "finite"),
        ([[0.1, 0.2]], [math.inf], "finite"),
        ([0.1, 0.2], [1, 2], "dimension"),
        (np.empty((0, 2)), [], "empty"),
    ],
)
def test_grids_with_holes_are_refused(select, validation, lams, message):
    with pytest.raises(ValueError, match=message):
        select(validation, lams)


def test_one_seed_cannot_be_left_out():
    with pytest.raises(ValueError, match="two seeds"):
        select_lam_without_each([[0.1], [0.2]], [1, 2])


# --- verdicts ---


def interval(low, high, n=10):
    return Interval((low + high) / 2, low, high, n, 0.95)


@pytest.mark.parametrize(
    ("difference", "p", "comparisons", "verdict"),
    [
        (interval(0.01, 0.02), 0.05, 1, Verdict.BETTER),
        (interval(-0.02, -0.01), 0.05, 1, Verdict.WORSE),
        (interval(0.01, 0.02), 0.0501, 1, Verdict.NO_DIFFERENCE),
        (interval(-0.005, 0.005), 0.5, 1, Verdict.EQUIVALENT),
        (interval(-0.0051, 0.004), 0.5, 1, Verdict.NO_DIFFERENCE),
        (interval(-0.004, 0.0051), 0.5, 1, Verdict.NO_DIFFERENCE),
        # Both established and small: the direction is stated.
        (interval(0.001, 0.002), 0.01, 1, Verdict.BETTER),
        (interval(-0.002, -0.001), 0.01, 1, Verdict.WORSE),
        # Five seeds say nothing, however clear they look.
        (interval(0.1, 0.2, n=5), 0.01, 1, Verdict.TOO_FEW),
        (interval(-0.001, 0.001, n=5), 0.9, 1, Verdict.TOO_FEW),
        (interval(math.nan, math.nan, n=1), 1.0, 1, Verdict.TOO_FEW),
        # Six seeds: 2 / 2**6 = 0.031 carries one comparison, not three; equivalence needs no p.
        (interval(-0.02, 0.02, n=6), 0.9, 1, Verdict.NO_DIFFERENCE),
        (interval(-0.02, 0.02, n=6), 0.9, 3, Verdict.TOO_FEW),
        (interval(-0.002, 0.002, n=6), 0.9, 3, Verdict.EQUIVALENT),
        (interval(-0.02, 0.02, n=7), 0.9, 3, Verdict.NO_DIFFERENCE),
    ],
)
def test_verdicts(difference, p, comparisons, verdict):
    assert judge(difference, p, comparisons) == verdict


def test_verdicts_follow_margin_and_alpha():
    assert judge(interval(-0.01, 0.01), 0.5, margin=0.02) == Verdict.EQUIVALENT
    assert judge(interval(0.01, 0.02), 0.05, alpha=0.01) == Verdict.NO_DIFFERENCE


@pytest.mark.parametrize("bad", [{"p_adjusted": math.nan}, {"p_adjusted": 2}, {"margin": -1}, {"comparisons": 0}])
def test_verdicts_refuse_nonsense(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        judge(**{"difference": interval(0, 1), "p_adjusted": 0.5, **bad})


def test_verdicts_read_as_in_the_report():
    assert [str(verdict) for verdict in Verdict] == [
        "better", "worse", "equivalent", "no difference shown", "too few seeds",
    ]  # fmt: skip


# --- bold rows ---


def test_all_rows_within_the_best_ones_interval_are_bold():
    rows = [interval(0.60, 0.80), interval(0.72, 0.88), interval(0.40, 1.00), interval(0.71, 0.73)]
    assert within_best(rows).tolist() == [False, True, False, True]


def test_without_intervals_only_the_best_is_bold():
    rows = [Interval(mean, math.nan, math.nan, 1, 0.95) for mean in (0.7, 0.8, 0.8)]
    assert within_best(rows).tolist() == [False, True, True]
    assert within_best([]).tolist() == []
    with pytest.raises(ValueError):
        within_best([replace(rows[0], mean=math.nan)])


# --- the whole comparison ---


def test_a_clear_winner_is_an_ordinary_paired_test():
    grid, baseline = winner(seeds=8)
    result = compare({"l1": grid}, baseline)["l1"]
    assert result.selection.lam == 1e-3 and result.near_ties == (1e-3,)
    assert result.difference == result.apparent == result.held_out == t_interval(grid.test[1] - baseline)
    assert result.p_value == result.p_adjusted == 2 / 2**8
    assert result.improvement.mean == 1
    assert (result.verdict, result.negligible, result.exploratory) == (Verdict.BETTER, False, False)
    assert result.test == t_interval(grid.test[1]) and result.validation == t_interval(grid.validation[1])


@pytest.mark.parametrize(
    ("data", "verdict", "negligible"),
    [
        (winner(8, gain=0.02), Verdict.BETTER, False),
        (winner(8, gain=0.002), Verdict.BETTER, True),
        (noisy(8, shift=-0.03), Verdict.WORSE, False),
        (noisy(8, shift=-0.002, scale=0.001), Verdict.WORSE, True),
        (noisy(8, scale=0.001), Verdict.EQUIVALENT, False),
        (noisy(8, scale=0.0), Verdict.EQUIVALENT, False),
        (noisy(8, shift=0.005), Verdict.NO_DIFFERENCE, False),
        (noisy(5, shift=0.1), Verdict.TOO_FEW, False),
    ],
)
def test_every_verdict_from_accuracies(data, verdict, negligible):
    grid, baseline = data
    result = compare({"l2": grid}, baseline, resamples=0)["l2"]
    assert (result.verdict, result.negligible) == (verdict, negligible)
    assert result.exploratory == (len(baseline) < 6)


def test_a_lam_chosen_by_luck_by_hand():
    # Seed 0 alone favours the first lam, on validation and on test. Differences there: 0.09, 0, 0.01; with
    # seed 0 left out of its own choice 0.02, 0, 0.01; at the second lam, a near tie, 0.02, 0.03, 0.04.
    validation = [[0.80, 0.70, 0.70], [0.71, 0.72, 0.72]]
    test = [[0.79, 0.70, 0.76], [0.72, 0.73, 0.79]]
    baseline = [0.70, 0.70, 0.75]
    result = compare({"l1": Grid([0.1, 0.2], validation, test)}, baseline)["l1"]
    lucky, fair, second = (t_interval(d) for d in ([0.09, 0, 0.01], [0.02, 0, 0.01], [0.02, 0.03, 0.04]))
    assert (result.selection.lam, result.near_ties) == (0.1, (0.1, 0.2))
    assert result.apparent.mean == pytest.approx(lucky.mean)
    assert result.difference.mean == result.held_out.mean == pytest.approx(fair.mean)
    assert result.difference.low == pytest.approx(min(lucky.low, fair.low, second.low))
    assert result.difference.high == pytest.approx(max(lucky.high, fair.high, second.high))
    # Zero flips freely: four of eight patterns for the first two, two of eight for the third.
    assert (result.apparent_p, result.held_out_p, result.p_value) == (0.5, 0.5, 0.5)
    # Left out, 0.72 beats two of the baselines, 0.70 ties with two, 0.76 beats all three.
    assert result.improvement.mean == pytest.approx((2 + 2 / 2 + 3) / 9)


# The second lam is a near tie of the first, yet leaving out any one seed changes nothing: the first is ahead
# by 0.0015 on average, 0.0005 at least without one seed, and the standard error is 0.0038.
TIED_VALIDATION = 0.75 + np.stack([np.full(8, 0.0015), 0.01 * np.where(np.arange(8) % 2, 1, -1)])


def test_a_claim_must_hold_at_every_near_tie():
    test = 0.75 + np.array([[0.02] * 8, [0.03, -0.01] * 4])
    result = compare({"l1": Grid([0.1, 0.2], TIED_VALIDATION, test)}, np.full(8, 0.75))["l1"]
    assert result.near_ties == (0.1, 0.2)
    assert result.apparent_p == result.held_out_p == 2 / 2**8
    assert result.p_value == sign_flip_test([0.03, -0.01] * 4) > 0.05
    assert (result.difference.mean, result.difference.low) == pytest.approx((0.02, t_interval(test[1]).low - 0.75))
    assert result.verdict == Verdict.NO_DIFFERENCE


def test_near_ties_that_disagree_in_sign_claim_nothing():
    test = 0.75 + np.array([[0.02] * 8, [-0.02] * 8])
    result = compare({"l1": Grid([0.1, 0.2], TIED_VALIDATION, test)}, np.full(8, 0.75))["l1"]
    assert result.apparent_p == result.held_out_p == 2 / 2**8
    assert result.p_value == 1
    assert (result.difference.low, result.difference.high) == pytest.approx((-0.02, 0.02))
    assert result.verdict == Verdict.NO_DIFFERENCE


def test_holm_runs_over_the_family_and_nothing_else_does():
    grid, baseline = winner(seeds=8)
    dull, _ = noisy(8)
    alone = compare({"l1": grid}, baseline)["l1"]
    family = compare({"l2": dull, "l1": grid, "l1_prox": grid}, baseline)
    assert list(family) == ["l2", "l1", "l1_prox"]
    assert [c.p_adjusted for c in family.values()] == holm([c.p_value for c in family.values()]).tolist()
    assert family["l1"].p_adjusted == 3 * alone.p_value
    assert replace(family["l1"], p_adjusted=alone.p_adjusted) == alone


def test_a_family_that_is_too_large_for_its_seeds():
    grid, baseline = winner(seeds=6)
    alone = compare({"l1": grid}, baseline)["l1"]
    assert (alone.verdict, alone.exploratory) == (Verdict.BETTER, False)
    family = compare({name: grid for name in ("l1", "l1_prox", "l2")}, baseline)
    assert {c.verdict for c in family.values()} == {Verdict.TOO_FEW}


def test_one_seed():
    result = compare({"l1": Grid([1, 2], [[0.7], [0.8]], [[0.7], [0.9]])}, [0.75])["l1"]
    assert result.selection.lam == 2
    assert result.difference.mean == pytest.approx(0.15) and math.isnan(result.difference.low)
    assert (result.p_value, result.verdict, result.exploratory) == (1, Verdict.TOO_FEW, True)


def test_an_empty_family():
    assert compare({}, [0.7, 0.8]) == {}


def test_same_input_same_output():
    rng = np.random.default_rng(0)
    grid, baseline = Grid(LAMS, rng.random((3, 9)), rng.random((3, 9))), rng.random(9)
    first = repr(compare({"l1": grid}, baseline))
    assert repr(compare({"l1": grid}, baseline)) == first
    assert any(repr(compare({"l1": grid}, baseline, seed=seed)) != first for seed in (1, 2, 3))


@pytest.mark.parametrize(
    ("grid", "baseline", "message"),
    [
        (Grid([1], [[75, 76]], [[0.7, 0.7]]), [0.7, 0.7], "percentages"),
        (Grid([1], [[0.7, 0.7]], [[0.7, -0.1]]), [0.7, 0.7], "percentages"),
        (Grid([1], [[0.7, 0.7]], [[0.7, 0.7]]), [70, 70], "baseline_test"),
        (Grid([1], [[0.7, math.nan]], [[0.7, 0.7]]), [0.7, 0.7], "validation of l1"),
        (Grid([1], [[0.7, 0.7]], [[0.7, math.nan]]), [0.7, 0.7], "test of l1"),
        (Grid([1], [[0.7, 0.7]], [[0.7, 0.7]]), [0.7, 0.7, 0.7], "l1 do not fit"),
        (Grid([1], [[0.7, 0.7]], [[0.7]]), [0.7, 0.7], "l1 do not fit"),
    ],
)
def test_what_cannot_be_compared_is_named(grid, baseline, message):
    with pytest.raises(ValueError, match=message):
        compare({"l1": grid}, baseline)


@settings(max_examples=40, deadline=None)
@given(sweeps(), st.randoms(use_true_random=False))
def test_comparison_laws(sweep, random):
    grid, baseline = sweep
    result = compare({"l1": grid}, baseline, resamples=0)["l1"]
    assert 2 / 2 ** len(baseline) <= result.p_value <= result.p_adjusted <= 1
    assert result.p_value >= max(result.apparent_p, result.held_out_p)
    assert result.selection.lam in result.near_ties
    for part in (result.apparent, result.held_out):
        assert result.difference.low <= part.low <= part.high <= result.difference.high
    assert result.difference.low <= result.difference.mean <= result.difference.high

    order = list(range(len(baseline)))
    random.shuffle(order)
    shuffled = compare(
        {"l1": Grid(grid.lams, grid.validation[:, order], grid.test[:, order])}, baseline[order], resamples=0
    )["l1"]
    assert (shuffled.selection, shuffled.near_ties) == (result.selection, result.near_ties)
    assert shuffled.p_value == pytest.approx(result.p_value, abs=1e-12)
    assert shuffled.verdict == result.verdict
    for name in ("test", "validation", "difference"):
        before, after = getattr(result, name), getattr(shuffled, name)
        assert (after.low, after.high) == pytest.approx((before.low, before.high), abs=1e-12)


@settings(max_examples=25, deadline=None)
@given(sweeps())
def test_an_effect_of_the_seed_changes_no_difference(sweep):
    grid, baseline = sweep
    shift = np.linspace(0, 0.5, len(baseline))
    before = compare({"l1": Grid(grid.lams, grid.validation / 2, grid.test / 2)}, baseline / 2, resamples=0)["l1"]
    after = compare(
        {"l1": Grid(grid.lams, grid.validation / 2 + shift, grid.test / 2 + shift)},
        baseline / 2 + shift,
        resamples=0,
    )["l1"]
    assert (after.selection, after.near_ties, after.verdict) == (
        before.selection,
        before.near_ties,
        before.verdict,
    )
    assert after.p_value == pytest.approx(before.p_value, abs=1e-12)
    assert after.difference.mean == pytest.approx(before.difference.mean, abs=1e-12)
