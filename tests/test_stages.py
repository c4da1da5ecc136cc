"""Which lams a grid chooses, and which trials on fresh seeds come next: pure functions of what has ended."""

import math
import random
from dataclasses import replace

import pytest

from regbench import stages
from regbench.results import Result
from regbench.statistics.verdict import Verdict
from regbench.trial import Recipe, grid, side_by_side

RECIPE = Recipe("d", "f" * 64, 100, 10)
CELLS = [("none", 0.0), ("l1", 1e-4), ("l1", 1e-3), ("l2", 1e-2)]
SWEEP = grid(RECIPE, CELLS, [0, 1], confirm=range(5, 45), looks=(12, 24, 40))
LAMS = {"l1": 1e-3, "l2": 1e-2}


def ended(trials, accuracy, status="ok") -> dict[str, Result]:
    """Return results with `accuracy(trial)` on validation and test."""
    return {t.key: Result(t, status, {"val/accuracy": accuracy(t), "test/accuracy": accuracy(t)}) for t in trials}


def fresh_seeds(trials, method) -> list[int]:
    return [trial.seed for trial in trials if trial.method == method]


def test_the_best_mean_on_validation_is_chosen():
    found = stages.choices(SWEEP, ended(SWEEP.trials, lambda t: 0.5 + t.lam + 0.01 * t.seed))
    assert {method: choice.lam for method, choice in found.items()} == LAMS
    assert found["l1"].means == pytest.approx({1e-4: 0.5051, 1e-3: 0.506})


@pytest.mark.parametrize("status", ["failed", "diverged", None])
def test_a_lam_with_a_trial_that_has_no_result_takes_no_part(status):
    results = ended(SWEEP.trials, lambda t: 0.5 + t.lam)
    (lost,) = (t for t in SWEEP.trials if (t.lam, t.seed) == (1e-3, 1))
    if status:
        results[lost.key] = Result(lost, status, {})
    else:
        del results[lost.key]
    assert stages.choices(SWEEP, results)["l1"].lam == 1e-4


def test_one_that_collapsed_is_an_accuracy_like_any_other():
    results = ended(SWEEP.trials, lambda t: 0.5 + t.lam)
    results |= ended([t for t in SWEEP.trials if t.lam == 1e-3], lambda t: 0.1, "collapsed")
    assert stages.choices(SWEEP, results)["l1"].means == {1e-4: 0.5001, 1e-3: 0.1}


def test_a_method_of_which_no_lam_is_left_is_left_out():
    results = ended(SWEEP.trials, lambda t: 0.5)
    results |= ended([t for t in SWEEP.trials if t.method == "l2"], lambda t: math.nan, "diverged")
    assert set(stages.choices(SWEEP, results)) == {"l1"}


def test_one_lam_is_taken_without_validation():
    results = {t.key: Result(t, "ok", {"test/accuracy": 0.5}) for t in SWEEP.trials}
    sweep = grid(RECIPE, [cell for cell in CELLS if cell != ("l1", 1e-4)], [0, 1], confirm=[5], looks=[1])
    assert {method: choice.lam for method, choice in stages.choices(sweep, results).items()} == LAMS


def test_fresh_seeds_come_look_by_look_until_all_is_settled():
    """l1 is better at once; l2 differs by the noise of seeds and goes on, and `none` with it."""

    def accuracy(t):
        return {"none": 0.5, "l1": 0.6, "l2": 0.5 + 0.03 * (-1) ** t.seed}[t.method]

    first = stages.fresh(SWEEP, LAMS, {})
    assert [trial.name for trial in first[:3]] == ["none seed=5", "l1 lam=1e-3 seed=5", "l2 lam=1e-2 seed=5"]
    assert {method: fresh_seeds(first, method) for method in ("none", "l1", "l2")} == {
        method: list(range(5, 17)) for method in ("none", "l1", "l2")
    }
    second = stages.fresh(SWEEP, LAMS, ended(first, accuracy))
    assert second[: len(first)] == first
    assert fresh_seeds(second, "l1") == list(range(5, 17))
    assert fresh_seeds(second, "l2") == fresh_seeds(second, "none") == list(range(5, 29))
    third = stages.fresh(SWEEP, LAMS, ended(second, accuracy))
    assert fresh_seeds(third, "none") == list(range(5, 45))
    results = ended(third, accuracy)
    assert stages.fresh(SWEEP, LAMS, results) == third
    judged = stages.compare(SWEEP, LAMS, results)
    assert {method: (found.verdict, found.looked) for method, found in judged.items()} == {
        "l1": (Verdict.BETTER, 12),
        "l2": (Verdict.NO_DIFFERENCE, 40),
    }


