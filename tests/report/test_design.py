"""Which seeds choose and which judge: of a sweep with fresh seeds, and of a grid alone."""

import dataclasses

import numpy as np
import pytest

from regbench.report.analysis import analyse
from regbench.report.design import design
from regbench.report.headline import headline
from regbench.statistics.verdict import Verdict
from tests.report.sweeps import fresh, grid

UNEVEN = 0.3 * np.array([1, -1, 2, -2, 0.5, -0.5, 1.5, -1.5, 1, -1, 0, 0])


def cells(count: int, **gains: tuple[float, ...]) -> dict[str, dict[float, np.ndarray]]:
    """Accuracies in percent: `none`, and of each method a lam for each gain in points."""
    none = 70 + np.resize(UNEVEN, count)
    return {"none": {0.0: none}} | {
        method: {10.0**-power: none + gain + np.resize(UNEVEN[1:], count) for power, gain in enumerate(values, 1)}
        for method, values in gains.items()
    }


@pytest.mark.parametrize(("count", "choosing"), [(20, 3), (9, 3), (8, 2), (7, 1)])
def test_the_first_seeds_of_a_grid_alone_choose_and_the_others_judge(count, choosing):
    found = design(grid(cells(count, l1=(0, 1))))
    assert found.selection == tuple(range(choosing))
    assert found.confirm == tuple(range(choosing, count))
    assert found.looks == (count - choosing,)


def test_a_larger_family_needs_more_seeds_to_judge():
    assert design(grid(cells(9, l1=(0, 1), l2=(0, 1), l3=(0, 1)))).selection == (0, 1)


@pytest.mark.parametrize("count", [1, 6])
def test_where_there_are_too_few_seeds_all_choose_and_none_judges(count):
    runs = grid(cells(count, l1=(0, 1)))
    found = analyse(runs)
    assert (found.design.selection, found.design.confirm) == (tuple(range(count)), ())
    assert found.comparisons["l1"].verdict == Verdict.TOO_FEW
    assert found.lam("l1") == 0.01
    assert found.shown["l1"] == tuple(range(count))


def test_no_seed_is_spent_on_choosing_among_one_lam():
    found = analyse(grid(cells(6, l1=(3,), l2=(-3,))))
    assert (found.design.selection, found.design.confirm) == ((), tuple(range(6)))
    assert {name: one.difference.n for name, one in found.comparisons.items()} == {"l1": 6, "l2": 6}
    assert set(found.cells["n"]) == {6}


def test_one_lam_is_compared_without_validation_and_several_are_not():
    runs = grid(cells(12, l1=(3,), l2=(0, 1)))
    runs = dataclasses.replace(runs, trials=runs.trials.drop(columns="val/accuracy"))
    found = analyse(runs)
    assert found.comparisons["l1"].verdict == Verdict.BETTER
    assert "l2" not in found.comparisons
    assert "l2 lam=0.1 takes no part in the choice of lam: it has no validation accuracy." in found.notes


def test_lam_is_chosen_on_validation_by_the_choosing_seeds_only():
    test, val = cells(12, l1=(0, 1)), cells(12, l1=(0, 1))
    val["l1"][0.01][3:] = 0  # what seeds that judge have on validation is not looked at
    test["l1"][0.1][:] = 99  # nor is any test accuracy
    assert analyse(grid(test, val)).lam("l1") == 0.01


def test_a_lam_with_a_diverged_or_missing_trial_on_a_choosing_seed_takes_no_part():
    made = cells(12, l1=(0, 1, 2))
    made["l1"][0.001][1] = np.nan
    runs = grid(made)
    diverged = (runs.trials["lam"] == 0.01) & (runs.trials["seed"] == 2)
    runs.trials.loc[diverged, "outcome"] = "diverged"
    found = analyse(runs)
    assert found.lam("l1") == 0.1
    assert found.notes == (
        "l1 lam=1e-2 takes no part in the choice of lam: no usable result for seed 2, 1 diverged.",
        "l1 lam=1e-3 takes no part in the choice of lam: no usable result for seed 1.",
    )


def test_seeds_without_none_or_with_less_than_half_of_the_grid_are_left_out():
    made = cells(12, l1=(0, 1))
    made["none"][0.0][4] = np.nan
    for lam in made["l1"]:
        made["l1"][lam][11] = np.nan
    found = design(grid(made))
    assert set(range(12)) - {*found.selection, *found.confirm} == {4, 11}
    assert "Seeds left out, having no trial of none, or less than half of the grid: 4, 11." in found.notes


def test_a_missing_trial_of_a_judging_seed_costs_that_pair_only():
    made = cells(14, l1=(0, 3))
    made["l1"][0.01][7] = np.nan
    found = analyse(grid(made)).comparisons["l1"]
    assert (found.verdict, found.difference.n) == (Verdict.BETTER, 10)


