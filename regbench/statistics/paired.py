"""The exact paired test, its interval, and what pairing is worth.

If either training of a pair could as well have been the other, every pattern of signs of the differences is equally
likely (Fisher 1935). Flipping the signs of a set of pairs raises the sum if and only if the mean over that set is below
zero; so the p-value of "the mean difference is delta" follows from where delta lies among the means over all sets of
pairs, and the deltas that are not rejected are an interval between two of these means (Hartigan 1969). Test and interval
are read off the same means, and cannot contradict each other. Where there are too many sets, those of a subgroup do: the
test stays exact, as it would not with as many sets that are drawn once and for all (Hemerik & Goeman 2018).

References
----------
Fisher (1935), The Design of Experiments, section 21.
Hartigan (1969), Using subsample values as typical values, J. Am. Stat. Assoc. 64(328).
Hemerik & Goeman (2018), Exact testing with random permutations, TEST 27.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

MOST_FLIPS = 15  # pairs, up to which every set is counted; above, the 2**15 of a group of sets
_DIGITS = 12  # accuracies are multiples of 1 / images: means that are equal must not differ by rounding


@dataclass(frozen=True)
class Interval:
    """The mean of n values with its confidence interval, which is infinite where n values cannot exclude anything."""

    mean: float
    low: float
    high: float
    n: int
    level: float

    @property
    def bounded(self) -> bool:
        return math.isfinite(self.low) and math.isfinite(self.high)

    def within(self, margin: float) -> bool:
        """Return whether the whole interval lies within +-margin, bounds included."""
        return -margin <= self.low and self.high <= margin


class PairedTest:
    """The sign-flip test of paired `differences` [n], and its intervals; units are those of the differences.

    Up to `MOST_FLIPS` pairs all 2**n patterns are counted. Above, those of a group of 2**15 patterns, always the same.

    Raises ValueError if `differences` is empty, not one-dimensional or not finite.
    """

    def __init__(self, differences: ArrayLike) -> None:
        values = np.asarray(differences, dtype=float)
        if values.ndim != 1 or not len(values) or not np.isfinite(values).all():
            raise ValueError(f"differences must be a sequence of one or more finite numbers, got {differences!r}")
        self.n, self.mean = len(values), float(values.mean())
        self._means = np.round(_sets(self.n) @ values, _DIGITS)

    @property
    def p_value(self) -> float:
        """The two-sided p-value of "the mean difference is zero", in [2 / 2**n, 1]."""
        fewer = int(min(np.count_nonzero(self._means <= 0), np.count_nonzero(self._means >= 0)))
        return min(1.0, 2 * (1 + fewer) / (len(self._means) + 1))

    def interval(self, alpha: float) -> Interval:
        """Return the mean differences whose two-sided p-value is above `alpha`, at level 1 - alpha."""
        # as many of the means as may lie on one side; the tolerance is for an alpha such as 2 / 2**n
        count = math.floor(alpha * (len(self._means) + 1) / 2 + 1e-9)
        if not count:
            return Interval(self.mean, -math.inf, math.inf, self.n, 1 - alpha)
        ends = (count - 1, len(self._means) - count)
        low, high = np.partition(self._means, ends)[list(ends)]
        return Interval(self.mean, float(low), float(high), self.n, 1 - alpha)


@lru_cache(maxsize=8)
def _sets(n: int) -> Floats:
    """Return [sets, n] whose products with n values are the means over a group of sets, but for the empty one."""
    flips = min(n, MOST_FLIPS)
    patterns, bits = np.arange(1, 2**flips), np.arange(flips)
    # a pair is in a set if its code has an odd number of bits in common with the set's pattern: sets so made are closed
    # under symmetric difference; no two pairs share a code, or they would always be flipped together
    codes = 1 << bits
    others = np.random.default_rng(n).permutation(np.setdiff1d(patterns, codes))[: n - flips]
    codes = np.concatenate([codes, others])
    members = (patterns[:, None] >> bits & 1) @ (codes >> bits[:, None] & 1) & 1
    return members / members.sum(axis=1, keepdims=True)


@dataclass(frozen=True)
class Noise:
    """The noise of a comparison over n pairs, in the units of its values.

    spread: standard deviation of the paired differences (ddof 1). correlation: of the pairs, NaN where one side does
    not vary. pairing: variance of the paired differences over that of unpaired ones; below 1 pairing gained.
    """

    spread: float
    correlation: float
    pairing: float


def noise(a: ArrayLike, b: ArrayLike) -> Noise:
    """Return the noise of the pairs `a` [n] and `b` [n]; all NaN for fewer than two pairs."""
    x, y = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    if len(x) < 2:
        return Noise(math.nan, math.nan, math.nan)
    unpaired = float(x.var(ddof=1) + y.var(ddof=1))
    varies = x.std() > 0 and y.std() > 0
    return Noise(
        float((x - y).std(ddof=1)),
        float(np.corrcoef(x, y)[0, 1]) if varies else math.nan,
        float((x - y).var(ddof=1)) / unpaired if unpaired else math.nan,
    )
