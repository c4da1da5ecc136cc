"""The report's statistics as pure functions of arrays.

Accuracies are fractions in [0, 1]; arrays are indexed [lam, seed] or [seed], and the seed is the unit: seed s is the
same initial weights, batch order and split for every regularizer, so comparisons are made in pairs. Nothing here plots,
reads files or keeps random state; equal input gives equal output, bit for bit.

References
----------
Agarwal et al. (2021), Deep reinforcement learning at the edge of the statistical precipice, NeurIPS 34.
Breiman, Friedman, Olshen & Stone (1984), Classification and Regression Trees, section 3.4.3.
Fisher (1935), The Design of Experiments, section 21.
Holm (1979), A simple sequentially rejective multiple test procedure, Scand. J. Statist. 6(2).
Horowitz & Sahni (1974), Computing partitions with applications to the knapsack problem, J. ACM 21(2).
Phipson & Smyth (2010), Permutation p-values should never be zero, Stat. Appl. Genet. Mol. Biol. 9(1).
Varma & Simon (2006), Bias in error estimation when using cross-validation for model selection, BMC Bioinformatics 7:91.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special, stats
from statsmodels.stats.multitest import multipletests

LEVEL = 0.95
EXACT_UP_TO = 40  # pairs, up to which `sign_flip_test` counts every sign pattern
NEAR_TIE = 0.5  # how many standard errors behind the best, on validation, a lam still counts as tied with it
_TIE = 1e-12  # accuracies are multiples of 1 / images; means that differ by less than this differ by rounding only

Floats = NDArray[np.float64]


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

    `edge` is "lowest" or "highest" (the best strength may lie outside the grid), "only" (a grid of one lam: nothing was
    tuned) or None (inside the grid).
    """

    index: int
    lam: float
    edge: str | None

    @property
    def at_edge(self) -> bool:
        return self.edge in ("lowest", "highest")


def t_interval(values: ArrayLike, level: float = LEVEL) -> Interval:
    """Return the mean of `values` [n] with its two-sided Student t-interval (standard deviation with ddof = 1).

    Units are those of the values. One value gives NaN bounds; equal values give an interval of no width.

    Raises ValueError if `values` is empty, not one-dimensional or not finite, or `level` not in (0, 1).

    Source: Student (1908), The probable error of a mean, Biometrika 6(1).
    """
    x = _finite(values, "values", ndim=1)
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, got {level}")
    n, mean = len(x), float(x.mean())
    if n == 1:
        return Interval(mean, math.nan, math.nan, 1, level)
    # scipy.stats.t.interval gives NaN where the spread is zero; an interval of no width is meant there.
    half = float(special.stdtrit(n - 1, 0.5 + level / 2) * x.std(ddof=1) / math.sqrt(n))
    return Interval(mean, mean - half, mean + half, n, level)


def paired_differences(a: ArrayLike, b: ArrayLike) -> Floats:
    """Return the differences a - b [seed] of two arrays [seed] over the same seeds in the same order.

    Raises ValueError if the shapes differ or a value is not finite.
    """
    x, y = _finite(a, "a", ndim=1), _finite(b, "b", ndim=1)
    if x.shape != y.shape:
        raise ValueError(f"pairs need the same seeds on both sides, got {len(x)} and {len(y)} values")
    return x - y


def sign_flip_test(differences: ArrayLike, *, resamples: int = 99_999, seed: int = 0) -> float:
    """Return the two-sided p-value of "the mean paired difference is zero", by flipping signs of `differences` [n].

    If either member of a pair could as well have been the other, every pattern of signs is equally likely, and p is the
    share of the 2**n patterns whose absolute sum is at least the one observed. Sums within 1e-9 of the sum of
    magnitudes are ties, so that rounding cannot lower p. p lies in [2 / 2**n, 1].

    Up to `EXACT_UP_TO` pairs p is exact: every sum of one half of the pairs is matched with the sorted sums of the
    other half, which counts the 2**n patterns in about 2**(n/2) steps (Horowitz & Sahni 1974). Above, `resamples`
    patterns are drawn with `seed` and p is (1 + hits) / (1 + resamples), which keeps the test valid (Phipson & Smyth
    2010).

    Raises ValueError if `differences` is empty, not one-dimensional or not finite.

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
    """Return P(A > B): the chance that a training of A beats a training of B, over all pairs of `a` [n] and `b` [n].

    Ties count half; 0.5 is no difference. The interval is the percentile bootstrap's with `resamples` draws from
    `seed`: seeds are drawn with both their values, since a and b share weights, order and split. It is NaN for one seed
    or `resamples` = 0, and has no width where all of one side lie above all of the other.

    Raises ValueError if the shapes differ, a value is not finite, or `resamples` < 0.

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
    """Return Holm's step-down adjusted p-values [m] of the `p_values` [m] of one family, in the given order.

    Raises ValueError if a p-value is NaN or outside [0, 1].

    Source: Holm (1979), as in `statsmodels.stats.multitest.multipletests`.
    """
    p = np.asarray(p_values, dtype=float)
    if p.ndim != 1:
        raise ValueError(f"p_values must have one dimension, got shape {p.shape}")
    if not np.all((p >= 0) & (p <= 1)):
        raise ValueError("p_values must lie in [0, 1]")
    return multipletests(p, method="holm")[1] if p.size else p


