"""Does the report cry wolf, and what can it see? Simulated sweeps judged by the report's own code.

``python -m benchmarks.calibration`` simulates sweeps in which nothing differs and counts how often any
regularizer is called better or worse; then sweeps in which one regularizer truly helps, and counts how often
that is found. It writes ``calibration.csv``, ``power.csv`` and ``README.md``; same seed, same bytes.
"""

from __future__ import annotations

import csv
import gc
import io
import os
import platform
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import click
import numpy as np
import scipy
import statsmodels
from numpy.typing import NDArray
from scipy import stats

from regbench.report import power
from regbench.report.statistics import ALPHA, MARGIN, MINIMUM_PAIRS, Grid, Verdict, compare, holm

Floats = NDArray[np.float64]

SEEDS = (5, 10, 20)
POWER_SEEDS = (5, 7, 10, 15, 20)
FAMILIES = (3, 8)
DIFFERENCES_PP = (0.5, 1.0, 2.0)
LAMS = 7
LAM_GRID = 10.0 ** np.arange(-6, 14)
NULL, HURT = "nothing differs", "strong lams hurt"

# Shares of the full gain along a grid with steps of about three: it builds up, peaks, and beyond the peak the
# penalty costs more than it gives, whatever the gain was.
GAIN = np.array([0.0, 0.1, 0.5, 1.0, 0.5, 0.0, 0.0])
HARM = np.array([0.0, 0.0, 0.0, 0.0, 0.0, -0.01, -0.03])


@dataclass(frozen=True)
class Noise:
    """Where accuracies vary: fractions in [0, 1].

    accuracy           true accuracy of `none`
    seed_sd            effect of a seed, common to all its trials: weights, batch order, split
    trial_sd           effect of one training, common to its validation and its test accuracy
    overlap            correlation, image by image, between the correctness of two trainings: the share of
                       the sampling variance that trials on the same images have in common
    validation_images  images of a seed's validation split
    test_images        images of the test set, the same ones for all
    """

    accuracy: float = 0.75
    seed_sd: float = 0.004
    trial_sd: float = 0.004
    overlap: float = 0.6
    validation_images: int = 5_000
    test_images: int = 10_000


@dataclass(frozen=True)
class Judged:
    """What ``compare`` said about simulated sweeps; every array is [sweep, regularizer].

    ``verdict`` holds Verdict values; ``claim``, ``claim_same_seeds`` and ``claim_left_out`` are +1 for
    better, -1 for worse, 0 for no claim: by the report's rule, by the test at the chosen lam alone, and by
    the test of the left-out differences alone.
    ``truth`` is the true difference at the chosen lam; it and all other differences are fractions.
    """

    verdict: NDArray[np.str_]
    claim: NDArray[np.int_]
    claim_same_seeds: NDArray[np.int_]
    claim_left_out: NDArray[np.int_]
    truth: Floats
    best_lam: NDArray[np.bool_]
    estimate: Floats
    low: Floats
    high: Floats
    estimate_same_seeds: Floats
    covered_same_seeds: NDArray[np.bool_]
    covered_left_out: NDArray[np.bool_]


def simulate(
    rng: np.random.Generator, effects: Floats, seeds: int, sweeps: int, noise: Noise
) -> tuple[Floats, Floats, Floats]:
    """Validation and test accuracies [sweep, regularizer, lam, seed]; test of `none` [sweep, seed].

    ``effects`` [regularizer, lam] are true differences from `none`. All are fractions; accuracies are whole
    numbers of images, divided by their number.
    """
    regularizers, lams = effects.shape
    shape = (sweeps, regularizers * lams + 1, seeds)
    true = noise.accuracy + np.append(0.0, effects.ravel())[None, :, None]
    trained = true + rng.normal(0, noise.seed_sd, (sweeps, 1, seeds)) + rng.normal(0, noise.trial_sd, shape)
    # A seed's validation images are its own; the test images are the same for every seed.
    validation = _measured(rng, trained, noise.validation_images, (sweeps, 1, seeds), noise)
    test = _measured(rng, trained, noise.test_images, (sweeps, 1, 1), noise)
    cells = (sweeps, regularizers, lams, seeds)
    return validation[:, 1:].reshape(cells), test[:, 1:].reshape(cells), test[:, 0]