def test_a_look_waits_for_all_of_its_trials():
    first = stages.fresh(SWEEP, LAMS, {})
    assert stages.fresh(SWEEP, LAMS, ended(first[:-1], lambda t: 0.5 + t.lam)) == first


def test_a_pair_that_has_failed_is_not_counted_and_one_that_diverged_is():
    first = stages.fresh(SWEEP, LAMS, {})
    results = ended(first, lambda t: 0.5)
    none = first[0]
    results[none.key] = Result(none, "failed", {})
    found = stages.pairs(SWEEP, "l1", 1e-3, results)
    assert math.isnan(found[0][1]) and found[1:] == [(0.5, 0.5)] * 11
    results |= ended([first[4]], lambda t: 0.1, "diverged")
    assert stages.pairs(SWEEP, "l1", 1e-3, results)[1] == (0.1, 0.5)
    assert stages.compare(SWEEP, LAMS, results)["l2"].difference.n == 11


def test_the_fresh_seeds_are_part_of_what_a_sweep_is():
    others = [
        grid(RECIPE, CELLS, [0, 1]),
        grid(RECIPE, CELLS, [0, 1], confirm=range(5, 45), looks=(40,)),
        grid(RECIPE, CELLS, [0, 1], confirm=range(6, 46), looks=(12, 24, 40)),
    ]
    assert len({sweep.id for sweep in [SWEEP, *others]}) == 4
    assert grid(RECIPE, CELLS[::-1], [1, 0], confirm=range(5, 45), looks=(12, 24, 40)).id == SWEEP.id
    assert len(SWEEP.longest) == 8 + 3 * 40


@pytest.mark.parametrize("seed", range(5))
def test_several_recipes_in_one_sweep_are_as_sweeps_of_their_own(seed):
    """Each chooses, goes on and is judged as if the other were not there."""
    numbers = random.Random(seed)
    spread = {lr: numbers.uniform(0, 0.03) for lr in (0.01, 0.1)}
    drawn: dict[str, float] = {}

    def accuracy(t):
        gain = {"none": 0.0, "l1": 0.004, "l2": -0.01}[t.regularizer]
        return drawn.setdefault(t.key, 0.5 + gain + numbers.gauss(0, spread[t.recipe.lr]))

    def play(sweep):
        results = ended(sweep.trials, accuracy)
        lams = {method: choice.lam for method, choice in stages.choices(sweep, results).items()}
        while missing := [t for t in stages.fresh(sweep, lams, results) if t.key not in results]:
            results |= ended(missing, accuracy)
        return set(results), lams, stages.compare(sweep, lams, results)

    def alone(lr):
        return grid(replace(RECIPE, lr=lr), CELLS, [0, 1], confirm=range(5, 45), looks=(12, 24, 40))

    found, lams, compared = play(side_by_side([alone(0.01), alone(0.1)]))
    assert set(lams) == {"l1 lr=0.01", "l2 lr=0.01", "l1 lr=0.1", "l2 lr=0.1"}
    for lr in (0.01, 0.1):
        own, own_lams, own_compared = play(alone(lr))
        assert own <= found
        found -= own
        for method in ("l1", "l2"):
            assert lams[f"{method} lr={lr}"] == own_lams[method]
            assert compared[f"{method} lr={lr}"] == own_compared[method]
    assert not found


def test_scopes_in_one_sweep_are_methods_of_one_family():
    parts = [grid(RECIPE, CELLS, [0, 1], scope, range(5, 45), (12, 24, 40)) for scope in ("all", "no_norm")]
    sweep = side_by_side(parts)
    assert sweep.methods == tuple(f"{name} scope={scope}" for scope in ("all", "no_norm") for name in ("l1", "l2"))
    assert len(sweep.trials) == 2 + 2 * 2 * 3  # `none` is one, whatever the scope
    assert [trial.seed for trial in sweep.trials] == [0] * 7 + [1] * 7
    first = stages.fresh(sweep, dict.fromkeys(sweep.methods, 1e-3), {})
    assert [trial.cell for trial in first[:5]] == ["none", *(f"{m[:2]} lam=1e-3{m[2:]}" for m in sweep.methods)]
