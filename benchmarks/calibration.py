"""How often the report's verdicts are wrong, and what they can see: simulated sweeps judged by the report's own code.

`python -m benchmarks.calibration` simulates sweeps in which nothing differs and counts how often any regularizer is
called better or worse; then sweeps in which one regularizer truly helps, and counts how often that is found. It writes
`calibration.csv`, `power.csv` and `README.md`; the same seed gives the same bytes.
"""

import gc
import platform
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from operator import itemgetter
from pathlib import Path

import click
import numpy as np
import pandas as pd
import scipy
import statsmodels
from numpy.typing import NDArray
from scipy import stats

from regbench.files import atomic
from regbench.report import power
from regbench.report.power import ALPHA, MINIMUM_PAIRS
from regbench.report.statistics import holm
from regbench.report.verdict import MARGIN, Grid, Verdict, compare

Floats = NDArray[np.float64]

SEEDS = (5, 10, 20)
POWER_SEEDS = (5, 7, 10, 15, 20)
FAMILIES = (3, 8)
DIFFERENCES_PP = (0.5, 1.0, 2.0)
LAMS = 7
LAM_GRID = 10.0 ** np.arange(-6, 14)
NULL, HURT = "nothing differs", "strong lams hurt"

# Shares of the full gain along a grid with steps of about three: it builds up, peaks, and beyond the peak the penalty
# costs more than it gives, whatever the gain was.
GAIN = np.array([0.0, 0.1, 0.5, 1.0, 0.5, 0.0, 0.0])
HARM = np.array([0.0, 0.0, 0.0, 0.0, 0.0, -0.01, -0.03])


