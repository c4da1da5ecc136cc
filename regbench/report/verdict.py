"""The verdict on each regularizer: lam is chosen, compared with `none`, adjusted for the family, and judged.

The winner's curse
------------------
lam is chosen on the mean validation accuracy over the same seeds whose test accuracies are then compared with `none`.
Whatever makes one training come out well raises its validation and its test accuracy alike, so the chosen lam was, on
average, lucky on test as well: its mean difference is biased upwards (Varma & Simon 2006; Cawley & Talbot 2010), and a
test that ignores this errs too often. The textbook cure is nested cross-validation, here: leave one seed out. Seed s
contributes its test accuracy at the lam which the other seeds choose. That removes the bias, but it does not cure the
test: the choices share data, the differences of two seeds are positively correlated, and the usual standard error is
too small (Bengio & Grandvalet 2004). Where nothing differs it errs even more often than ignoring the matter does.

The curse strikes where several lams are nearly tied. `compare` therefore claims only what holds at every lam within
half a standard error of the best on validation, and for the left-out differences as well (an intersection-union test,
Berger 1982): p is the largest of these sign-flip p-values, or 1 where the means differ in sign; the interval runs from
their lowest lower to their highest upper bound; the mean beside it is the unbiased one, from the seeds left out. Where
one lam is clearly best all this is the ordinary paired test.

Half a standard error is a choice by measured size and power. A whole one, as in the rule of Breiman et al. (1984),
costs about ten points of power, and lets in any lam that fails in a single seed: one outlier makes a mean deficit of
just one standard error. The rate of wrong claims is measured, not derived. It stays below 5 % for noise of realistic
size, and exceeds it where validation and test share nearly all noise and the grid has many equal lams. See
`benchmarks/calibration.py` and its committed results.

References
----------
Bengio & Grandvalet (2004), No unbiased estimator of the variance of K-fold cross-validation, JMLR 5.
Berger (1982), Multiparameter hypothesis testing and acceptance sampling, Technometrics 24(4).
Breiman, Friedman, Olshen & Stone (1984), Classification and Regression Trees, section 3.4.3.
Cawley & Talbot (2010), On over-fitting in model selection and subsequent selection bias in performance evaluation, JMLR
11.
Holm (1979), A simple sequentially rejective multiple test procedure, Scand. J. Statist. 6(2).
Schuirmann (1987), A comparison of the two one-sided tests procedure and the power approach for assessing the
equivalence of average bioavailability, J. Pharmacokinet. Biopharm. 15(6).
Varma & Simon (2006), Bias in error estimation when using cross-validation for model selection, BMC Bioinformatics 7:91.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import ArrayLike

from regbench.report import statistics
from regbench.report.power import ALPHA, MINIMUM_PAIRS, seeds_needed
from regbench.report.statistics import LEVEL, Floats, Interval, Selection, accuracies, t_interval

MARGIN = 0.005  # differences within +- this fraction (half a percentage point) count as practically none


class Verdict(StrEnum):
    """The verdict on a regularizer, at its chosen lam, against `none`."""

    BETTER = "better"
    WORSE = "worse"
    EQUIVALENT = "equivalent"
    NO_DIFFERENCE = "no difference shown"
    TOO_FEW = "too few seeds"


@dataclass(frozen=True)
class Grid:
    """Accuracies of one regularizer: `lams` [lam], `validation` and `test` [lam, seed], fractions."""

    lams: ArrayLike
    validation: ArrayLike
    test: ArrayLike


@dataclass(frozen=True)
class Comparison:
    """One regularizer at its chosen lam against `none`; made by `compare`.

    Accuracies and differences are fractions; the module's text says why there are several analyses.
    """

    selection: Selection  # lam chosen on the mean validation accuracy of all seeds
    validation: Interval  # accuracy at that lam, with t-interval
    test: Interval
    apparent: Interval  # paired difference at that lam: biased upwards by the choice
    apparent_p: float  # its sign-flip p-value
    held_out: Interval  # paired difference in which each seed is tested at the lam the other seeds choose
    held_out_p: float  # its sign-flip p-value
    near_ties: tuple[float, ...]  # lams tied with the chosen one on validation, itself included, in the grid's order
    difference: Interval  # what to report: mean of `held_out`; interval over `held_out` and all `near_ties`
    p_value: float  # largest p-value of these; 1 where their means differ in sign
    p_adjusted: float  # `p_value` after Holm over the family
    improvement: Interval  # P(regularizer > none) from the held-out accuracies, with bootstrap interval
    verdict: Verdict  # see `judge`
    negligible: bool  # verdict is better or worse, yet `difference` lies inside the margin
    exploratory: bool  # fewer than `MINIMUM_PAIRS` seeds

    @property
    def tied(self) -> bool:
        return len(self.near_ties) > 1


def judge(
    difference: Interval, p_adjusted: float, comparisons: int = 1, *, margin: float = MARGIN, alpha: float = ALPHA
) -> Verdict:
    """Return the verdict on one `difference` (fraction) in a family of `comparisons`; the first rule that holds.

    1. fewer than `MINIMUM_PAIRS` pairs: too few seeds;
    2. `p_adjusted` <= `alpha`: better or worse, by the sign of the mean. This goes before rule 3: a difference can be
       both established and small. Its direction is then stated, and `Comparison.negligible` says that it lies inside
       the margin;
    3. interval inside +-`margin`, bounds included: equivalent. At level 0.95 this is two one-sided tests at 2.5 % each
       (Schuirmann 1987), stricter than the customary 5 %;
    4. fewer pairs than `seeds_needed(comparisons, alpha)`: too few seeds, since not even a unanimous result could have
       reached `alpha`;
    5. otherwise: no difference shown, which is not evidence that there is none.

    The interval is not adjusted for the family, so that it may exclude zero under verdict 5.

    Raises ValueError if `p_adjusted` is outside [0, 1], `margin` is negative, or `comparisons` < 1.
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


