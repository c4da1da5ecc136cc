"""What a design can show, before anything is trained, and what it would take to show more."""

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from regbench.statistics.looks import ALPHA, seeds_needed, spending
from regbench.statistics.paired import MOST_FLIPS, Floats, PairedTest
from regbench.statistics.verdict import MARGIN

# standard deviation of a paired difference that a plan assumes, a fraction: see benchmarks/results/calibration
SPREAD = 0.0075
GAINS = (0.005, 0.01, 0.02)  # whose chances are told, fractions
POWER = 0.8
SIMULATED = 2_000
MOST_SEEDS = 100_000


@dataclass(frozen=True)
class Power:
    """What a design can show of one regularizer of a family.

    better: the chance, for each gain, that it is told from `none`. equivalent: the chance that a regularizer that
    changes nothing is shown to. seeds: how many fresh seeds such a one takes on average.
    """

    better: tuple[float, ...]
    equivalent: float
    seeds: float


def power(
    looks: Sequence[int],
    regularizers: int,
    spread: float = SPREAD,
    gains: Sequence[float] = GAINS,
    margin: float = MARGIN,
) -> Power:
    """Return what `looks` (numbers of fresh seeds) can show in a family of which the others are not told from `none`.

    Normal differences with standard deviation `spread` (a fraction) are simulated, always the same ones, and judged as
    `judge` does; above `MOST_FLIPS` seeds, where it makes little difference, by Student's t.
    """
    found = [_simulate(gain, looks, regularizers, spread, margin) for gain in (*gains, 0.0)]
    return Power(tuple(better for better, _, _ in found[:-1]), *found[-1][1:])


def _simulate(
    gain: float, looks: Sequence[int], regularizers: int, spread: float, margin: float
) -> tuple[float, float, float]:
    """Return how many end as better and as equivalent, and the mean of their seeds."""
    better, equivalent, settled = (np.zeros(SIMULATED, bool) for _ in range(3))
    seeds = np.zeros(SIMULATED)
    for look, spent in zip(looks, spending(looks), strict=True):
        low, high = (gain + spread * bounds for bounds in _intervals(look, spent / regularizers))
        seeds[~settled] = look
        apart = (low > 0) | (high < 0)
        better |= ~settled & (low > 0)
        equivalent |= ~settled & ~apart & (low >= -margin) & (high <= margin)
        settled |= apart | equivalent
    return float(better.mean()), float(equivalent.mean()), float(seeds.mean())


@lru_cache(maxsize=64)
def _intervals(look: int, level: float) -> tuple[Floats, Floats]:
    """Return the bounds [simulation] of the intervals of `look` standard normal differences each."""
    values = np.random.default_rng(0).standard_normal((look, SIMULATED)).T
    if look <= MOST_FLIPS:
        found = [PairedTest(row).interval(level) for row in values]
        return np.array([interval.low for interval in found]), np.array([interval.high for interval in found])
    from scipy.special import stdtrit  # late: it takes a while to import, and a plan without fresh seeds needs none

    mean, error = values.mean(axis=1), values.std(axis=1, ddof=1) / np.sqrt(look)
    half = stdtrit(look - 1, 1 - level / 2) * error
    return mean - half, mean + half


def seeds_for(gain: float, spread: float, regularizers: int) -> float:
    """Return how many fresh seeds, at a single look, show a true `gain` with chance `POWER` in a family of this size.

    `gain` and `spread` are in the same units. By the paired t-test at alpha / regularizers, and never fewer than the
    sign-flip test needs; NaN where the spread is zero or not known, infinite from `MOST_SEEDS`.

    Source: the noncentral t distribution, as in statsmodels.stats.power.TTestPower.
    """
    from statsmodels.stats.power import TTestPower

    if not spread > 0:
        return math.nan

    def chance(seeds: int) -> float:
        found = TTestPower().power(gain / spread, seeds, ALPHA / regularizers)
        return found if math.isfinite(found) else 1.0  # so far from zero that the distribution cannot be computed

    counts = range(seeds_needed(regularizers), MOST_SEEDS)
    found = bisect_left(counts, POWER, key=chance)
    return counts[found] if found < len(counts) else math.inf
