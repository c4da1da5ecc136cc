"""How often the verdicts are wrong, what they can see, and what that costs: simulated sweeps judged by regbench's own code.

`python -m benchmarks.calibration` simulates sweeps that choose lam on a grid and confirm it on fresh seeds: some in which
nothing differs, where any claim is wrong, and some in which one regularizer truly helps. It writes `calibration.csv`,
`power.csv`, `designs.csv` and `README.md`; the same options give the same bytes.
"""

import platform
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import chain, product
from operator import itemgetter
from pathlib import Path

import click
import numpy as np
import pandas as pd
import scipy
from click.core import ParameterSource
from numpy.typing import NDArray
from scipy import stats

from benchmarks import pages
from regbench.statistics.choice import choose
from regbench.statistics.looks import ALPHA
from regbench.statistics.verdict import MARGIN, Verdict, judge

Floats = NDArray[np.float64]

RESULTS = Path(__file__).parent / "results" / "calibration"
SELECTION = 3  # seeds of the grid
FRESH = 40  # seeds, at most
SEVERAL = (12, 24, 40)  # looks
DESIGNS = ((10,), (20,), SEVERAL)
PLACEMENTS = ((10, 20, 40), SEVERAL, (20, 40), (40,))
LAMS = 7
HURT, GAINS = "strong lams hurt", "the first gains"

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

    @property
    def own_sd(self) -> float:
        """Standard deviation that the sampling of test images gives each trial for itself."""
        return float(np.sqrt((1 - self.overlap) * self.accuracy * (1 - self.accuracy) / self.test_images))

    @property
    def paired_sd(self) -> float:
        """Standard deviation of a paired difference in test accuracy."""
        return float(np.sqrt(2 * (self.trial_sd**2 + self.own_sd**2)))

    def with_paired_sd(self, sd: float) -> "Noise":
        """Return the noise with the trial effect that gives paired differences this standard deviation.

        Raises ValueError if the sampling of images alone gives more.
        """
        trial = sd**2 / 2 - self.own_sd**2
        if not trial >= 0:
            raise ValueError(
                f"{100 * sd:g} pp is below the {100 * np.sqrt(2) * self.own_sd:.2f} of the sampling of images alone"
            )
        return replace(self, trial_sd=float(np.sqrt(trial)))


@dataclass(frozen=True)
class Scenario:
    """Sweeps that are alike, and by which looks they are judged.

    `effects` [regularizer, lam] are true differences from `none`, fractions.
    """

    name: str
    effects: Floats
    noise: Noise
    designs: Sequence[Sequence[int]] = DESIGNS
    selection: int = SELECTION


@dataclass(frozen=True)
class Judged:
    """The verdicts of simulated sweeps; every array is [sweep, regularizer].

    `truth` is the true difference at the chosen lam; it and the bounds of the interval beside the verdict are fractions.
    `looked` is the number of fresh seeds.
    """

    verdict: NDArray[np.str_]
    truth: Floats
    low: Floats
    high: Floats
    looked: NDArray[np.int_]

    @property
    def wrong_claim(self) -> NDArray[np.bool_]:
        """Whether a sweep [sweep] calls any better that is not truly so, or any worse."""
        better, worse = self.verdict == Verdict.BETTER.value, self.verdict == Verdict.WORSE.value
        return (better & (self.truth <= 0) | worse & (self.truth >= 0)).any(axis=1)

    @property
    def wrong_equivalent(self) -> NDArray[np.bool_]:
        """Whether a sweep [sweep] calls any equivalent whose true difference is outside the margin."""
        return ((self.verdict == Verdict.EQUIVALENT.value) & (np.abs(self.truth) > MARGIN + 1e-12)).any(axis=1)


def simulate_grid(rng: np.random.Generator, effects: Floats, seeds: int, sweeps: int, noise: Noise) -> Floats:
    """Return validation accuracies [sweep, regularizer, lam, seed] of grids with true `effects` [regularizer, lam]."""
    trained = _trained(rng, np.broadcast_to(effects, (sweeps, *effects.shape)), seeds, noise)
    # a seed's validation images are its own, and the same for all its trials
    return _measured(rng, trained, noise.validation_images, (sweeps, 1, 1, seeds), noise)


