"""The benchmark of the noise that a recipe leaves in a verdict."""

import pandas as pd
import pytest

from benchmarks import noise
from regbench.trial import Recipe


@pytest.fixture
def rows():
    differences = [-0.01, 0.0, 0.01, 0.02]
    found = [("constant", "ema", "none", seed, 0.4) for seed in range(4)]
    found += [("constant", "ema", "weight_decay", seed, 0.4 + gain) for seed, gain in enumerate(differences)]
    return pd.DataFrame(found, columns=[*noise.CELL, "accuracy"])


def test_the_spread_is_that_of_the_paired_differences(rows):
    ((schedule, average, base, difference, spread, robust, *_, largest),) = noise.spreads(rows)
    assert (schedule, average, base, difference) == ("constant", "ema", "40.00 %", "+0.50")
    # of -1, 0, 1, 2: the square root of 5 / 3, and 1.4826 times the median distance from the median
    assert spread.startswith("1.29 (0.73 to 4.81)") and robust == "1.48"
    assert int(largest) > 5
    page = noise.readme(rows, Recipe("cifar10-jpeg", "", 2_000, 0), "python -m benchmarks.noise")
    assert f"| {spread} |" in page and "on 4 seeds" in page


def test_what_is_trained_is_not_trained_again(rows, elsewhere):
    assert noise._known(elsewhere) == {}
    rows.to_csv(elsewhere / "accuracies.csv", index=False)
    known = noise._known(elsewhere)
    assert len(known) == 8 and known["constant", "ema", "weight_decay", 3] == pytest.approx(0.42)