def _measured(rng: np.random.Generator, trained: Floats, images: int, common: tuple[int, ...], noise: Noise) -> Floats:
    """Accuracies ``trained`` [sweep, trial, seed] as counted on ``images``, whose luck is partly common."""
    sd = np.sqrt(noise.accuracy * (1 - noise.accuracy) / images)
    shared = rng.normal(0, sd * np.sqrt(noise.overlap), common)
    own = rng.normal(0, sd * np.sqrt(1 - noise.overlap), trained.shape)
    return np.clip(np.rint((trained + shared + own) * images) / images, 0, 1)


def judge_sweeps(rng: np.random.Generator, effects: Floats, seeds: int, sweeps: int, noise: Noise) -> Judged:
    """Simulate ``sweeps`` sweeps with true ``effects`` [regularizer, lam] and judge each with ``compare``."""
    validation, test, baseline = simulate(rng, effects, seeds, sweeps, noise)
    regularizers, lams = effects.shape
    grid = LAM_GRID[:lams]
    best = effects.argmax(axis=1)
    rows = []
    for sweep in range(sweeps):
        family = {str(r): Grid(grid, validation[sweep, r], test[sweep, r]) for r in range(regularizers)}
        results = list(compare(family, baseline[sweep], resamples=0).values())
        same = _claims([c.apparent_p for c in results], [c.apparent.mean for c in results], seeds)
        left = _claims([c.held_out_p for c in results], [c.held_out.mean for c in results], seeds)
        for r, c in enumerate(results):
            truth = effects[r, c.selection.index]
            rows.append(
                (
                    c.verdict.value,
                    {Verdict.BETTER: 1, Verdict.WORSE: -1}.get(c.verdict, 0),
                    same[r],
                    left[r],
                    truth,
                    c.selection.index == best[r],
                    c.difference.mean,
                    c.difference.low,
                    c.difference.high,
                    c.apparent.mean,
                    c.apparent.low <= truth <= c.apparent.high,
                    c.held_out.low <= truth <= c.held_out.high,
                )
            )
    return Judged(*(np.array(column).reshape(sweeps, regularizers) for column in zip(*rows, strict=True)))


def _claims(p_values: Sequence[float], means: Sequence[float], seeds: int) -> NDArray[np.int_]:
    """What one analysis alone would claim: +1, -1 or 0 for each regularizer."""
    if seeds < MINIMUM_PAIRS:
        return np.zeros(len(means), dtype=int)
    return np.where(holm(p_values) <= ALPHA, np.sign(means), 0).astype(int)


def false_family_wise(claim: NDArray[np.int_], truth: Floats) -> NDArray[np.bool_]:
    """Whether a sweep [sweep] has any ``claim`` [sweep, regularizer] whose sign is not that of ``truth``."""
    return ((claim != 0) & (claim != np.sign(truth))).any(axis=1)


def calibration_row(
    scenario: str, effects: Floats, seeds: int, sweeps: int, noise: Noise, seed: int
) -> dict[str, str | int | float]:
    """One line of the calibration table. Rates are shares of sweeps; verdicts are shares of comparisons."""
    regularizers, lams = effects.shape
    out = judge_sweeps(_generator(seed, scenario, regularizers, lams, seeds), effects, seeds, sweeps, noise)
    errors = false_family_wise(out.claim, out.truth)
    low, high = _binomial_interval(errors)
    return {
        "scenario": scenario,
        "regularizers": regularizers,
        "lams": lams,
        "seeds": seeds,
        "sweeps": sweeps,
        "family_wise": errors.mean(),
        "family_wise_low": low,
        "family_wise_high": high,
        "same_seeds_only": false_family_wise(out.claim_same_seeds, out.truth).mean(),
        "left_out_only": false_family_wise(out.claim_left_out, out.truth).mean(),
        **_verdict_shares(out.verdict),
        "coverage": ((out.low <= out.truth) & (out.truth <= out.high)).mean(),
        "coverage_same_seeds": out.covered_same_seeds.mean(),
        "coverage_left_out": out.covered_left_out.mean(),
        "bias_same_seeds_pp": 100 * (out.estimate_same_seeds - out.truth).mean(),
        "bias_pp": 100 * (out.estimate - out.truth).mean(),
    }


