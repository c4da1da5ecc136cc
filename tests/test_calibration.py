"""The simulation behind the calibration, and the results that are committed."""

import csv
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner

from benchmarks.calibration import (
    FRESH,
    RESULTS,
    SEVERAL,
    Judged,
    Noise,
    Scenario,
    gaining,
    judge_sweeps,
    main,
    simulate_fresh,
    simulate_grid,
    table,
    wrong,
)
from regbench.statistics.looks import schedule

EFFECTS = np.array([[0.0, 0.02], [-0.03, 0.0]])
QUIET = Noise(seed_sd=0, trial_sd=0, overlap=1)


def rows(name):
    with (RESULTS / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_simulated_accuracies_have_the_stated_parts():
    noise = Noise()
    rng = np.random.default_rng(0)
    grid = simulate_grid(rng, EFFECTS, 3, 20_000, noise)
    test = simulate_fresh(rng, np.tile([0.02, -0.03], (20_000, 1)), 4, noise)
    assert grid.shape == (20_000, 2, 2, 3) and test.shape == (20_000, 3, 4)
    assert grid.mean(axis=(0, 3)) == pytest.approx(noise.accuracy + EFFECTS, abs=2e-4)
    assert test.mean(axis=(0, 2)) == pytest.approx(noise.accuracy + np.array([0, 0.02, -0.03]), abs=2e-4)

    def covariance(a, b):
        return np.cov(a, b)[0, 1]

    variance = noise.accuracy * (1 - noise.accuracy)
    seed, trial = noise.seed_sd**2, noise.trial_sd**2
    images = variance / noise.test_images
    near = {"rel": 0.05, "abs": 5e-7}
    assert test[:, 0, 0].var() == pytest.approx(seed + trial + images, **near)
    assert covariance(test[:, 0, 0], test[:, 1, 0]) == pytest.approx(seed + noise.overlap * images, **near)
    # another seed shares the test images but not the validation images
    assert covariance(test[:, 0, 0], test[:, 1, 1]) == pytest.approx(noise.overlap * images, **near)
    assert covariance(grid[:, 0, 0, 0], grid[:, 0, 0, 1]) == pytest.approx(0, **near)
    shared = seed + noise.overlap * variance / noise.validation_images
    assert covariance(grid[:, 0, 0, 0], grid[:, 1, 1, 0]) == pytest.approx(shared, **near)
    assert (test[:, 1] - test[:, 0]).std() == pytest.approx(noise.paired_sd, rel=0.02)


def test_simulated_accuracies_are_whole_images():
    rng = np.random.default_rng(0)
    grid, test = simulate_grid(rng, EFFECTS, 3, 5, Noise()), simulate_fresh(rng, np.zeros((5, 2)), 4, Noise())
    for accuracies, images in ((grid, 5_000), (test, 10_000)):
        assert accuracies * images == pytest.approx(np.rint(accuracies * images), abs=1e-8)


def test_a_measured_spread_sets_the_effect_of_a_training():
    assert Noise().with_paired_sd(0.01).paired_sd == pytest.approx(0.01)
    least = replace(Noise(), trial_sd=0).paired_sd
    assert Noise().with_paired_sd(least + 1e-12).trial_sd == pytest.approx(0, abs=1e-6)
    with pytest.raises(ValueError, match="images alone"):
        Noise().with_paired_sd(least - 1e-6)


def test_without_noise_the_truth_is_found():
    scenario = Scenario("quiet", EFFECTS, QUIET, designs=((10,), SEVERAL))
    for out, looked in zip(judge_sweeps(np.random.default_rng(0), scenario, 3), (10, 12), strict=True):
        assert out.verdict.tolist() == [["better", "equivalent"]] * 3
        assert out.truth.tolist() == [[0.02, 0.0]] * 3
        assert out.looked.tolist() == [[looked] * 2] * 3
        assert out.low == pytest.approx(out.truth) and out.high == pytest.approx(out.truth)
        assert not out.wrong_claim.any() and not out.wrong_equivalent.any()


def test_trainings_are_those_of_a_sweep():
    quiet, noisy = (
        table([Scenario("any", EFFECTS, noise, (SEVERAL,), selection=2)], 4, 0)[0]
        for noise in (QUIET, replace(QUIET, trial_sd=0.3))
    )
    grid = 2 * (2 * 2 + 1)
    assert quiet["trainings"] == quiet["most_trainings"] == grid + 12 * 3
    # nothing is told from anything: both regularizers go on to the end, and `none` with them
    assert noisy["most_trainings"] == grid + 40 * 3


def test_designs_see_the_same_data():
    scenario = gaining(Noise(), (3,), (1.0,), designs=((10,), (10,), (20,)))[0]
    once, again, more = judge_sweeps(np.random.default_rng(0), scenario, 20)
    assert np.array_equal(once.low, again.low) and np.array_equal(once.truth, more.truth)
    assert np.abs(once.low + once.high - more.low - more.high).max() / 2 < 0.01


def test_a_verdict_is_wrong_unless_it_is_true():
    verdict = np.array([["better", "worse"], ["better", "worse"], ["better", "worse"], ["equivalent", "too few seeds"]])
    truth = np.array([[1, -1], [0, -1], [1, 1], [1, 0]]) / 100
    out = Judged(verdict, truth, truth, truth, np.full((4, 2), 10))
    assert out.wrong_claim.tolist() == [False, True, True, False]
    assert out.wrong_equivalent.tolist() == [False, False, False, True]
    at_the_margin = replace(out, truth=np.full((4, 2), 0.005))
    assert not at_the_margin.wrong_equivalent.any()


def test_same_seed_same_bytes(tmp_path):
    def run(folder, *options):
        result = CliRunner().invoke(main, ["--sweeps=1", f"--out={tmp_path / folder}", *options])
        assert result.exit_code == 0, result.output
        return {path.name: path.read_bytes() for path in (tmp_path / folder).iterdir()}

    first = run("a")
    assert set(first) == {"calibration.csv", "power.csv", "designs.csv", "README.md"}
    assert run("b") == first
    assert run("c", "--seed=1")["calibration.csv"] != first["calibration.csv"]


@pytest.mark.parametrize(
    ("options", "message"),
    [(["--paired-sd=0.3"], "images alone"), (["--paired-sd=1", "--trial-sd=0.01"], "give one of them")],
)
def test_spreads_that_cannot_be(options, message, tmp_path):
    result = CliRunner().invoke(main, [f"--out={tmp_path}", *options])
    assert result.exit_code == 2 and message in result.output


def test_the_looks_are_those_of_a_sweep():
    assert schedule(FRESH, 3) == schedule(FRESH, 14) == SEVERAL


def test_committed_rates_keep_five_percent():
    found = rows("calibration.csv")
    assert {row["scenario"] for row in found} == {scenario.name for scenario in wrong(Noise())}
    for row in [*found, *rows("power.csv"), *rows("designs.csv")]:
        assert int(row["sweeps"]) >= 1_000
        assert float(row["wrong_claim_low"]) <= 0.05  # no higher than five percent, to within the simulation's error
        assert float(row["wrong_equivalent"]) <= 0.05
        assert float(row["coverage"]) >= 0.94