def simulate_fresh(rng: np.random.Generator, effects: Floats, seeds: int, noise: Noise) -> Floats:
    """Return test accuracies [sweep, 1 + regularizer, seed]: of `none`, then with true `effects` [sweep, regularizer]."""
    trained = _trained(rng, np.insert(effects, 0, 0.0, axis=1), seeds, noise)
    # the test images are the same for every seed
    return _measured(rng, trained, noise.test_images, (len(effects), 1, 1), noise)


def _trained(rng: np.random.Generator, effects: Floats, seeds: int, noise: Noise) -> Floats:
    """Return true accuracies [sweep, ..., seed] of trainings with true `effects` [sweep, ...]."""
    of_seed = rng.normal(0, noise.seed_sd, (len(effects), *[1] * (effects.ndim - 1), seeds))
    return noise.accuracy + effects[..., None] + of_seed + rng.normal(0, noise.trial_sd, (*effects.shape, seeds))


def _measured(rng: np.random.Generator, trained: Floats, images: int, common: tuple[int, ...], noise: Noise) -> Floats:
    """Return accuracies `trained` as measured on `images`, in whole images; `common`: shape of the shared noise."""
    sd = np.sqrt(noise.accuracy * (1 - noise.accuracy) / images)
    shared = rng.normal(0, sd * np.sqrt(noise.overlap), common)
    own = rng.normal(0, sd * np.sqrt(1 - noise.overlap), trained.shape)
    return np.clip(np.rint((trained + shared + own) * images) / images, 0, 1)


def judge_sweeps(rng: np.random.Generator, scenario: Scenario, sweeps: int) -> list[Judged]:
    """Simulate `sweeps` sweeps of a scenario and judge them by each of its designs.

    All designs see the same grids and the same fresh seeds, as far as they go.
    """
    grids = simulate_grid(rng, scenario.effects, scenario.selection, sweeps, scenario.noise)
    chosen = np.array([[int(choose(dict(enumerate(scores))).lam) for scores in grid] for grid in grids])
    truth = np.take_along_axis(scenario.effects[None], chosen[..., None], axis=2)[..., 0]
    accuracies = simulate_fresh(rng, truth, FRESH, scenario.noise)
    differences = accuracies[:, 1:] - accuracies[:, :1]
    found = []
    for looks in scenario.designs:
        judged = [judge(dict(enumerate(family[:, : looks[-1]])), looks).values() for family in differences]
        rows = [[(c.verdict.value, c.difference.low, c.difference.high, c.looked) for c in family] for family in judged]
        verdict, low, high, looked = np.moveaxis(np.array(rows, dtype=object), 2, 0)
        found.append(Judged(verdict.astype(str), truth, low.astype(float), high.astype(float), looked.astype(int)))
    return found


def table(scenarios: Iterable[Scenario], sweeps: int, seed: int) -> list[dict[str, str | int | float]]:
    """Return a line for each scenario and design.

    Wrong verdicts are shares of sweeps, coverage is one of comparisons; the rest is about the first regularizer.
    """
    rows = []
    for scenario in scenarios:
        regularizers, lams = scenario.effects.shape
        best = scenario.effects[0].max()
        # numbers of their own, whichever others are run; the same for all gains
        cell = zlib.crc32(repr((scenario.name, regularizers, lams, scenario.selection)).encode())
        for looks, out in zip(
            scenario.designs, judge_sweeps(np.random.default_rng([seed, cell]), scenario, sweeps), strict=True
        ):
            trainings = out.looked.sum(axis=1) + out.looked.max(axis=1)  # `none` goes on as long as any does
            trainings += scenario.selection * (regularizers * lams + 1)
            shares = {
                verdict.value.replace(" ", "_"): (out.verdict[:, 0] == verdict.value).mean() for verdict in Verdict
            }
            row = {
                "scenario": scenario.name,
                "regularizers": regularizers,
                "lams": lams,
                "gain_pp": 100 * best,
                "selection_seeds": scenario.selection,
                "looks": " ".join(map(str, looks)),
                "sweeps": sweeps,
                **_share("wrong_claim", out.wrong_claim),
                "wrong_equivalent": out.wrong_equivalent.mean(),
                "coverage": ((out.low <= out.truth) & (out.truth <= out.high)).mean(),
                **shares,
                **_share("better", out.verdict[:, 0] == Verdict.BETTER.value),
                "best_lam_chosen": (out.truth[:, 0] == best).mean(),
                "chosen_gain_pp": 100 * out.truth[:, 0].mean(),
                "trainings": trainings.mean(),
                "most_trainings": trainings.max(),
            }
            click.echo(" ".join(f"{value:.4g}" if isinstance(value, float) else str(value) for value in row.values()))
            rows.append(row)
    return rows