def select_lam(validation: ArrayLike, lams: ArrayLike) -> Selection:
    """Return the one of `lams` [lam] with the highest mean over seeds of `validation` [lam, seed].

    Ties go to the smaller lam. Accuracies are fractions; the order of the grid does not matter.

    Raises ValueError if shapes do not fit, lams repeat, or a value is not finite: a lam with a missing or diverged cell
    must be left out by the caller, by name, and not by a mean over the seeds that survived.
    """
    scores, strengths = _checked(validation, lams)
    order = np.argsort(strengths)
    index = int(order[_first_best(scores[order].mean(axis=1))])
    return Selection(index, float(strengths[index]), _edge(index, order))


def select_lam_without_each(validation: ArrayLike, lams: ArrayLike) -> NDArray[np.intp]:
    """Return for each seed the index [seed] of the lam that the *other* seeds of `validation` [lam, seed] choose.

    `lams` is [lam]; ties go to the smaller lam. Reading the test accuracy of seed s at this index is leave-one-seed-out
    cross-validation of the choice of lam: seed s has no say in it.

    Raises ValueError as `select_lam` does, and if there are fewer than two seeds.

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
    """Return which lams [lam] are as good as tied with the best on `validation` [lam, seed]; the best one is.

    A lam is tied if its mean paired deficit to the chosen lam is at most `width` standard errors of that deficit (ddof 1).
    With one seed only equal accuracies are ties.

    Raises ValueError as `select_lam` does, and if `width` is negative.

    Source: after the one-standard-error rule of Breiman et al. (1984), here with paired differences.
    """
    if width < 0:
        raise ValueError(f"width must not be negative, got {width}")
    scores, strengths = _checked(validation, lams)
    deficits = scores[select_lam(scores, strengths).index] - scores
    seeds = scores.shape[1]
    errors = deficits.std(axis=1, ddof=1) / math.sqrt(seeds) if seeds > 1 else np.zeros(len(scores))
    return deficits.mean(axis=1) <= width * errors + _TIE


def within_best(intervals: Sequence[Interval]) -> NDArray[np.bool_]:
    """Return which rows [row] to set in bold: those whose mean reaches the lower bound of the best row's interval.

    The best row has the highest mean. Where it has no interval (one seed), only rows with the same mean qualify. An
    empty sequence gives an empty array.

    Raises ValueError if a mean is not finite.
    """
    if not intervals:
        return np.zeros(0, dtype=bool)
    means = _finite([row.mean for row in intervals], "means", ndim=1)
    best = intervals[int(means.argmax())]
    return means >= (best.mean if math.isnan(best.low) else best.low)


def _improvement(a: Floats, b: Floats, axis: int = -1) -> Floats:
    """Return P(A > B) along `axis` of `a` and `b` [..., n], with the signature of a scipy.stats statistic."""
    x, y = np.moveaxis(a, axis, -1)[..., :, None], np.moveaxis(b, axis, -1)[..., None, :]
    return (0.5 * ((x > y) + 1.0 - (x < y))).mean(axis=(-2, -1))


def _signed_sums(magnitudes: Floats) -> Floats:
    """Return all 2**k sums [2**k] of +- each of the `magnitudes` [k]."""
    sums = np.zeros(1)
    for magnitude in magnitudes:
        sums = np.concatenate([sums - magnitude, sums + magnitude])
    return sums


def _first_best(means: Floats) -> NDArray[np.intp]:
    """Return the first index along axis 0 whose mean equals the maximum but for rounding."""
    return (means >= means.max(axis=0) - _TIE).argmax(axis=0)


def _edge(index: int, order: NDArray[np.intp]) -> str | None:
    if len(order) == 1:
        return "only"
    return {int(order[0]): "lowest", int(order[-1]): "highest"}.get(index)


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


def accuracies(values: ArrayLike, name: str, *, ndim: int) -> Floats:
    array = _finite(values, name, ndim=ndim)
    if array.min() < 0 or array.max() > 1:
        raise ValueError(f"{name} must be fractions in [0, 1], not percentages")
    return array