def power_row(
    regularizers: int, seeds: int, difference_pp: float, sweeps: int, noise: Noise, seed: int
) -> dict[str, int | float]:
    """One line of the power table: the first regularizer helps by ``difference_pp`` at its best lam.

    Verdicts, estimate, interval and coverage are those of the first regularizer; ``false_claims`` is the
    share of sweeps with any wrong claim about any of them.
    """
    effects = np.tile(HARM, (regularizers, 1))
    effects[0] += GAIN * difference_pp / 100
    out = judge_sweeps(_generator(seed, "power", regularizers, LAMS, seeds), effects, seeds, sweeps, noise)
    better_low, better_high = _binomial_interval(out.claim[:, 0] == 1)
    first = (out.low[:, 0] <= out.truth[:, 0]) & (out.truth[:, 0] <= out.high[:, 0])
    shares = _verdict_shares(out.verdict[:, 0])
    return {
        "regularizers": regularizers,
        "lams": LAMS,
        "seeds": seeds,
        "difference_pp": difference_pp,
        "sweeps": sweeps,
        "better": shares.pop("better"),
        "better_low": better_low,
        "better_high": better_high,
        **shares,
        "better_same_seeds_only": (out.claim_same_seeds[:, 0] == 1).mean(),
        "best_lam_chosen": out.best_lam[:, 0].mean(),
        "estimate_pp": 100 * out.estimate[:, 0].mean(),
        "half_width_pp": 50 * (out.high[:, 0] - out.low[:, 0]).mean(),
        "coverage": first.mean(),
        "false_claims": false_family_wise(out.claim, out.truth).mean(),
    }


def scenarios(noise: Noise) -> list[tuple[str, Floats, Sequence[int], Noise]]:
    """Null scenarios as (name, effects [regularizer, lam], seeds, noise): the plain ones, then hard ones."""
    plain = [(NULL, np.zeros((r, LAMS)), SEEDS, noise) for r in FAMILIES]
    null, hard = np.zeros((3, LAMS)), (10, 20)
    return [
        *plain,
        ("one regularizer", np.zeros((1, LAMS)), hard, noise),
        (HURT, np.tile(HARM, (3, 1)), hard, noise),
        ("no shared noise", null, hard, replace(noise, trial_sd=0.0)),
        ("twice the shared noise", null, hard, replace(noise, trial_sd=2 * noise.trial_sd)),
        ("20 lams", np.zeros((3, 20)), hard, noise),
        ("20 lams, all noise shared", np.zeros((3, 20)), hard, replace(noise, overlap=1.0)),
    ]


def _verdict_shares(verdicts: NDArray[np.str_]) -> dict[str, float]:
    return {verdict.value.replace(" ", "_"): float((verdicts == verdict.value).mean()) for verdict in Verdict}


def _binomial_interval(hits: NDArray[np.bool_]) -> tuple[float, float]:
    """Exact 95 % interval of a share (Clopper & Pearson 1934)."""
    bounds = stats.binomtest(int(hits.sum()), hits.size).proportion_ci(0.95, method="exact")
    return float(bounds.low), float(bounds.high)


def _generator(seed: int, *cell: str | int) -> np.random.Generator:
    """A stream of its own for each cell, so that no cell's numbers depend on which others are run."""
    return np.random.default_rng([seed, zlib.crc32(repr(cell).encode())])


def _csv(rows: Iterable[dict]) -> str:
    rows = [{key: _number(value) for key, value in row.items()} for row in rows]
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()


def _number(value: str | int | float) -> str:
    """Shortest decimal of a value rounded to four places, without a negative zero."""
    return f"{round(float(value), 4) + 0.0:g}" if isinstance(value, float) else str(value)


def _table(columns: Mapping[str, Callable[[dict], object]], rows: Iterable[dict]) -> str:
    """A Markdown table; a heading in ** makes its whole column bold, and only "scenario" is set left."""
    lines = ["| " + " | ".join(columns) + " |"]
    lines.append("| " + " | ".join(":--" if name == "scenario" else "--:" for name in columns) + " |")
    for row in rows:
        cells = (f"**{cell(row)}**" if "**" in name else str(cell(row)) for name, cell in columns.items())
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _plain(key: str) -> Callable[[dict], object]:
    return lambda row: f"{row[key]:g}" if isinstance(row[key], float) else row[key]


def _percent(key: str) -> Callable[[dict], str]:
    return lambda row: f"{100 * row[key]:.1f}"


def _points(key: str) -> Callable[[dict], str]:
    # Adding zero turns a rounded -0.00 into 0.00.
    return lambda row: f"{round(row[key], 2) + 0.0:.2f}"


def _between(low: str, high: str) -> Callable[[dict], str]:
    return lambda row: f"{100 * row[low]:.1f} to {100 * row[high]:.1f}"


