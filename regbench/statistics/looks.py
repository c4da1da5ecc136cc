"""After how many fresh seeds a family of regularizers is judged, and what each look may cost.

The error that is allowed is spent over the looks in proportion to the seeds that are new at each; by the union bound the
looks together do not err more often than allowed, whatever is decided at them. Where a look cannot decide anything, since
not even a unanimous result would reach its share, it is left out and its share goes to the next.

Source: Lan & DeMets (1983), Discrete sequential boundaries for clinical trials, Biometrika 70(3), the linear spending
function; the looks' places and number were chosen by benchmarks/calibration.py.
"""

import math
from collections.abc import Sequence

ALPHA = 0.05  # family-wise error over all regularizers and looks
CONFIRM = 40  # fresh seeds that a sweep takes at most, unless told otherwise
SHARES = (0.3, 0.6, 1.0)  # of the seeds, after which the family is judged


def schedule(seeds: int, regularizers: int, alpha: float = ALPHA) -> tuple[int, ...]:
    """Return after how many of at most `seeds` fresh seeds `regularizers` are judged; the last look is at all seeds.

    >>> schedule(40, 3), schedule(20, 3), schedule(6, 3)
    ((12, 24, 40), (12, 20), (6,))
    """
    found: list[int] = []
    for share in SHARES[:-1]:
        count = round(share * seeds)
        new = count - (found[-1] if found else 0)
        if 0 < count < seeds and 2 / 2.0**count <= alpha * new / seeds / regularizers:
            found.append(count)
    return (*found, seeds) if seeds else ()


def spending(looks: Sequence[int], alpha: float = ALPHA) -> tuple[float, ...]:
    """Return the share of `alpha` that each of `looks` (rising numbers of seeds) may spend."""
    return tuple(alpha * ((look - before) / looks[-1]) for before, look in zip((0, *looks), looks, strict=False))


def seeds_needed(regularizers: int, alpha: float = ALPHA) -> int:
    """Return the smallest number of fresh seeds, at a single look, with which `regularizers` can be told from `none`.

    The smallest p-value of the paired test is 2 / 2**n, and Holm compares the smallest one with alpha / regularizers.

    >>> seeds_needed(1), seeds_needed(3), seeds_needed(14)
    (6, 7, 10)
    """
    return math.ceil(math.log2(2 * regularizers / alpha))
