"""The simulation behind the calibration, and the results that are committed."""

import csv
from dataclasses import replace
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from benchmarks import calibration
from benchmarks.calibration import Noise, false_family_wise, judge_sweeps, main, simulate

COMMITTED = Path(calibration.__file__).parent / "results" / "calibration"
EFFECTS = np.array([[0.0, 0.02], [-0.03, 0.0]])


def rows(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_simulated_accuracies_have_the_stated_parts():
    noise = Noise()
    validation, test, baseline = simulate(np.random.default_rng(0), EFFECTS, 4, 20_000, noise)
    assert validation.shape == test.shape == (20_000, 2, 2, 4) and baseline.shape == (20_000, 4)
    assert test.mean(axis=(0, 3)) == pytest.approx(noise.accuracy + EFFECTS, abs=2e-4)
    assert validation.mean(axis=(0, 3)) == pytest.approx(noise.accuracy + EFFECTS, abs=2e-4)
    assert baseline.mean() == pytest.approx(noise.accuracy, abs=2e-4)

    def covariance(a, b):
        return np.cov(a, b)[0, 1]

    variance = noise.accuracy * (1 - noise.accuracy)
    seed, trial = noise.seed_sd**2, noise.trial_sd**2
    images = variance / noise.test_images
    one, other = test[:, 0, 0], test[:, 1, 1]
    near = {"rel": 0.05, "abs": 5e-7}
    assert one[:, 0].var() == pytest.approx(seed + trial + images, **near)
    assert covariance(one[:, 0], validation[:, 0, 0, 0]) == pytest.approx(seed + trial, **near)
    assert covariance(one[:, 0], other[:, 0]) == pytest.approx(seed + noise.overlap * images, **near)
    # Another seed shares the test images but not the validation images.
    assert covariance(one[:, 0], one[:, 1]) == pytest.approx(noise.overlap * images, **near)
    assert covariance(validation[:, 0, 0, 0], validation[:, 0, 0, 1]) == pytest.approx(0, **near)
    shared = seed + noise.overlap * variance / noise.validation_images
    assert covariance(validation[:, 0, 0, 0], validation[:, 1, 1, 0]) == pytest.approx(shared, **near)


def test_simulated_accuracies_are_whole_images():
    validation, test, baseline = simulate(np.random.default_rng(0), EFFECTS, 3, 5, Noise())
    for accuracies, images in ((validation, 5_000), (test, 10_000), (baseline, 10_000)):
        assert accuracies * images == pytest.approx(np.rint(accuracies * images), abs=1e-8)


def test_without_noise_the_truth_is_found():
    quiet = Noise(seed_sd=0, trial_sd=0, overlap=1)
    out = judge_sweeps(np.random.default_rng(0), EFFECTS, 8, 3, quiet)
    assert out.verdict.tolist() == [["better", "equivalent"]] * 3
    assert out.claim.tolist() == out.claim_same_seeds.tolist() == out.claim_left_out.tolist() == [[1, 0]] * 3
    assert out.best_lam.all()
    assert out.truth.tolist() == [[0.02, 0.0]] * 3
    assert out.estimate == pytest.approx(out.truth, abs=1e-9)


def test_five_seeds_claim_nothing():
    out = judge_sweeps(np.random.default_rng(0), EFFECTS, 5, 3, replace(Noise(), trial_sd=0))
    assert set(out.verdict.ravel()) == {"too few seeds"}
    assert not out.claim.any() and not out.claim_same_seeds.any() and not out.claim_left_out.any()


def test_a_claim_is_wrong_unless_its_sign_is_true():
    claim = np.array([[0, 0], [1, 0], [1, 0], [1, -1], [-1, 0]])
    truth = np.array([[1, 1], [1, 0], [0, 0], [1, 1], [-1, 0]]) / 100
    assert false_family_wise(claim, truth).tolist() == [False, False, True, True, False]


def test_same_seed_same_bytes(tmp_path):
    def run(folder, *options):
        result = CliRunner().invoke(main, ["--sweeps", "2", "--out", str(tmp_path / folder), *options])
        assert result.exit_code == 0, result.output
        return {path.name: path.read_bytes() for path in (tmp_path / folder).iterdir()}

    first = run("a")
    assert set(first) == {"calibration.csv", "power.csv", "README.md"}
    assert run("b") == first
    assert run("c", "--seed", "1")["calibration.csv"] != first["calibration.csv"]


def test_committed_rates_keep_five_percent():
    table = rows(COMMITTED / "calibration.csv")
    null = [row for row in table if row["scenario"] == "nothing differs"]
    assert {(row["regularizers"], row["seeds"]) for row in null} == {(m, n) for m in "38" for n in ("5", "10", "20")}
    for row in null:
        assert int(row["sweeps"]) >= 1_000
        assert float(row["family_wise"]) <= 0.05
        assert float(row["coverage"]) >= 0.95


def test_the_packaged_power_table_is_the_committed_one():
    packaged = resources.files("regbench.report").joinpath("power.csv").read_bytes()
    assert packaged == (COMMITTED / "power.csv").read_bytes()