def wrong(noise: Noise) -> list[Scenario]:
    """Return scenarios of wrong verdicts: the plain ones, then hard ones."""
    null = np.zeros((3, LAMS))
    return [
        *(Scenario("nothing differs", np.zeros((family, LAMS)), noise) for family in (1, 3, 8)),
        Scenario(HURT, np.tile(HARM, (3, 1)), noise),
        Scenario("no shared noise", null, replace(noise, trial_sd=0.0)),
        Scenario("twice the shared noise", null, replace(noise, trial_sd=2 * noise.trial_sd)),
        Scenario("20 lams", np.zeros((3, 20)), noise),
        Scenario("20 lams, all noise shared", np.zeros((3, 20)), replace(noise, overlap=1.0)),
        Scenario("all gain just over the margin", null + MARGIN + 1e-6, noise),
    ]


def gaining(noise: Noise, families: Sequence[int], gains_pp: Sequence[float], **design) -> list[Scenario]:
    """Return scenarios in which the first regularizer of a family gains so much at its best lam, and no other gains."""
    found = []
    for regularizers, gain in product(families, gains_pp):
        effects = np.tile(HARM, (regularizers, 1))
        effects[0] += GAIN * gain / 100
        found.append(Scenario(GAINS, effects, noise, **design))
    return found


def _share(name: str, hits: NDArray[np.bool_]) -> dict[str, float]:
    """Return a share with its exact 95 % interval (Clopper & Pearson 1934)."""
    low, high = stats.binomtest(int(hits.sum()), hits.size).proportion_ci(0.95, method="exact")
    return {name: hits.mean(), f"{name}_low": low, f"{name}_high": high}


def _csv(rows: Iterable[dict]) -> str:
    """Return rows as CSV, with the shortest decimals of values rounded to four places, without a negative zero."""
    return pd.DataFrame(rows).to_csv(
        index=False, lineterminator="\n", float_format=lambda value: f"{round(float(value), 4) + 0.0:g}"
    )


def _single_stage() -> list[dict]:
    """Return rows of the committed power of the design before, and what its sweeps cost."""
    found = pd.read_csv(RESULTS / "single_stage.csv").query("seeds in (10, 20)")
    trainings = (found["regularizers"] * found["lams"] + 1) * found["seeds"]
    design = "before, " + found["seeds"].astype(str) + " seeds"
    new = {"gain_pp": found["difference_pp"], "design": design, "trainings": trainings, "most_trainings": trainings}
    return found.assign(**new).to_dict("records")


# headings of the page's tables -> formats of their cells
CELLS = {
    "scenario": "{scenario}",
    "design": "{design}",
    "regularizers": "{regularizers}",
    "lams": "{lams}",
    "looks": "{looks}",
    "true gain, pp": "{gain_pp:g}",
    "seeds of the grid": "{selection_seeds}",
    "**wrong claim**": "**{wrong_claim:.1%}**",
    "its 95 % interval": "{wrong_claim_low:.1%} to {wrong_claim_high:.1%}",
    "wrongly equivalent": "{wrong_equivalent:.1%}",
    "coverage": "{coverage:.1%}",
    "**better**": "**{better:.1%}**",
    "95 % interval": "{better_low:.1%} to {better_high:.1%}",
    "equivalent": "{equivalent:.1%}",
    "no difference": "{no_difference_shown:.1%}",
    "too few": "{too_few_seeds:.1%}",
    "best lam chosen": "{best_lam_chosen:.1%}",
    "true gain at the chosen lam, pp": "{chosen_gain_pp:.2f}",
    "trainings": "{trainings:.0f}",
    "most": "{most_trainings}",
}
RATES = "**wrong claim**; its 95 % interval; wrongly equivalent; coverage; equivalent; no difference; too few"
FOUND = "**better**; 95 % interval; equivalent"
COSTS = "trainings; most"


def _markdown(headings: str, rows: Iterable[dict]) -> str:
    """Return a Markdown table of columns whose `headings` are separated by "; "; only text is set left."""
    names = headings.split("; ")
    rule = (":--" if name in ("scenario", "design") else "--:" for name in names)
    cells = ([CELLS[name].format(**row) for name in names] for row in rows)
    return "\n".join("| " + " | ".join(line) + " |" for line in (names, rule, *cells))


