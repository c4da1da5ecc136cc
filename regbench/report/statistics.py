"""What the evidence shows: the report's statistics as pure functions of arrays.

Accuracies are fractions in [0, 1]; arrays are indexed [lam, seed] or [seed], and the seed is the unit: seed s
is the same initial weights, batch order and split for every regularizer, so comparisons are made in pairs.
Nothing here plots, reads files or keeps random state; equal input gives equal output, bit for bit.

The winner's curse
------------------
lam is chosen on the mean validation accuracy over the same seeds whose test accuracies are then compared
with `none`. Whatever makes one training come out well raises its validation and its test accuracy alike, so
the chosen lam was, on average, lucky on test as well: its mean difference is biased upwards (Varma & Simon
2006; Cawley & Talbot 2010), and a test that ignores this errs too often. The textbook cure is nested
cross-validation, here: leave one seed out. Seed s contributes its test accuracy at the lam which the other
seeds choose. That removes the bias, but it does not cure the test: the choices share data, the differences of
two seeds are positively correlated, and the usual standard error is too small (Bengio & Grandvalet 2004).
Where nothing differs it errs even more often than ignoring the matter does.

The curse strikes where several lams are nearly tied. ``compare`` therefore claims only what holds at every
lam within half a standard error of the best on validation, and for the left-out differences as well (an
intersection-union test, Berger 1982): p is the largest of these sign-flip p-values, or 1 where the means
differ in sign; the interval runs from their lowest lower to their highest upper bound; the mean beside it is
the unbiased one, from the seeds left out. Where one lam is clearly best all this is the ordinary paired test.

Half a standard error is a choice by measured size and power. A whole one, as in the rule of Breiman et al.
(1984), costs about ten points of power, and lets in any lam that fails in a single seed: one outlier makes a
mean deficit of just one standard error. The rate of wrong claims is measured, not derived. It stays below 5 %
for noise of realistic size, and exceeds it where validation and test share nearly all noise and the grid has
many equal lams. See ``benchmarks/calibration.py`` and its committed results.

References
----------
Agarwal et al. (2021), Deep reinforcement learning at the edge of the statistical precipice, NeurIPS 34.
Bengio & Grandvalet (2004), No unbiased estimator of the variance of K-fold cross-validation, JMLR 5.
Berger (1982), Multiparameter hypothesis testing and acceptance sampling, Technometrics 24(4).
Breiman, Friedman, Olshen & Stone (1984), Classification and Regression Trees, section 3.4.3.
Cawley & Talbot (2010), On over-fitting in model selection and subsequent selection bias in performance
evaluation, JMLR 11.
Fisher (1935), The Design of Experiments, section 21.
Holm (1979), A simple sequentially rejective multiple test procedure, Scand. J. Statist. 6(2).
Horowitz & Sahni (1974), Computing partitions with applications to the knapsack problem, J. ACM 21(2).
Phipson & Smyth (2010), Permutation p-values should never be zero, Stat. Appl. Genet. Mol. Biol. 9(1).
Schuirmann (1987), A comparison of the two one-sided tests procedure and the power approach for assessing the
equivalence of average bioavailability, J. Pharmacokinet. Biopharm. 15(6).
Varma & Simon (2006), Bias in error estimation when using cross-validation for model selection, BMC
Bioinformatics 7:91.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special, stats
from statsmodels.stats.multitest import multipletests

from regbench.report.power import ALPHA, MINIMUM_PAIRS, seeds_needed

LEVEL = 0.95
MARGIN = 0.005
"""Differences within +- this fraction (half a percentage point) count as practically none."""

EXACT_UP_TO = 40
"""Numbers of pairs up to which ``sign_flip_test`` counts every sign pattern."""

NEAR_TIE = 0.5
"""How many standard errors behind the best, on validation, a lam still counts as tied with it."""

# Accuracies are multiples of 1 / images; means that differ by less than this differ by rounding only.
_TIE = 1e-12

Floats = NDArray[np.float64]


class Verdict(StrEnum):
    """What may be said of a regularizer, at its chosen lam, against `none`."""

    BETTER = "better"
    WORSE = "worse"
    EQUIVALENT = "equivalent"
    NO_DIFFERENCE = "no difference shown"
    TOO_FEW = "too few seeds"


@dataclass(frozen=True)
class Interval:
    """A mean with its confidence interval. Bounds are NaN where there is a single value."""

    mean: float
    low: float
    high: float
    n: int
    level: float


@dataclass(frozen=True)
class Selection:
    """The chosen lam: its position in the grid as given, its value, and whether it lies at the grid's edge.

    ``edge`` is "lowest" or "highest" (the best strength may lie outside the grid), "only" (a grid of one lam:
    nothing was tuned) or None (inside the grid).
    """

    index: int
    lam: float
    edge: str | None


@dataclass(frozen=True)
class Grid:
    """Accuracies of one regularizer: ``lams`` [lam], ``validation`` and ``test`` [lam, seed], fractions."""

    lams: ArrayLike
    validation: ArrayLike
    test: ArrayLike


@dataclass(frozen=True)
class Comparison:
    """One regularizer at its chosen lam against `none`; made by ``compare``.

    Accuracies and differences are fractions; the module's text says why there are several analyses.

    selection          lam chosen on the mean validation accuracy of all seeds
    validation, test   accuracy at that lam, with t-interval
    apparent           paired difference at that lam: biased upwards by the choice
    apparent_p         its sign-flip p-value
    held_out           paired difference in which each seed is tested at the lam the other seeds choose
    held_out_p         its sign-flip p-value
    near_ties          lams tied with the chosen one on validation, itself included, in the grid's order
    difference         what to report: mean of ``held_out``; interval over ``held_out`` and all ``near_ties``
    p_value            largest p-value of these; 1 where their means differ in sign
    p_adjusted         ``p_value`` after Holm over the family
    improvement        P(regularizer > none) from the held-out accuracies, with bootstrap interval
    verdict            see ``judge``
    negligible         verdict is better or worse, yet ``difference`` lies inside the margin
    exploratory        fewer than ``MINIMUM_PAIRS`` seeds
    """

    selection: Selection
    validation: Interval
    test: Interval
    apparent: Interval
    apparent_p: float
    held_out: Interval
    held_out_p: float
    near_ties: tuple[float, ...]
    difference: Interval
    p_value: float
    p_adjusted: float
    improvement: Interval
    verdict: Verdict
    negligible: bool
    exploratory: bool


def t_interval(values: ArrayLike, level: float = LEVEL) -> Interval:
    """Mean of ``values`` [n] with its two-sided Student t-interval (standard deviation with ddof = 1).

    Units are those of the values. One value gives NaN bounds; equal values give an interval of no width.

    Raises ValueError if ``values`` is empty, not one-dimensional or not finite, or ``level`` not in (0, 1).

    Source: Student (1908), The probable error of a mean, Biometrika 6(1).
    """
    x = _finite(values, "values", ndim=1)
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, got {level}")
    n = len(x)
    mean = float(x.mean())
    if n == 1:
        return Interval(mean, math.nan, math.nan, 1, level)
    # scipy.stats.t.interval gives NaN where the spread is zero; an interval of no width is meant there.
    half = float(special.stdtrit(n - 1, 0.5 + level / 2) * x.std(ddof=1) / math.sqrt(n))
    return Interval(mean, mean - half, mean + half, n, level)


def paired_differences(a: ArrayLike, b: ArrayLike) -> Floats:
    """Differences a - b [seed] of two arrays [seed] over the same seeds in the same order.

    Raises ValueError if the shapes differ or a value is not finite.
    """
    x, y = _finite(a, "a", ndim=1), _finite(b, "b", ndim=1)
    if x.shape != y.shape:
        raise ValueError(f"pairs need the same seeds on both sides, got {len(x)} and {len(y)} values")
    return x - y


def sign_flip_test(differences: ArrayLike, *, resamples: int = 99_999, seed: int = 0) -> float:
    """Two-sided p-value of "the mean paired difference is zero", by flipping signs of ``differences`` [n].

    If either member of a pair could as well have been the other, every pattern of signs is equally likely,
    and p is the share of the 2**n patterns whose absolute sum is at least the one observed. Sums within 1e-9
    of the sum of magnitudes are ties, so that rounding cannot lower p. p lies in [2 / 2**n, 1].

    Up to ``EXACT_UP_TO`` pairs p is exact: every sum of one half of the pairs is matched with the sorted sums
    of the other half, which counts the 2**n patterns in about 2**(n/2) steps (Horowitz & Sahni 1974). Above,
    ``resamples`` patterns are drawn with ``seed`` and p is (1 + hits) / (1 + resamples), which keeps the test
    valid (Phipson & Smyth 2010).

    Raises ValueError if ``differences`` is empty, not one-dimensional or not finite.

    Source: Fisher (1935), section 21.
    """
    x = _finite(differences, "differences", ndim=1)
    magnitudes = np.abs(x)
    threshold = abs(float(x.sum())) - 1e-9 * float(magnitudes.sum())
    if threshold <= 0:
        return 1.0
    if len(x) <= EXACT_UP_TO:
        left, right = _signed_sums(magnitudes[::2]), np.sort(_signed_sums(magnitudes[1::2]))
        upper = (len(right) - np.searchsorted(right, threshold - left)).sum()
        # Flipping every sign mirrors the sums, so the lower tail holds as many as the upper one.
        return min(1.0, 2 * int(upper) / 2 ** len(x))
    flips = np.random.default_rng(seed).integers(0, 2, size=(resamples, len(x)), dtype=np.int8)
    sums = magnitudes.sum() - 2 * (flips @ magnitudes)
    return (1 + int((np.abs(sums) >= threshold).sum())) / (1 + resamples)


def probability_of_improvement(
    a: ArrayLike, b: ArrayLike, *, level: float = LEVEL, resamples: int = 2_000, seed: int = 0
) -> Interval:
    """P(A > B): chance that a training of A beats a training of B, over all pairs of ``a`` [n] and ``b`` [n].

    Ties count half; 0.5 is no difference. The interval is the percentile bootstrap's with ``resamples`` draws
    from ``seed``: seeds are drawn with both their values, since a and b share weights, order and split. It is
    NaN for one seed or ``resamples`` = 0, and has no width where all of one side lie above all of the other.

    Raises ValueError if the shapes differ, a value is not finite, or ``resamples`` < 0.

    Source: Agarwal et al. (2021), section 4.3 (the Mann-Whitney U statistic over n * n).
    """
    paired_differences(a, b)
    if resamples < 0:
        raise ValueError(f"resamples must not be negative, got {resamples}")
    x, y = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    n = len(x)
    probability = float(_improvement(x, y))
    if n == 1 or resamples == 0:
        return Interval(probability, math.nan, math.nan, n, level)
    bounds = stats.bootstrap(
        (x, y),
        _improvement,
        n_resamples=resamples,
        batch=max(1, 1_000_000 // n**2),
        paired=True,
        vectorized=True,
        confidence_level=level,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return Interval(probability, float(bounds.low), float(bounds.high), n, level)


def holm(p_values: ArrayLike) -> Floats:
    """Holm's step-down adjusted p-values [m] of the ``p_values`` [m] of one family, in the given order.

    Raises ValueError if a p-value is NaN or outside [0, 1].

    Source: Holm (1979), as in ``statsmodels.stats.multitest.multipletests``.
    """
    p = np.asarray(p_values, dtype=float)
    if p.ndim != 1:
        raise ValueError(f"p_values must have one dimension, got shape {p.shape}")
    if not np.all((p >= 0) & (p <= 1)):
        raise ValueError("p_values must lie in [0, 1]")
    if p.size == 0:
        return p
    return multipletests(p, method="holm")[1]


def select_lam(validation: ArrayLike, lams: ArrayLike) -> Selection:
    """The one of ``lams`` [lam] with the highest mean over seeds of ``validation`` [lam, seed].

    Ties go to the smaller lam. Accuracies are fractions; the order of the grid does not matter.

    Raises ValueError if shapes do not fit, lams repeat, or a value is not finite: a lam with a missing or
    diverged cell must be left out by the caller, by name, and not by a mean over the seeds that survived.
    """
    scores, strengths = _checked(validation, lams)
    order = np.argsort(strengths)
    index = int(order[_first_best(scores[order].mean(axis=1))])
    return Selection(index, float(strengths[index]), _edge(index, order))


def select_lam_without_each(validation: ArrayLike, lams: ArrayLike) -> NDArray[np.intp]:
    """For each seed, the index [seed] of the lam that the *other* seeds of ``validation`` [lam, seed] choose.

    ``lams`` is [lam]; ties go to the smaller lam. Reading the test accuracy of seed s at this index is
    leave-one-seed-out cross-validation of the choice of lam: seed s has no say in it.

    Raises ValueError as ``select_lam`` does, and if there are fewer than two seeds.

    Source: Varma & Simon (2006), nested cross-validation.
    """
    scores, strengths = _checked(validation, lams)
    seeds = scores.shape[1]
    if seeds < 2:
        raise ValueError("leaving one seed out needs at least two seeds")
    order = np.argsort(strengths)
    ranked = scores[order]
    others = (ranked.sum(axis=1, keepdims=True) - ranked) / (seeds - 1)
    return order[_first_best(others)]


def near_tied_lams(validation: ArrayLike, lams: ArrayLike, width: float = NEAR_TIE) -> NDArray[np.bool_]:
    """Which lams [lam] are as good as tied with the best on ``validation`` [lam, seed]; the best one is.

    A lam is tied if its mean paired deficit to the chosen lam is at most ``width`` standard errors of that
    deficit (ddof = 1). With one seed only equal accuracies are ties.

    Raises ValueError as ``select_lam`` does, and if ``width`` is negative.

    Source: after the one-standard-error rule of Breiman et al. (1984), here with paired differences.
    """
    if width < 0:
        raise ValueError(f"width must not be negative, got {width}")
    scores, strengths = _checked(validation, lams)
    deficits = scores[select_lam(scores, strengths).index] - scores
    seeds = scores.shape[1]
    errors = deficits.std(axis=1, ddof=1) / math.sqrt(seeds) if seeds > 1 else np.zeros(len(scores))
    return deficits.mean(axis=1) <= width * errors + _TIE


def judge(
    difference: Interval,
    p_adjusted: float,
    comparisons: int = 1,
    *,
    margin: float = MARGIN,
    alpha: float = ALPHA,
) -> Verdict:
    """The verdict on one ``difference`` (fraction) in a family of ``comparisons``; the first rule that holds.

    1. fewer than ``MINIMUM_PAIRS`` pairs: too few seeds;
    2. ``p_adjusted`` <= ``alpha``: better or worse, by the sign of the mean. This goes before rule 3: a
       difference can be both established and small. Its direction is then stated, and
       ``Comparison.negligible`` says that it lies inside the margin;
    3. interval inside +-``margin``, bounds included: equivalent. At level 0.95 this is two one-sided tests at
       2.5 % each (Schuirmann 1987), stricter than the customary 5 %;
    4. fewer pairs than ``seeds_needed(comparisons, alpha)``: too few seeds, since not even a unanimous result
       could have reached ``alpha``;
    5. otherwise: no difference shown, which is not evidence that there is none.

    The interval is not adjusted for the family, so that it may exclude zero under verdict 5.

    Raises ValueError if ``p_adjusted`` is outside [0, 1], ``margin`` is negative, or ``comparisons`` < 1.
    """
    if not 0 <= p_adjusted <= 1:
        raise ValueError(f"p_adjusted must lie in [0, 1], got {p_adjusted}")
    if margin < 0:
        raise ValueError(f"margin must not be negative, got {margin}")
    needed = seeds_needed(comparisons, alpha)
    if difference.n < MINIMUM_PAIRS:
        return Verdict.TOO_FEW
    if p_adjusted <= alpha:
        return Verdict.BETTER if difference.mean > 0 else Verdict.WORSE
    if _inside(difference, margin):
        return Verdict.EQUIVALENT
    return Verdict.TOO_FEW if difference.n < needed else Verdict.NO_DIFFERENCE


def within_best(intervals: Sequence[Interval]) -> NDArray[np.bool_]:
    """Which rows [row] to set in bold: those whose mean reaches the lower bound of the best row's interval.

    The best row has the highest mean. Where it has no interval (one seed), only rows with the same mean
    qualify. An empty sequence gives an empty array.

    Raises ValueError if a mean is not finite.
    """
    if not intervals:
        return np.zeros(0, dtype=bool)
    means = _finite([row.mean for row in intervals], "means", ndim=1)
    best = intervals[int(means.argmax())]
    return means >= (best.mean if math.isnan(best.low) else best.low)


def compare(
    family: Mapping[str, Grid],
    baseline_test: ArrayLike,
    *,
    level: float = LEVEL,
    margin: float = MARGIN,
    alpha: float = ALPHA,
    resamples: int = 2_000,
    seed: int = 0,
) -> dict[str, Comparison]:
    """Choose lam, compare with `none`, adjust and judge: the whole of the report's inference for one family.

    ``family`` maps each regularizer to its Grid; every array has the seeds of ``baseline_test`` [seed] in the
    same order. Accuracies are fractions in [0, 1]. The result keeps the order of ``family``, and all but
    ``p_adjusted``, ``verdict`` and ``negligible`` depends on the one regularizer only. A single seed has no
    left-out choice: lam is then the one that seed chooses, and the verdict is too few seeds in any case.

    ``level`` is that of all intervals, ``margin`` a fraction, ``alpha`` family-wise; ``resamples`` and
    ``seed`` are the bootstrap's (0 resamples: no interval for the probability of improvement).

    Raises ValueError if a value is missing, not finite or outside [0, 1], or if shapes do not fit.

    Source: see the module's text on the winner's curse.
    """
    baseline = _accuracies(baseline_test, "baseline_test", ndim=1)
    drafts = {
        name: _analyse(name, grid, baseline, level=level, resamples=resamples, seed=seed)
        for name, grid in family.items()
    }
    adjusted = holm([draft["p_value"] for draft in drafts.values()])
    results = {}
    for (name, draft), p_adjusted in zip(drafts.items(), adjusted, strict=True):
        verdict = judge(draft["difference"], float(p_adjusted), len(drafts), margin=margin, alpha=alpha)
        results[name] = Comparison(
            **draft,
            p_adjusted=float(p_adjusted),
            verdict=verdict,
            negligible=verdict in (Verdict.BETTER, Verdict.WORSE) and _inside(draft["difference"], margin),
            exploratory=len(baseline) < MINIMUM_PAIRS,
        )
    return results


def _analyse(name: str, grid: Grid, baseline: Floats, *, level: float, resamples: int, seed: int) -> dict:
    """All fields of a Comparison that do not depend on the rest of the family."""
    validation = _accuracies(grid.validation, f"validation of {name}", ndim=2)
    test = _accuracies(grid.test, f"test of {name}", ndim=2)
    if validation.shape != test.shape or test.shape[1] != len(baseline):
        shapes = f"validation {validation.shape}, test {test.shape}, baseline {baseline.shape}"
        raise ValueError(f"shapes of {name} do not fit: {shapes}")
    selection = select_lam(validation, grid.lams)
    seeds = np.arange(len(baseline))
    alone = len(seeds) == 1
    choices = np.array([selection.index]) if alone else select_lam_without_each(validation, grid.lams)
    held_out_test = test[choices, seeds]
    tied = np.flatnonzero(near_tied_lams(validation, grid.lams))

    differences = [paired_differences(held_out_test, baseline), *(test[tied] - baseline)]
    intervals = [t_interval(values, level) for values in differences]
    p_values = [sign_flip_test(values) for values in differences]
    apparent = 1 + int(np.flatnonzero(tied == selection.index)[0])
    one_sign = abs(sum(np.sign(interval.mean) for interval in intervals)) == len(intervals)
    return {
        "selection": selection,
        "validation": t_interval(validation[selection.index], level),
        "test": t_interval(test[selection.index], level),
        "apparent": intervals[apparent],
        "apparent_p": p_values[apparent],
        "held_out": intervals[0],
        "held_out_p": p_values[0],
        "near_ties": tuple(float(lam) for lam in np.asarray(grid.lams, dtype=float)[tied]),
        "difference": Interval(
            intervals[0].mean,
            min(interval.low for interval in intervals),
            max(interval.high for interval in intervals),
            len(seeds),
            level,
        ),
        "p_value": max(p_values) if one_sign else 1.0,
        "improvement": probability_of_improvement(held_out_test, baseline, level=level, resamples=resamples, seed=seed),
    }


def _improvement(a: Floats, b: Floats, axis: int = -1) -> Floats:
    """P(A > B) along ``axis`` of ``a`` and ``b`` [..., n], with the signature of a scipy.stats statistic."""
    x, y = np.moveaxis(a, axis, -1)[..., :, None], np.moveaxis(b, axis, -1)[..., None, :]
    return (0.5 * ((x > y) + 1.0 - (x < y))).mean(axis=(-2, -1))


def _signed_sums(magnitudes: Floats) -> Floats:
    """All 2**k sums [2**k] of +- each of the ``magnitudes`` [k]."""
    sums = np.zeros(1)
    for magnitude in magnitudes:
        sums = np.concatenate([sums - magnitude, sums + magnitude])
    return sums


def _first_best(means: Floats) -> NDArray[np.intp]:
    """First index along axis 0 whose mean equals the maximum but for rounding."""
    return (means >= means.max(axis=0) - _TIE).argmax(axis=0)


def _edge(index: int, order: NDArray[np.intp]) -> str | None:
    if len(order) == 1:
        return "only"
    return {int(order[0]): "lowest", int(order[-1]): "highest"}.get(index)


def _inside(interval: Interval, margin: float) -> bool:
    return -margin <= interval.low and interval.high <= margin


def _checked(validation: ArrayLike, lams: ArrayLike) -> tuple[Floats, Floats]:
    scores, strengths = _finite(validation, "validation", ndim=2), _finite(lams, "lams", ndim=1)
    if len(scores) != len(strengths):
        raise ValueError(f"validation has {len(scores)} rows for {len(strengths)} lams")
    if len(np.unique(strengths)) != len(strengths):
        raise ValueError("lams must not repeat")
    return scores, strengths


def _finite(values: ArrayLike, name: str, *, ndim: int) -> Floats:
    array = np.asarray(values, dtype=float)
    if array.ndim != ndim:
        raise ValueError(f"{name} must have {ndim} dimension(s), got shape {array.shape}")
    if array.size == 0:
        raise ValueError(f"{name} must not be empty")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} must be finite: missing and diverged trials are dealt with before")
    return array


def _accuracies(values: ArrayLike, name: str, *, ndim: int) -> Floats:
    array = _finite(values, name, ndim=ndim)
    if array.min() < 0 or array.max() > 1:
        raise ValueError(f"{name} must be fractions in [0, 1], not percentages")
    return array