@dataclass(frozen=True)
class Noise:
    """The sources of variation of accuracies: fractions in [0, 1].

    accuracy           true accuracy of `none`
    seed_sd            effect of a seed, common to all its trials: weights, batch order, split
    trial_sd           effect of one training, common to its validation and its test accuracy
    overlap            correlation, image by image, between the correctness of two trainings: the share of the sampling
                       variance that trials on the same images have in common
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
    """The results of `compare` for simulated sweeps; every array is [sweep, regularizer].

    `verdict` holds Verdict values; `claim`, `claim_same_seeds` and `claim_left_out` are +1 for better, -1 for worse, 0
    for no claim: by the report's rule, by the test at the chosen lam alone, and by the test of the left-out differences
    alone. `truth` is the true difference at the chosen lam; it and all other differences are fractions.
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
    """Return validation and test accuracies [sweep, regularizer, lam, seed], and the test accuracy of `none` [sweep, seed].

    `effects` [regularizer, lam] are true differences from `none`. All are fractions; accuracies are whole numbers of
    images, divided by their number.
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
    """Return accuracies `trained` [sweep, trial, seed] as measured on `images`; `common`: shape of the shared noise."""
    sd = np.sqrt(noise.accuracy * (1 - noise.accuracy) / images)
    shared = rng.normal(0, sd * np.sqrt(noise.overlap), common)
    own = rng.normal(0, sd * np.sqrt(1 - noise.overlap), trained.shape)
    return np.clip(np.rint((trained + shared + own) * images) / images, 0, 1)


def judge_sweeps(rng: np.random.Generator, effects: Floats, seeds: int, sweeps: int, noise: Noise) -> Judged:
    """Simulate `sweeps` sweeps with true `effects` [regularizer, lam] and judge each with `compare`."""
    validation, test, baseline = simulate(rng, effects, seeds, sweeps, noise)
    regularizers, lams = effects.shape
    best = effects.argmax(axis=1)
    rows = []
    for sweep in range(sweeps):
        family = {str(r): Grid(LAM_GRID[:lams], validation[sweep, r], test[sweep, r]) for r in range(regularizers)}
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
    """Return what one analysis alone would claim: +1, -1 or 0 for each regularizer."""
    if seeds < MINIMUM_PAIRS:
        return np.zeros(len(means), dtype=int)
    return np.where(holm(p_values) <= ALPHA, np.sign(means), 0).astype(int)


def false_family_wise(claim: NDArray[np.int_], truth: Floats) -> NDArray[np.bool_]:
    """Return whether a sweep [sweep] has any `claim` [sweep, regularizer] whose sign is not that of `truth`."""
    return ((claim != 0) & (claim != np.sign(truth))).any(axis=1)


def calibration_row(
    scenario: str, effects: Floats, seeds: int, sweeps: int, noise: Noise, seed: int
) -> dict[str, str | int | float]:
    """Return one line of the calibration table. Rates are shares of sweeps; verdicts are shares of comparisons."""
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
    """Return one line of the power table: the first regularizer helps by `difference_pp` at its best lam.

    Verdicts, estimate, interval and coverage are those of the first regularizer; `false_claims` is the share of sweeps
    with any wrong claim about any of them.
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
    """Return null scenarios as (name, effects [regularizer, lam], seeds, noise): the plain ones, then hard ones."""
    null, hard = np.zeros((3, LAMS)), (10, 20)
    return [
        *((NULL, np.zeros((family, LAMS)), SEEDS, noise) for family in FAMILIES),
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
    """Return the exact 95 % interval of a share (Clopper & Pearson 1934)."""
    return stats.binomtest(int(hits.sum()), hits.size).proportion_ci(0.95, method="exact")


def _generator(seed: int, *cell: str | int) -> np.random.Generator:
    """Return a generator for each cell alone, so that no cell's numbers depend on which others are run."""
    return np.random.default_rng([seed, zlib.crc32(repr(cell).encode())])


def _csv(rows: Iterable[dict]) -> str:
    """Return rows as CSV, with the shortest decimals of values rounded to four places, without a negative zero."""
    return pd.DataFrame(rows).to_csv(
        index=False, lineterminator="\n", float_format=lambda value: f"{round(float(value), 4) + 0.0:g}"
    )


# headings of the page's tables -> formats of their cells; shares are in %
VERDICTS = {
    "equivalent, %": "{equivalent:.1f}",
    "no difference, %": "{no_difference_shown:.1f}",
    "too few, %": "{too_few_seeds:.1f}",
}
SIZE = {
    "scenario": "{scenario}",
    "regularizers": "{regularizers}",
    "lams": "{lams}",
    "seeds": "{seeds}",
    "**wrong claim, %**": "**{family_wise:.1f}**",
    "95 % interval": "{family_wise_low:.1f} to {family_wise_high:.1f}",
    "same seeds only, %": "{same_seeds_only:.1f}",
    "left out only, %": "{left_out_only:.1f}",
    **VERDICTS,
}
INTERVALS = {
    "scenario": "{scenario}",
    "regularizers": "{regularizers}",
    "seeds": "{seeds}",
    "bias, pp": "{bias_pp:z.2f}",
    "bias same seeds, pp": "{bias_same_seeds_pp:z.2f}",
    "**coverage, %**": "**{coverage:.1f}**",
    "coverage same seeds, %": "{coverage_same_seeds:.1f}",
    "coverage left out, %": "{coverage_left_out:.1f}",
}
POWER = {
    "seeds": "{seeds}",
    "true gain, pp": "{difference_pp:g}",
    "**better, %**": "**{better:.1f}**",
    "95 % interval": "{better_low:.1f} to {better_high:.1f}",
    **VERDICTS,
    "same seeds only, %": "{better_same_seeds_only:.1f}",
    "best lam chosen, %": "{best_lam_chosen:.1f}",
    "mean estimate, pp": "{estimate_pp:z.2f}",
    "+- half width, pp": "{half_width_pp:.2f}",
    "coverage, %": "{coverage:.1f}",
    "wrong claim, %": "{false_claims:.1f}",
}


def _table(columns: Mapping[str, str], rows: Iterable[dict]) -> str:
    """Return a Markdown table in which only the column "scenario" is set left."""
    rule = (":--" if name == "scenario" else "--:" for name in columns)
    cells = ([form.format(**_percent(row)) for form in columns.values()] for row in rows)
    return "\n".join("| " + " | ".join(line) + " |" for line in (columns, rule, *cells))


def _percent(row: dict) -> dict:
    """Return a row with its shares in %."""
    shares = {key for key, value in row.items() if isinstance(value, float) and not key.endswith("_pp")}
    return {key: 100 * value if key in shares else value for key, value in row.items()}


def readme(calibration: Sequence[dict], table: Sequence[dict], sweeps: int, seed: int, noise: Noise) -> str:
    """Return the committed page: what was simulated, under which assumptions, and what came out."""
    options = " ".join(f"--{name.replace('_', '-')} {value:g}" for name, value in asdict(noise).items())
    own = 100 * np.sqrt((1 - noise.overlap) * noise.accuracy * (1 - noise.accuracy) / noise.test_images)
    paired = np.sqrt(2 * ((100 * noise.trial_sd) ** 2 + own**2))
    rates = [_percent(row) for row in calibration]
    hardest = max(rates, key=itemgetter("family_wise"))
    worst = max((row for row in rates if row["scenario"] == NULL), key=itemgetter("family_wise"))
    families = {family: [row for row in table if row["regularizers"] == family] for family in FAMILIES}
    powers = "\n\n".join(f"### {m} regularizers\n\n{_table(POWER, rows)}" for m, rows in families.items())
    needed = ", ".join(f"{power.seeds_needed(m)} for m = {m}" for m in (1, 3, 8))
    gains = ", ".join(f"{100 * share:g}" for share in GAIN)
    harms = ", ".join(f"{100 * cost:g}" for cost in HARM)
    return f"""# Calibration of the report's verdicts

    python -m benchmarks.calibration --sweeps {sweeps} --seed {seed} {options}

{sweeps:,} simulated sweeps in each row, judged by `regbench.report.verdict.compare`, the code that the
report runs. Python {platform.python_version()}, NumPy {np.__version__}, SciPy {scipy.__version__},
statsmodels {statsmodels.__version__}. The same options and versions give the same bytes.
All numbers: [calibration.csv](calibration.csv), [power.csv](power.csv).

## In short

- Where nothing differs, at most {worst["family_wise"]:.1f} % of the sweeps call any regularizer better or worse
  ({worst["regularizers"]} regularizers, {worst["seeds"]} seeds; 95 % interval {SIZE["95 % interval"].format(**worst)} %).
  The aim is 5 %.
- The highest rate in any scenario is {hardest["family_wise"]:.1f} %: {hardest["scenario"]}, {hardest["seeds"]} seeds.
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
- Seed effect, standard deviation {100 * noise.seed_sd:g} pp: initial weights, batch order and split, common to all trials
  of a seed. It cancels in paired differences and in the choice of lam.
- Trial effect, {100 * noise.trial_sd:g} pp: how well one training came out, common to its validation and test accuracy. It
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


@click.command(context_settings={"show_default": True})
@click.option("--sweeps", default=1_000, type=click.IntRange(min=1), help="Sweeps per row.")
@click.option("--seed", default=0, type=click.IntRange(min=0))
@click.option(
    "--out",
    default="benchmarks/results/calibration",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for calibration.csv, power.csv and README.md.",
)
@click.option("--accuracy", default=Noise.accuracy, help="Of none; a fraction.")
@click.option("--seed-sd", default=Noise.seed_sd, help="Of a seed; a fraction.")
@click.option("--trial-sd", default=Noise.trial_sd, help="Of one training; a fraction.")
@click.option("--overlap", default=Noise.overlap, type=click.FloatRange(0, 1))
@click.option("--validation-images", default=Noise.validation_images)
@click.option("--test-images", default=Noise.test_images)
@click.option("--update-package", is_flag=True, help="Also replace the table that a dry run quotes.")
def main(sweeps: int, seed: int, out: Path, update_package: bool, **sizes: float) -> None:
    """Measure how often the report's verdicts are wrong, and what they can see."""
    # statsmodels collects garbage at every adjustment; with the objects that exist by now frozen, that costs little
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
    for family, seeds, difference_pp in product(FAMILIES, POWER_SEEDS, DIFFERENCES_PP):
        row = power_row(family, seeds, difference_pp, sweeps, noise, seed)
        table.append(row)
        size = f"{family} regularizers, {seeds} seeds, {difference_pp:g} pp"
        click.echo(f"{size}: {100 * row['better']:.1f} % found")
    texts = {out / "calibration.csv": _csv(calibration), out / "power.csv": _csv(table)}
    texts[out / "README.md"] = readme(calibration, table, sweeps, seed, noise)
    if update_package:
        texts[Path(power.__file__).with_name("power.csv")] = _csv(table)
    for path, text in texts.items():
        with atomic(path) as temporary:
            temporary.write_text(text, encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