def readme(
    calibration: Sequence[dict],
    powers: Sequence[dict],
    looks: Sequence[dict],
    selections: Sequence[dict],
    sweeps: int,
    seed: int,
    noise: Noise,
) -> str:
    """Return the committed page: what was simulated, under which assumptions, and what came out."""
    options = " ".join(f"--{name.replace('_', '-')}={value:g}" for name, value in asdict(noise).items())
    hardest = max(calibration, key=itemgetter("wrong_claim"))
    edge = max(calibration, key=itemgetter("wrong_equivalent"))
    compared = [{**row, "design": f"{row['looks'].replace(' ', ', ')} fresh"} for row in powers]
    compared += _single_stage() if noise == Noise() else []  # simulated with that noise
    compared.sort(key=itemgetter("regularizers", "gain_pp"))
    several = " ".join(map(str, SEVERAL))
    null = next(row for row in looks if (row["regularizers"], row["gain_pp"], row["looks"]) == (3, 0, several))
    now = next(row for row in powers if (row["regularizers"], row["gain_pp"], row["looks"]) == (3, 1, several))
    before = [row for row in compared if (row["regularizers"], row["gain_pp"]) == (3, 1) and "seeds" in row]
    earlier = " and ".join(f"{row['better']:.1%} with {row['trainings']}" for row in before)
    earlier = f" The design before found the latter in {earlier} trainings." if before else ""
    chosen = f"best lam chosen; true gain at the chosen lam, pp; {FOUND}; {COSTS}"
    margin, pp = f"{100 * MARGIN:g} pp", {name: f"{100 * value:.3g} pp" for name, value in asdict(noise).items()}
    gains = ", ".join(f"{100 * share:g}" for share in GAIN)
    harms = ", ".join(f"{100 * cost:g}" for cost in HARM)
    return f"""# Calibration of the verdicts

    python -m benchmarks.calibration --sweeps={sweeps} --seed={seed} {options}

{sweeps:,} simulated sweeps in each row. Each chooses lam on a grid of {SELECTION} seeds and trains fresh seeds at the
chosen lam, which are judged by `regbench.statistics.verdict.judge`, the code that the report runs.
Python {platform.python_version()}, NumPy {np.__version__}, SciPy {scipy.__version__}. The same options and versions
give the same bytes. All numbers: [calibration.csv](calibration.csv), [power.csv](power.csv),
[designs.csv](designs.csv).

## In short

- The highest rate of wrong claims in any scenario is {hardest["wrong_claim"]:.1%} of the sweeps; it may be {ALPHA:.0%}
  ({hardest["scenario"]}, {hardest["regularizers"]} regularizers, judged after {hardest["looks"].replace(" ", ", ")};
  95 % interval {CELLS["its 95 % interval"].format(**hardest)}).
- At most {edge["wrong_equivalent"]:.1%} of the sweeps call any equivalent that differs by more than {margin}
  ({edge["scenario"]}, judged after {edge["looks"].replace(" ", ", ")}).
- With {several.replace(" ", ", ")} fresh seeds, one of 3 regularizers that changes nothing is shown to be equivalent in
  {null["equivalent"]:.1%} of the sweeps, and one that gains 1 pp to be better in {now["better"]:.1%}, after
  {now["trainings"]:.0f} trainings on average.{earlier}

## Wrong verdicts

"Wrong claim" is the share of sweeps in which any regularizer is called better or worse although its true difference
at the chosen lam is zero or has the other sign; the interval is Clopper and Pearson's. "Wrongly equivalent": any is
called equivalent although its true difference is outside +-{margin}. "Coverage": how often the interval beside a
verdict, at the verdict's level, holds the true difference. The other verdicts are the first regularizer's.
"Trainings" is their mean number in a sweep, the grid included; "most" the largest.

{_markdown(f"scenario; regularizers; lams; looks; {RATES}; {COSTS}", calibration)}

## What can be seen

The first regularizer gains the stated percentage points at its best lam, the others gain nothing. All columns but the
trainings are about the first one. "Better" is the power; "equivalent" is right where the lam that was chosen gains no
more than {margin}. "Before" is the design of earlier versions: the whole grid at every seed, lam chosen and judged on
the same seeds ([single_stage.csv](single_stage.csv), written by this benchmark as of revision dcef2ce).

{_markdown(f"regularizers; true gain, pp; design; {FOUND}; best lam chosen; {COSTS}", compared)}

## Where the looks are

{_markdown(f"regularizers; true gain, pp; looks; {FOUND}; {COSTS}", looks)}

## How many seeds choose lam

Of 3 regularizers, judged after {several.replace(" ", ", ")} fresh seeds; the first gains, as above.

{_markdown(f"true gain, pp; seeds of the grid; {chosen}", selections)}

## Assumptions

accuracy = true accuracy + seed effect + trial effect + sampling of images, rounded to whole images. All three are
normal.

- True accuracy of `none`: {noise.accuracy:.4g}.
- Seed effect, standard deviation {pp["seed_sd"]}: initial weights, batch order and split, common to all trials of a
  seed. It cancels in paired differences and in the choice of lam.
- Trial effect, {pp["trial_sd"]}: how well one training came out, common to its validation and its test accuracy. It may
  well be smaller: Jordan (2024, "On the variance of neural network training with respect to test sets and
  distributions", ICLR) finds that most of the spread between runs on CIFAR-10 comes from the sampling of the test set.
- Images: {noise.validation_images:,} for validation, drawn anew by each seed and shared by its trials;
  {noise.test_images:,} for test, the same for all. The variance is binomial. Its share {noise.overlap:g}, the
  correlation of two trainings' correctness on one image, is common to trials that see the same images and cancels
  between them; the rest is each trial's own. That leaves {100 * noise.own_sd:.2f} pp of a test accuracy and makes, with
  the trial effect, {100 * noise.paired_sd:.2f} pp in a paired difference.
- A grid of {LAMS} lams. Share of the gain along it, in %: {gains}. In the power tables and in
  "{HURT}" every regularizer has a cost along it, in pp: {harms}. In the other scenarios all lams are alike.
- Margin of equivalence +-{margin}; family-wise level {ALPHA:.0%}.

The sizes are assumed, not measured: give your own as options, above all `--paired-sd`, the spread of the paired
differences in percentage points, which the report of a sweep states.
"""