VERDICTS = {
    "equivalent, %": _percent("equivalent"),
    "no difference, %": _percent("no_difference_shown"),
    "too few, %": _percent("too_few_seeds"),
}
SIZE = {
    "scenario": _plain("scenario"),
    "regularizers": _plain("regularizers"),
    "lams": _plain("lams"),
    "seeds": _plain("seeds"),
    "**wrong claim, %**": _percent("family_wise"),
    "95 % interval": _between("family_wise_low", "family_wise_high"),
    "same seeds only, %": _percent("same_seeds_only"),
    "left out only, %": _percent("left_out_only"),
    **VERDICTS,
}
INTERVALS = {
    "scenario": _plain("scenario"),
    "regularizers": _plain("regularizers"),
    "seeds": _plain("seeds"),
    "bias, pp": _points("bias_pp"),
    "bias same seeds, pp": _points("bias_same_seeds_pp"),
    "**coverage, %**": _percent("coverage"),
    "coverage same seeds, %": _percent("coverage_same_seeds"),
    "coverage left out, %": _percent("coverage_left_out"),
}
POWER = {
    "seeds": _plain("seeds"),
    "true gain, pp": _plain("difference_pp"),
    "**better, %**": _percent("better"),
    "95 % interval": _between("better_low", "better_high"),
    **VERDICTS,
    "same seeds only, %": _percent("better_same_seeds_only"),
    "best lam chosen, %": _percent("best_lam_chosen"),
    "mean estimate, pp": _points("estimate_pp"),
    "+- half width, pp": _points("half_width_pp"),
    "coverage, %": _percent("coverage"),
    "wrong claim, %": _percent("false_claims"),
}


def readme(calibration: Sequence[dict], table: Sequence[dict], sweeps: int, seed: int, noise: Noise) -> str:
    """The committed page: what was simulated, under which assumptions, and what came out."""
    options = " ".join(f"--{name.replace('_', '-')} {value:g}" for name, value in asdict(noise).items())
    own = 100 * np.sqrt((1 - noise.overlap) * noise.accuracy * (1 - noise.accuracy) / noise.test_images)
    paired = np.sqrt(2 * ((100 * noise.trial_sd) ** 2 + own**2))
    null = [row for row in calibration if row["scenario"] == NULL]
    worst = max(null, key=lambda row: row["family_wise"])
    hardest = max(calibration, key=lambda row: row["family_wise"])
    families = {family: [row for row in table if row["regularizers"] == family] for family in FAMILIES}
    powers = "\n\n".join(f"### {m} regularizers\n\n{_table(POWER, rows)}" for m, rows in families.items())
    percent, between = _percent("family_wise"), _between("family_wise_low", "family_wise_high")
    seed_pp, trial_pp = f"{100 * noise.seed_sd:g}", f"{100 * noise.trial_sd:g}"
    needed = ", ".join(f"{power.seeds_needed(m)} for m = {m}" for m in (1, 3, 8))
    gains = ", ".join(f"{100 * share:g}" for share in GAIN)
    harms = ", ".join(f"{100 * cost:g}" for cost in HARM)
    return f"""# Calibration of the report's verdicts

    python -m benchmarks.calibration --sweeps {sweeps} --seed {seed} {options}

{sweeps:,} simulated sweeps in each row, judged by `regbench.report.statistics.compare`, the code that the
report runs. Python {platform.python_version()}, NumPy {np.__version__}, SciPy {scipy.__version__},
statsmodels {statsmodels.__version__}. The same options and versions give the same bytes.
All numbers: [calibration.csv](calibration.csv), [power.csv](power.csv).

## In short

- Where nothing differs, at most {percent(worst)} % of the sweeps call any regularizer better or worse
  ({worst["regularizers"]} regularizers, {worst["seeds"]} seeds; 95 % interval {between(worst)} %).
  The aim is 5 %.
- The highest rate in any scenario is {percent(hardest)} %: {hardest["scenario"]}, {hardest["seeds"]} seeds.
- Five seeds carry no verdict. A family of m regularizers needs n seeds such that 2 m / 2^n is at most 0.05:
  {needed}.

## When nothing differs

"Wrong claim" is the share of sweeps in which any regularizer is called better or worse although its true
difference at the chosen lam is zero or has the other sign; the interval is Clopper and Pearson's. "Same seeds
only" is the plain procedure: choose lam on validation, test the same seeds at that lam. "Left out only" tests
each seed at the lam that the other seeds choose. The report claims only what holds for both and at every lam
that is nearly tied with the chosen one. The shares of verdicts are of comparisons.

{_table(SIZE, calibration)}

The plain procedure errs too often because a training that validation favours is favoured on test as well.
Leaving one seed out takes that bias away, but its differences are correlated between seeds, so that its
own error is understated.

## Intervals

Bias of the estimate, and how often the nominal 95 % intervals cover the true difference at the chosen lam.

{_table(INTERVALS, calibration)}

## What can be seen

The first regularizer gains the stated percentage points at its best lam, the others gain nothing. All columns
are about the first one, but the last, which is about all. "Better" is the power; "equivalent" is right where
the lam that was chosen gains less than {100 * MARGIN:g} pp.

{powers}

## Assumptions

accuracy = true accuracy + seed effect + trial effect + sampling of images, rounded to whole images. All three
are normal.

- True accuracy of `none`: {100 * noise.accuracy:g} %.
- Seed effect, standard deviation {seed_pp} pp: initial weights, batch order and split, common to all trials
  of a seed. It cancels in paired differences and in the choice of lam.
- Trial effect, {trial_pp} pp: how well one training came out, common to its validation and test accuracy. It
  is what makes the winner's curse. It may well be smaller: Jordan (2024, "On the variance of neural network
  training with respect to test sets and distributions", ICLR) finds that most of the spread between runs on
  CIFAR-10 comes from the sampling of the test set. So this is the cautious side.
- Images: {noise.validation_images:,} for validation, drawn anew by each seed and shared by its trials;
  {noise.test_images:,} for test, the same for all. The variance is binomial. Its share {noise.overlap:g}, the
  correlation of two trainings' correctness on one image, is common to trials that see the same images and
  cancels between them; the rest is each trial's own. That leaves {own:.2f} pp of a test accuracy and makes,
  with the trial effect, {paired:.2f} pp in a paired difference.
- A grid of {LAMS} lams. Share of the gain along it, in %: {gains}. In the power tables and in
  "{HURT}" every regularizer has a cost along it, in pp: {harms}. Elsewhere every lam equals `none`,
  which is where choosing among them does most harm.
- Margin of equivalence +-{100 * MARGIN:g} pp; family-wise level {100 * ALPHA:g} %.

The sizes are assumed, not measured: give your own as options.
"""


