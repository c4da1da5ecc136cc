"""How many seeds a sweep needs, read from a simulated table.

A plan quotes these numbers before anything is trained, so this module needs nothing but the standard library: importing
it takes milliseconds. The table is written by `python -m benchmarks.calibration`.
"""

import csv
import math
from dataclasses import dataclass, fields
from functools import cache
from importlib import resources
from operator import attrgetter

ALPHA = 0.05
MINIMUM_PAIRS = 6  # below this number of seeds the smallest two-sided sign-flip p, 2 / 2**n, is above ALPHA
# standard deviation of a paired difference that the table assumes, in percentage points: see its README
PAIRED_SD_PP = 0.69


@dataclass(frozen=True)
class Power:
    """One row of the power table: shares of simulated sweeps, each in [0, 1].

    `better` is the power: how often the one regularizer that truly helps by `difference_pp` percentage points at its
    best lam is called better. `half_width_pp` is the mean half width of its interval.
    """

    regularizers: int
    seeds: int
    difference_pp: float
    better: float
    equivalent: float
    half_width_pp: float


def seeds_needed(comparisons: int, alpha: float = ALPHA) -> int:
    """Return the smallest number of paired seeds at which a family of sign-flip tests can show anything.

    The smallest p of one test is 2 / 2**n and Holm multiplies the smallest of `comparisons` p-values by `comparisons`;
    with fewer seeds not even a unanimous result reaches `alpha`. Never below `MINIMUM_PAIRS`. Unit: seeds.

    Raises ValueError if `comparisons` < 1 or `alpha` is not in (0, 1).

    >>> seeds_needed(1), seeds_needed(3), seeds_needed(8)
    (6, 7, 9)
    """
    if comparisons < 1:
        raise ValueError(f"comparisons must be at least 1, got {comparisons}")
    if not 0 < alpha < 1:
        raise ValueError(f"alpha must lie between 0 and 1, got {alpha}")
    return max(MINIMUM_PAIRS, math.ceil(math.log2(2 * comparisons / alpha)))


@cache
def power_table() -> tuple[Power, ...]:
    """Return all rows of the packaged power table, ordered by regularizers, seeds and difference.

    The assumptions behind the numbers are in `benchmarks/results/calibration/README.md`.
    """
    text = resources.files(__package__).joinpath("power.csv").read_text(encoding="utf-8")
    rows = csv.DictReader(text.splitlines())
    table = [Power(**{field.name: field.type(row[field.name]) for field in fields(Power)}) for row in rows]
    return tuple(sorted(table, key=attrgetter("regularizers", "seeds", "difference_pp")))


def expected_power(seeds: int, difference_pp: float, regularizers: int = 3) -> float:
    """Return the chance, in [0, 1], that a true gain of `difference_pp` percentage points is called better.

    Never interpolated and never flattering: it is the tabulated value for the nearest smaller number of seeds, the
    nearest smaller difference and the nearest larger family of `regularizers`. A family larger than the largest
    tabulated one gets that one's value, which is then somewhat too high. Fewer seeds than the first tabulated number or
    than `seeds_needed(regularizers)` give 0: no verdict is possible there.

    Raises ValueError if `seeds` or `regularizers` < 1, or if `difference_pp` is below the smallest one tabulated.
    """
    if seeds < 1:
        raise ValueError(f"seeds must be at least 1, got {seeds}")
    if seeds < seeds_needed(regularizers):
        return 0.0
    table = power_table()
    families = {row.regularizers for row in table}
    family = min((size for size in families if size >= regularizers), default=max(families))
    # rounding noise (0.9999999999999999 for 1.0) must not change the row.
    largest = difference_pp + 1e-9
    reachable = [row for row in table if row.regularizers == family and row.difference_pp <= largest]
    if not reachable:
        smallest = min(row.difference_pp for row in table)
        raise ValueError(f"the power table starts at {smallest} percentage points, got {difference_pp}")
    affordable = [row for row in reachable if row.seeds <= seeds]
    return max(affordable, key=attrgetter("seeds", "difference_pp")).better if affordable else 0.0
