"""The benchmarks that train without tracking: of the noise that a recipe leaves in a verdict, and of precisions."""

import numpy as np
import pandas as pd
import pytest

from benchmarks import noise, pages, precisions
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


def test_a_strip_has_a_dot_for_each_seed_and_a_bar_at_the_mean():
    found = {"one": np.array([-0.01, 0.0, 0.04]), "two": np.zeros(7)}
    (axis,) = pages.strip(found, "points").axes
    dots = [part.get_offsets() for part in axis.collections]
    assert [len(part) for part in dots] == [3, 7] and dots[0][:, 0].tolist() == [-1.0, 0.0, 4.0]
    bars = [line.get_xdata()[0] for line in axis.lines[1:]]
    assert bars == pytest.approx([1.0, 0.0])
    assert pages.png(axis.figure) == pages.png(axis.figure)


def test_what_is_trained_is_not_trained_again(rows, elsewhere):
    assert pages.known(elsewhere / "accuracies.csv", noise.CELL) == {}
    rows.to_csv(elsewhere / "accuracies.csv", index=False)
    known = pages.known(elsewhere / "accuracies.csv", noise.CELL)
    assert len(known) == 8 and known["constant", "ema", "weight_decay", 3] == pytest.approx(0.42)


@pytest.mark.parametrize(("shift", "verdict"), [(0.0, "equivalent"), (0.03, "better"), (-0.03, "worse")])
def test_precisions_are_judged_by_their_paired_differences(shift, verdict):
    values = [("float32", "a", seed, 0.4 + 0.01 * seed) for seed in range(20)]
    values += [("bf16", "b", seed, 0.4 + 0.01 * seed + shift + 0.001 * (-1) ** seed) for seed in range(20)]
    rows = pd.DataFrame(values, columns=[*precisions.CELL, "accuracy"])
    ((kind, own, base, difference, interval, spread, found),) = precisions.comparisons(rows)
    assert (kind, base, found) == ("bf16", "49.50%", verdict)
    assert difference == f"{100 * shift:+.2f}" and interval.endswith("(95 %)") and spread == "0.10"
    page = precisions.readme(rows, Recipe("cifar10-jpeg", "", 2_000, 0), "python -m benchmarks.precisions")
    assert f"| bf16 | {own} |" in page and "on\n20 seeds" in page
