"""A sweep's description on MLflow's pages."""

import pytest

from regbench.regularizers import cells
from regbench.results import LONGEST_NOTE, REPORT_LINE, Result, describe, with_figures
from regbench.trial import Recipe, grid


@pytest.fixture
def recipe():
    return Recipe("digits", "f", 100, 10)


def results(sweep):
    trials = [*sweep.trials, *(trial for seed in sweep.confirm for trial in sweep.pair("l1", 1e-3, seed))]
    metrics = {"val/accuracy": 0.7, "test/accuracy": 0.7, "sparsity/exact": 0.0}
    return {trial.key: Result(trial, "ok", metrics) for trial in trials}


def test_the_verdicts_come_first_then_the_commands(recipe):
    sweep = grid(recipe, cells(["l1"], [1e-3]), [0, 1], confirm=(2, 3), looks=(2,))
    note = describe(sweep, results(sweep), {"l1": 1e-3}, "my experiment", models={"l1 lam=1e-3 seed=2": "m-1"})
    first, rule, verdict, *_ = note.splitlines()
    assert first.startswith("| on fresh seeds |") and rule.startswith("| --- |")
    assert verdict == "| l1 lam=1e-3 | 2 | 70.00% | 70.00% | +0.00 | - | too few seeds |"
    assert f"python -m regbench report --experiment 'my experiment' --sweep {sweep.id}" in note
    assert 'mlflow.pytorch.load_model("models:/m-1")  # l1 lam=1e-3 seed=2' in note
    assert note.splitlines()[-1].startswith("| l1 lam=1e-3 | 2 | 70.00% |")


def test_a_grid_too_large_for_the_page_is_cut_at_its_end(recipe):
    sweep = grid(recipe, cells(["l1"], [k * 1e-5 for k in range(1, 300)]), [0])
    note = describe(sweep, results(sweep), {})
    assert LONGEST_NOTE - 200 < len(note) <= LONGEST_NOTE
    assert note.splitlines()[-1].startswith("(the other rows have no room here")
    assert note.splitlines()[-3].startswith("| l1 lam=")


def test_a_report_shows_its_figures_in_place_of_the_command_each_time(recipe):
    sweep = grid(recipe, cells(["l1"], [1e-3]), [0])
    note = describe(sweep, results(sweep), {})
    once = with_figures(note, "run1", ["report/lr=0.1/figures/forest.png"])
    assert "![](get-artifact?path=report%2Flr%3D0.1%2Ffigures%2Fforest.png&run_uuid=run1)" in once
    assert "python -m regbench report" not in once
    assert with_figures(once, "run1", []) == once.replace(once.split("in Artifacts.")[1].split("\n")[0], "")
    assert once.count(REPORT_LINE) == 1
    assert with_figures("a user's own", "run1", ["a.png"]) == "a user's own"