def _write(path: Path, text: str) -> None:
    """Write beside, then rename: a reader sees the old file or the new one, never a part."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, encoding="utf-8", newline="\n")
    os.replace(partial, path)


@click.command()
@click.option("--sweeps", default=1_000, show_default=True, type=click.IntRange(min=1), help="Sweeps per row.")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(min=0))
@click.option(
    "--out",
    default="benchmarks/results/calibration",
    show_default=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for calibration.csv, power.csv and README.md.",
)
@click.option("--accuracy", default=Noise.accuracy, show_default=True, help="Of none; a fraction.")
@click.option("--seed-sd", default=Noise.seed_sd, show_default=True, help="Of a seed; a fraction.")
@click.option("--trial-sd", default=Noise.trial_sd, show_default=True, help="Of one training; a fraction.")
@click.option("--overlap", default=Noise.overlap, show_default=True, type=click.FloatRange(0, 1))
@click.option("--validation-images", default=Noise.validation_images, show_default=True)
@click.option("--test-images", default=Noise.test_images, show_default=True)
@click.option("--update-package", is_flag=True, help="Also replace the table that a dry run quotes.")
def main(sweeps: int, seed: int, out: Path, update_package: bool, **sizes: float) -> None:
    """Measure how often the report's verdicts are wrong, and what they can see."""
    # statsmodels collects garbage at every adjustment; with what exists by now set aside, that costs little.
    gc.freeze()
    noise = Noise(**sizes)
    calibration = []
    for scenario, effects, counts, scenario_noise in scenarios(noise):
        for seeds in counts:
            row = calibration_row(scenario, effects, seeds, sweeps, scenario_noise, seed)
            calibration.append(row)
            size = f"{row['regularizers']} regularizers, {row['lams']} lams, {seeds} seeds"
            click.echo(f"{scenario}, {size}: {100 * row['family_wise']:.1f} % wrong claims")
    table = []
    for family in FAMILIES:
        for seeds in POWER_SEEDS:
            for difference_pp in DIFFERENCES_PP:
                row = power_row(family, seeds, difference_pp, sweeps, noise, seed)
                table.append(row)
                size = f"{family} regularizers, {seeds} seeds, {difference_pp:g} pp"
                click.echo(f"{size}: {100 * row['better']:.1f} % found")
    out.mkdir(parents=True, exist_ok=True)
    _write(out / "calibration.csv", _csv(calibration))
    _write(out / "power.csv", _csv(table))
    _write(out / "README.md", readme(calibration, table, sweeps, seed, noise))
    if update_package:
        _write(Path(power.__file__).with_name("power.csv"), _csv(table))


if __name__ == "__main__":
    main()