@click.command(context_settings={"show_default": True})
@click.option("--sweeps", default=3_000, type=click.IntRange(min=1), help="Sweeps per row.")
@click.option("--seed", default=0, type=click.IntRange(min=0))
@click.option(
    "--out",
    default="benchmarks/results/calibration",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for calibration.csv, power.csv, designs.csv and README.md.",
)
@click.option("--accuracy", default=Noise.accuracy, help="Of none; a fraction.")
@click.option("--seed-sd", default=Noise.seed_sd, help="Of a seed; a fraction.")
@click.option("--trial-sd", default=Noise.trial_sd, help="Of one training; a fraction.")
@click.option("--paired-sd", type=float, help="Measured, of paired differences, in percentage points; sets --trial-sd.")
@click.option("--overlap", default=Noise.overlap, type=click.FloatRange(0, 1))
@click.option("--validation-images", default=Noise.validation_images)
@click.option("--test-images", default=Noise.test_images)
@click.pass_context
def main(context: click.Context, sweeps: int, seed: int, out: Path, paired_sd: float | None, **sizes: float) -> None:
    """Measure how often the verdicts are wrong, what they can see, and what that costs."""
    noise = Noise(**sizes)
    if paired_sd is not None:
        if context.get_parameter_source("trial_sd") is not ParameterSource.DEFAULT:
            raise click.UsageError("--paired-sd sets --trial-sd: give one of them.")
        try:
            noise = noise.with_paired_sd(paired_sd / 100)
        except ValueError as error:
            raise click.BadParameter(f"{error}.", param_hint="--paired-sd") from error
    calibration = table(wrong(noise), sweeps, seed)
    powers = table(gaining(noise, (1, 3, 8, 14), (0.5, 1.0, 2.0)), sweeps, seed)
    looks = table(gaining(noise, (3, 8), (0.0, 0.5, 1.0), designs=PLACEMENTS), sweeps, seed)
    grids = product((0.5, 1.0, 2.0), (2, 3, 4))
    grids = [gaining(noise, (3,), (gain,), designs=(SEVERAL,), selection=count) for gain, count in grids]
    selections = table(chain(*grids), sweeps, seed)
    files = {
        "calibration.csv": _csv(calibration),
        "power.csv": _csv(powers),
        "designs.csv": _csv([*looks, *selections]),
        "README.md": readme(calibration, powers, looks, selections, sweeps, seed, noise),
    }
    pages.write(out, files)


if __name__ == "__main__":
    main()