def _inside(interval: Interval, margin: float) -> bool:
    return -margin <= interval.low and interval.high <= margin


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
    """Choose lam, compare with `none`, adjust and judge; return regularizer -> Comparison.

    `family` maps each regularizer to its Grid; every array has the seeds of `baseline_test` [seed] in the same order.
    Accuracies are fractions in [0, 1]. The result keeps the order of `family`, and all but `p_adjusted`, `verdict` and
    `negligible` depends on the one regularizer only. A single seed has no left-out choice: lam is then the one that
    seed chooses, and the verdict is too few seeds in any case.

    `level` is that of all intervals, `margin` a fraction, `alpha` family-wise; `resamples` and `seed` are the
    bootstrap's (0 resamples: no interval for the probability of improvement).

    Raises ValueError if a value is missing, not finite or outside [0, 1], or if shapes do not fit.

    Source: see the module's text on the winner's curse.
    """
    baseline = accuracies(baseline_test, "baseline_test", ndim=1)
    drafts = {
        name: _analyse(name, grid, baseline, level=level, resamples=resamples, seed=seed)
        for name, grid in family.items()
    }
    adjusted = statistics.holm([draft["p_value"] for draft in drafts.values()])
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
    """Return all fields of a Comparison that do not depend on the rest of the family."""
    validation = accuracies(grid.validation, f"validation of {name}", ndim=2)
    test = accuracies(grid.test, f"test of {name}", ndim=2)
    if validation.shape != test.shape or test.shape[1] != len(baseline):
        shapes = f"validation {validation.shape}, test {test.shape}, baseline {baseline.shape}"
        raise ValueError(f"shapes of {name} do not fit: {shapes}")
    selection = statistics.select_lam(validation, grid.lams)
    n = len(baseline)
    choices = statistics.select_lam_without_each(validation, grid.lams) if n > 1 else np.array([selection.index])
    held_out_test = test[choices, np.arange(n)]
    tied = np.flatnonzero(statistics.near_tied_lams(validation, grid.lams))

    differences = [statistics.paired_differences(held_out_test, baseline), *(test[tied] - baseline)]
    intervals = [t_interval(values, level) for values in differences]
    p_values = [statistics.sign_flip_test(values) for values in differences]
    apparent = 1 + int(np.flatnonzero(tied == selection.index)[0])
    low, high = min(interval.low for interval in intervals), max(interval.high for interval in intervals)
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
        "difference": Interval(intervals[0].mean, low, high, n, level),
        "p_value": max(p_values) if one_sign else 1.0,
        "improvement": statistics.probability_of_improvement(
            held_out_test, baseline, level=level, resamples=resamples, seed=seed
        ),
    }
