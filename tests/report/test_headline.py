"""The first paragraph: invented data sets that an expert would read so, and what is told of a sweep without a verdict."""

import re

import numpy as np
import pytest

from regbench.report.analysis import analyse
from regbench.report.headline import headline
from regbench.report.load import Runs
from regbench.report.text import bounds, difference, hundredths, level, percent
from regbench.statistics.paired import Interval
from tests.report.sweeps import fresh, grid

COMMAND = "regbench sweep --reg=l1 --lam=1e-4,1e-3 --seeds=0-2 --confirm={} --dataset=digits"
REST = "--train_size=1437 --epochs=20 --experiment=regbench"


def said(runs: Runs) -> str:
    return headline(runs, analyse(runs))


def normal(mean: float, spread: float, count: int = 20, seed: int = 0) -> np.ndarray:
    """Differences in points with just this mean and standard deviation, in hundredths."""
    values = np.random.default_rng(seed).normal(size=count)
    return (mean + spread * (values - values.mean()) / values.std(ddof=1)).round(2)


def with_one(values: np.ndarray, value: float) -> np.ndarray:
    return np.array([*values[:7], value, *values[8:]])


# name -> differences in points of each regularizer on fresh seeds, and the reading
READINGS = {
    # one seed of twenty: its mean is above zero, but without it there is nothing
    "one lucky seed": (
        {"l1": with_one(normal(0, 0.4), 6)},
        "No difference is shown for `l1` (98 % interval -0.23 to +1.02); that is not evidence that there is none.",
    ),
    # a gain on nineteen seeds, and a training that was lost: who uses it must know of both
    "one collapse": (
        {"l1": with_one(normal(0.8, 0.4), -60)},
        "No difference is shown for `l1` (98 % interval -9.37 to +0.97; 1 of its 20 trainings collapsed or diverged); "
        "that is not evidence that there is none.",
    ),
    "ties": ({"l1": [0, 0, 0, 0.1, 0, 0, -0.1, 0, 0, 0] * 2}, "`l1` changes it by less than 0.5 points."),
    "all equal": ({"l1": [0.0] * 20}, "`l1` changes it by less than 0.5 points."),
    "huge spread": (
        {"l1": normal(1, 10)},
        "No difference is shown for `l1` (98 % interval -4.76 to +6.61); that is not evidence that there is none.",
    ),
    # as sure as can be, and of no use to anybody
    "tiny sure difference": (
        {"l1": normal(0.12, 0.05)},
        "`l1` changes it by less than 0.5 points: it is surely better, but by 0.13 points, which is practically none.",
    ),
    "sure gain": (
        {"l1": normal(2, 0.5)},
        "**What helped: `l1` at lam 1e-4 by 2.12 points (97 % interval +1.81 to +2.43).**",
    ),
    "sure loss": (
        {"l1": normal(-2, 0.5)},
        "**What hurt: `l1` at lam 1e-4 by 1.88 points (97 % interval -2.19 to -1.57).**",
    ),
    # five heads in a row come in one of sixteen
    "too few seeds": (
        {"l1": normal(2, 0.5, 5)},
        "5 fresh seeds are too few for a verdict on `l1`: it takes 6 or more. To judge on 40 fresh seeds: "
        f"`{COMMAND.format(40)} {REST}`.",
    ),
    # the spread of one says nothing of the others
    "one always collapses beside two quiet ones": (
        {"l1": [-60.0] * 20, "l2": normal(0, 0.3), "dropout": normal(0.9, 0.4, seed=2)},
        "**What helped: `dropout` at lam 1e-4 by 0.94 points (98.5 % interval +0.52 to +1.32).** **What hurt: `l1` at lam "
        "1e-4 by 60.00 points (99 % interval -60.00 to -60.00; 20 of its 20 trainings collapsed or diverged).** `l2` "
        "changes it by less than 0.5 points. Against each other: `dropout` is better than `l1` by 60.94 points (99 % "
        "interval +60.49 to +61.36); `l2` is better than `l1` by 60.07 points (99 % interval +59.84 to +60.30); `dropout` "
        "is better than `l2` by 0.87 points (97 % interval +0.46 to +1.27).",
    ),
}