def test_a_recorded_choice_stands_and_its_seeds_judge():
    """The grid would choose another lam by now, which is told."""
    runs = fresh({"l1": [1.0] * 20})
    later = (runs.trials["lam"] == 1e-3) & (runs.trials["stage"] == "grid")
    runs.trials.loc[later, "val/accuracy"] = 0.9
    found = analyse(runs)
    assert found.lam("l1") == 1e-4
    assert found.design.looks == (12, 20)
    assert "l1 lam=1e-4 was chosen before trials arrived that would choose lam=1e-3; the choice stands." in found.notes


def test_without_a_recorded_choice_nothing_is_judged_yet():
    runs = fresh({"l1": [1.0] * 20})
    waiting = runs.trials[runs.trials["stage"] == "grid"].reset_index(drop=True)
    found = analyse(dataclasses.replace(runs, trials=waiting, choice={}))
    assert found.comparisons["l1"].verdict == Verdict.TOO_FEW
    assert any(note.startswith("No lam is chosen yet") for note in found.notes)


def test_a_method_without_a_choice_is_named():
    found = analyse(dataclasses.replace(fresh({"l1": [1.0] * 20, "l2": [1.0] * 20}), choice={"l1": 1e-4}))
    assert set(found.comparisons) == {"l1"}
    assert "l2 is not compared: no lam of it was chosen." in found.notes


def test_a_seed_that_had_a_say_in_the_choice_does_not_judge_it():
    """As where an earlier sweep, with fewer seeds in its grid, had it as a fresh one."""
    found = analyse(dataclasses.replace(fresh({"l1": [9.0] * 2 + [0.0] * 18}), chosen_on={"l1": frozenset({0, 3, 4})}))
    assert found.comparisons["l1"].difference.mean == 0
    assert found.shown["l1"] == tuple(range(5, 23))


@pytest.mark.parametrize("outcome", ["diverged", "collapsed"])
def test_a_fresh_training_that_came_to_nothing_counts_with_its_accuracy(outcome):
    runs = fresh({"l1": [1.0] * 19 + [-60.0]})
    runs.trials.loc[runs.trials["test/accuracy"] < 0.2, "outcome"] = outcome
    found = analyse(runs)
    assert found.comparisons["l1"].looked == 12  # settled before it
    runs = fresh({"l1": [-60.0] + [1.0] * 19})
    runs.trials.loc[runs.trials["test/accuracy"] < 0.2, "outcome"] = outcome
    found = analyse(runs)
    assert found.comparisons["l1"].verdict == Verdict.NO_DIFFERENCE
    assert found.comparisons["l1"].difference.mean == pytest.approx(-0.0205)
    assert any("1 of 20 fresh trainings collapsed or diverged (seed 3); it counts" in note for note in found.notes)


@pytest.mark.parametrize(
    ("status", "ended"), [(["FAILED"], 20), (["KILLED"], 4), (["RUNNING"], 4), (["FAILED", "RUNNING"], 4), ([], 4)]
)
def test_what_has_not_ended_is_waited_for_and_what_failed_is_not(status, ended):
    differences = [*[1.0, 1.2] * 2, np.nan, *[1.0] * 15]
    others = [("l1 seed=7", "l1", 1e-4, 7, one, "", "") for one in status]
    found = analyse(fresh({"l1": differences}, others=others))
    assert found.pairs["l1"].ended == ended
    assert found.comparisons["l1"].verdict == (Verdict.BETTER if ended == 20 else Verdict.TOO_FEW)
    assert found.comparisons["l1"].difference.n == (11 if ended == 20 else 4)


def test_none_of_a_later_look_is_not_part_of_a_pair_that_was_settled_before():
    runs = fresh({"l1": [2.0] * 12, "l2": [0.0, 2.0] * 10}, none=[70.0] * 12 + [50.0] * 8)
    found = analyse(runs)
    assert found.pairs["l1"].other.mean() == pytest.approx(0.7)
    assert len(found.pairs["l1"].other) == found.comparisons["l1"].looked == 12
    assert found.pairs["l2"].other.mean() == pytest.approx(0.62)


def test_trials_of_fresh_seeds_alone_are_judged_as_with_the_grid():
    """As a filter may leave them; what the grid would tell, and the command that goes on, are not there."""
    runs = fresh({"l1": [2.0] * 12, "l2": [0.5, -0.5] * 4}, planned=20)
    alone = dataclasses.replace(runs, trials=runs.trials[runs.trials["stage"] == "confirm"].reset_index(drop=True))
    with_grid, without = analyse(runs), analyse(alone)
    assert without.comparisons == with_grid.comparisons
    assert without.cells.empty
    assert headline(alone, without) == headline(runs, with_grid).partition(" To train")[0]
    nothing = dataclasses.replace(alone, trials=alone.trials[alone.trials["method"] == "l1"], choice={})
    assert headline(nothing, analyse(nothing)).startswith("**Nothing is compared here.**")


def test_a_diverged_none_counts_in_its_own_row_as_in_the_pairs():
    runs = fresh({"l1": [0.9, -0.9] * 6}, none=[70.0] * 11 + [10.0])
    runs.trials.loc[runs.trials["test/accuracy"] == 0.1, "outcome"] = "diverged"
    found = analyse(runs)
    assert found.cell("none")["test"] == pytest.approx(found.pairs["l1"].other.mean())
    assert found.cell("none")["n"] == 12
