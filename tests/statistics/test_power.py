"""What a design is said to show, against what `judge` shows on other data."""

import math
import subprocess
import sys

import numpy as np
import pytest

from regbench.statistics.looks import schedule, seeds_needed
from regbench.statistics.power import GAINS, POWER, SPREAD, power, seeds_for
from regbench.statistics.verdict import MARGIN, Verdict, judge

TRIES = 300


def simulated(looks, regularizers, gain):
    """Return how many of a family's first end as better, as equivalent, and after how many seeds on average."""
    rng = np.random.default_rng(1)
    others = {str(other): [math.nan] * looks[-1] for other in range(1, regularizers)}
    families = [{"0": rng.normal(gain, SPREAD, looks[-1]), **others} for _ in range(TRIES)]
    found = [judge(family, looks)["0"] for family in families]
    verdicts = [comparison.verdict for comparison in found]
    shares = (np.mean([verdict is wanted for verdict in verdicts]) for wanted in (Verdict.BETTER, Verdict.EQUIVALENT))
    return (*shares, np.mean([comparison.looked for comparison in found]))


def near(share):
    """Allow three standard errors of both simulations."""
    return pytest.approx(share, abs=3 * math.sqrt(max(share * (1 - share), 0.01) * (1 / TRIES + 1 / 2000)))


@pytest.mark.parametrize(
    ("looks", "regularizers"), [((6,), 1), ((9,), 8), ((10,), 14), ((20,), 3), ((12, 24, 40), 3), ((12, 24, 40), 14)]
)
def test_promises_are_kept(looks, regularizers):
    promised = power(looks, regularizers)
    for gain, better in zip(GAINS[:2], promised.better, strict=False):
        assert simulated(looks, regularizers, gain)[0] == near(better)
    _, equivalent, seeds = simulated(looks, regularizers, 0.0)
    assert equivalent == near(promised.equivalent)
    assert seeds == pytest.approx(promised.seeds, rel=0.05)


@pytest.mark.parametrize("regularizers", [1, 3, 14])
def test_more_seeds_and_larger_gains_never_look_worse(regularizers):
    chances = np.array([power((seeds,), regularizers).better for seeds in (6, 7, 8, 10, 12, 14, 16, 20, 30, 40)])
    assert (np.diff(chances, axis=0) >= -0.01).all() and (np.diff(chances, axis=1) >= 0).all()


def test_gains_are_told_the_better_the_smaller_the_spread_and_the_family():
    looks = schedule(40, 3)
    assert power(looks, 3, spread=0.005).better > power(looks, 3).better > power(looks, 14).better
    doubled = power(looks, 3, 2 * SPREAD, [2 * gain for gain in GAINS], 2 * MARGIN)
    assert doubled.better == pytest.approx(power(looks, 3).better)


def test_seeds_that_cannot_decide_have_no_power():
    few = power((seeds_needed(14) - 1,), 14)
    assert few.better == (0, 0, 0) and few.equivalent == 0 and few.seeds == 9


def test_without_noise_everything_is_found_at_the_first_look():
    assert power((12, 24), 3, spread=0.0).better == (1, 1, 1)
    nothing = power((12, 24), 3, spread=0.0)
    assert (nothing.equivalent, nothing.seeds) == (1, 12)


@pytest.mark.parametrize("regularizers", [1, 3, 14])
@pytest.mark.parametrize("gain", [0.005, 0.01])
def test_seeds_for_has_the_power_that_it_names(regularizers, gain):
    seeds = seeds_for(gain, SPREAD, regularizers)
    # to within a seed: of few, the sign-flip test needs one more than the t-test
    assert power((seeds + 1,), regularizers, gains=(gain,)).better[0] >= POWER - 0.02
    assert power((seeds - 2,), regularizers, gains=(gain,)).better[0] < POWER


def test_seeds_for_extremes():
    assert seeds_for(1.0, 1e-9, 3) == seeds_needed(3)
    assert seeds_for(1e-6, 0.01, 3) == math.inf
    assert math.isnan(seeds_for(0.01, 0.0, 3)) and math.isnan(seeds_for(0.01, math.nan, 3))
    assert seeds_for(1.0, 0.75, 3) == seeds_for(0.01, 0.0075, 3)


def test_a_plan_without_fresh_seeds_needs_no_scientific_stack():
    code = "import sys; from regbench.statistics import looks, power; looks.schedule(0, 3); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = done.stdout.split()
    assert "regbench.statistics.power" in loaded
    assert {"scipy", "statsmodels", "pandas", "torch"}.isdisjoint(loaded)
