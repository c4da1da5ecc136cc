"""The verdicts on a family of comparisons, from paired differences on fresh seeds.

A family is that of all regularizers at their chosen lams with `none`, or that of all pairs of regularizers. The seeds
had no say in the choice of lam, so that there is nothing to correct for. Over the family the error is held by Holm's
procedure: of the comparisons that are still open, the one with the smallest p-value is tested at the look's share of
alpha over the number of comparisons that are not yet told apart. The interval beside a verdict is at that very level,
and the verdict is read off it. By the union bound the looks' shares add up to alpha whichever looks are made: a
comparison that stops before the last one, for whatever reason, errs no more often.

References
----------
Holm (1979), A simple sequentially rejective multiple test procedure, Scand. J. Statist. 6(2).
Schuirmann (1987), A comparison of the two one-sided tests procedure and the power approach for assessing the
equivalence of average bioavailability, J. Pharmacokinet. Biopharm. 15(6).
"""

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import groupby
from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike

from regbench.statistics.looks import ALPHA, spending
from regbench.statistics.paired import Interval, PairedTest

K = TypeVar("K", bound=Hashable)  # the name of a comparison
MARGIN = 0.005  # differences within +- this fraction (half a percentage point) count as practically none


class Verdict(StrEnum):
    """The verdict on a comparison: on a regularizer, at its chosen lam, against `none` or another one."""

    BETTER = "better"
    WORSE = "worse"
    EQUIVALENT = "equivalent"
    NO_DIFFERENCE = "no difference shown"
    TOO_FEW = "too few seeds"


@dataclass(frozen=True)
class Comparison:
    """One comparison of a family; differences are fractions.

    looked: fresh seeds after which it was judged, 0 if no look has been reached. difference: over the pairs of these
    seeds. p_adjusted: its p-value times alpha over the level at which it was tested, so that it is at most alpha where
    the interval excludes zero.
    """

    verdict: Verdict
    difference: Interval
    p_adjusted: float
    looked: int
    margin: float = MARGIN

    @property
    def settled(self) -> bool:
        """Whether more seeds would change nothing: the verdict is better, worse or equivalent."""
        return self.verdict in (Verdict.BETTER, Verdict.WORSE, Verdict.EQUIVALENT)

    @property
    def negligible(self) -> bool:
        """Whether the difference is within the margin for sure, be its sign sure or not."""
        return self.difference.within(self.margin)

    @property
    def trivial(self) -> bool:
        """Whether it is better or worse for sure, but for sure by less than the margin."""
        return self.negligible and self.verdict != Verdict.EQUIVALENT


def judge(
    family: Mapping[K, ArrayLike], looks: Sequence[int], *, alpha: float = ALPHA, margin: float = MARGIN
) -> dict[K, Comparison]:
    """Return the comparison of each member of a family, judged after `looks` (rising numbers of fresh seeds).

    `family` has for each the paired differences [seed], as of a regularizer to `none`, in the order of the fresh seeds,
    as far as both trainings have ended; NaN where one of them gave no accuracy: such a pair is not counted. One that is
    settled at a look is not judged again. At each look, of those that have reached it, the first rule that holds:

    1. its interval excludes zero: better or worse, and the next one is tested at a less strict level;
    2. its interval lies within +-`margin`: equivalent. This is two one-sided tests (Schuirmann 1987);
    3. there are more looks to come, or its interval is infinite: too few seeds;
    4. no difference shown, which is not evidence that there is none.
    """
    differences = {name: np.asarray(values, dtype=float) for name, values in family.items()}
    found = {name: _unjudged(values, margin) for name, values in differences.items()}
    told_apart = 0
    for look, spent in zip(looks, spending(looks, alpha), strict=True):
        tests = {
            name: PairedTest(values[:look][np.isfinite(values[:look])])
            for name, values in differences.items()
            if not found[name].settled and len(values) >= look and np.isfinite(values[:look]).any()
        }
        p_values = {name: test.p_value for name, test in tests.items()}
        for p_value, tied in groupby(sorted(tests, key=p_values.get), p_values.get):
            level = spent / (len(family) - told_apart)  # the same for equal p-values, whichever comes first
            for name in tied:
                interval = tests[name].interval(level)
                verdict = _verdict(interval, margin, last=look == looks[-1])
                told_apart += verdict in (Verdict.BETTER, Verdict.WORSE)
                found[name] = Comparison(verdict, interval, min(1.0, p_value * (alpha / level)), look, margin)
    return found


def _verdict(interval: Interval, margin: float, last: bool) -> Verdict:
    if interval.low > 0 or interval.high < 0:
        return Verdict.BETTER if interval.low > 0 else Verdict.WORSE
    if interval.within(margin):
        return Verdict.EQUIVALENT
    return Verdict.NO_DIFFERENCE if last and interval.bounded else Verdict.TOO_FEW


def _unjudged(differences: np.ndarray, margin: float) -> Comparison:
    finite = differences[np.isfinite(differences)]
    mean = float(finite.mean()) if len(finite) else math.nan
    return Comparison(Verdict.TOO_FEW, Interval(mean, -math.inf, math.inf, len(finite), math.nan), 1.0, 0, margin)