@pytest.mark.parametrize("name", READINGS)
def test_the_reading_of(name):
    differences, reading = READINGS[name]
    count = len(next(iter(differences.values())))
    start = f"Without regularization the test accuracy is 70.00% (mean over {count} fresh seeds). "
    assert said(fresh(differences)) == start + reading


def test_several_of_a_kind_share_a_sentence():
    shown = said(fresh({"l1": normal(2, 0.5), "l2": normal(3, 0.5), "weight_decay": [0.0] * 20, "dropout": [0.0] * 20}))
    assert re.search(r"\*\*What helped: `l1` at .*\) and `l2` at lam 1e-4 by .*\)\.\*\*", shown)
    assert "`weight_decay` and `dropout` change it by less than 0.5 points." in shown


def test_one_fresh_seed():
    shown = said(fresh({"l1": [1.0], "l2": [1.0]}))
    assert (
        "(mean over 1 fresh seed). 1 fresh seed is too few for a verdict on `l1` and `l2`: with 2 regularizers it"
        in shown
    )
    assert "takes 7 or more." in shown


def test_what_an_unfinished_sweep_lacks_and_the_command_that_goes_on():
    shown = said(fresh({"l1": normal(2, 0.5, 7)}, planned=20))
    assert shown.endswith(
        "Not settled yet: `l1` (7 of 20 fresh seeds). To train what is missing: "
        f"`{COMMAND.format(20)} {REST}`."
    )  # fmt: skip


def test_a_regularizer_that_is_settled_waits_for_no_other_seeds():
    shown = said(fresh({"l1": normal(2, 0.5, 12), "l2": normal(0.1, 1, 14)}, planned=20))
    assert "What helped: `l1`" in shown
    assert "Not settled yet: `l2` (14 of 20 fresh seeds)" in shown


def test_a_grid_that_is_too_small_to_choose_and_to_judge():
    cells = {"none": {0.0: [70, 71, 70, 71, 70]}, "l1": {1e-4: [72, 73, 72, 73, 72], 1e-3: [70] * 5}}
    shown = said(grid(cells))
    assert shown == (
        "Without regularization the test accuracy is 70.40% (mean over 5 seeds). There is no verdict on `l1`: 5 seeds "
        "cannot both choose lam and judge the choice, which takes 6 that had no say in it. To judge on 40 fresh seeds: "
        f"`{COMMAND.format(40).replace('0-2', '0-4')} {REST}`."
    )


def test_grids_of_different_lams_take_more_than_one_command():
    cells = {"none": {0.0: [70] * 3}, "l1": {1e-4: [72] * 3, 1e-3: [70] * 3}, "l2": {1e-2: [70] * 3}}
    assert "--reg=l1 --lam=1e-4,1e-3 " in said(grid(cells))
    assert said(grid(cells)).endswith("; then `l2` in the same way, with their own lams and scope.")


def test_the_level_of_an_interval_has_two_digits_of_what_is_left():
    levels = {0.95: "95 %", 1 - 0.05 / 3: "98.3 %", 1 - 0.05 / 12: "99.58 %", 0.99: "99 %", 1 - 2e-5: "99.998 %"}
    assert {value: level(Interval(0, -1, 1, 8, value)) for value in levels} == levels


def test_bounds_are_rounded_away_from_each_other_and_hold_the_difference_shown():
    random = np.random.default_rng(0)
    for a, b in random.uniform(0.5, 0.52, (2_000, 2)).round(6):
        shown = difference(a, b)
        assert f"{float(percent(a)[:-1]) - float(percent(b)[:-1]):+.2f}".replace("-0.00", "+0.00") == f"{shown:+.2f}"
        low, high = map(float, bounds(Interval(a - b, a - b, a - b, 8, 0.95)).split(" to "))
        assert low <= shown <= high <= low + 0.0101
    assert bounds(Interval(0, -0.005, 0.005, 8, 0.95)) == "-0.50 to +0.50"
    assert (hundredths(0.0000499), hundredths(0.00005)) == (0.0, 0.01)
