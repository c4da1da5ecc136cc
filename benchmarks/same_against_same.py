"""Sweeps of real trainings in which nothing differs: how often is a regularizer told from `none` all the same?

python -m benchmarks.same_against_same --sweeps=40 --jobs=2

Every trial of every "regularizer" is a training of `none` with a seed of its own, on scikit-learn's digits with a small
network. The sweeps go through the two stages by the product's own code (`regbench.stages`), without MLflow.
"""

import platform
from collections import Counter
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import click
import pandas as pd
import torch
from joblib import Parallel, delayed
from scipy import stats
from torch import nn

from benchmarks import pages
from benchmarks.training import train
from regbench import data, stages
from regbench.commands import exit_code
from regbench.data.images import Images
from regbench.regularizers import cells
from regbench.statistics.looks import schedule
from regbench.statistics.verdict import Verdict
from regbench.training.device_data import DeviceData
from regbench.trial import Recipe, Sweep, Trial, grid

# stand for three regularizers that do nothing
NAMES, LAMS = ("l1", "l2", "weight_decay"), (1e-5, 1e-4, 1e-3, 1e-2)
SEEDS, CONFIRM = 3, 40
CPU = torch.device("cpu")
WRONG = (Verdict.BETTER, Verdict.WORSE)


class Small(nn.Sequential):
    """A convolution and two dense layers: a training takes a fraction of a second."""

    def __init__(self, num_classes: int) -> None:
        convolution = nn.Conv2d(3, 8, 4, stride=4)
        super().__init__(
            convolution, nn.ReLU(), nn.Flatten(), nn.Linear(512, 32), nn.ReLU(), nn.Linear(32, num_classes)
        )


def judge(sweep: Sweep, images: Images, first_seed: int) -> list[dict[str, object]]:
    """Take a sweep through its two stages; return a row per regularizer. Its trainings have seeds from `first_seed` on."""
    torch.set_num_threads(1)
    on_device, ended = DeviceData(images, CPU), {}

    def train_all(trials: tuple[Trial, ...]) -> None:
        for trial in trials:
            if trial.key not in ended:
                ended[trial.key] = train(
                    replace(trial, regularizer="none", lam=0.0, seed=first_seed + len(ended)), on_device
                )

    train_all(sweep.trials)
    lams = {method: choice.lam for method, choice in stages.choices(sweep, ended).items()}
    for _ in sweep.looks:
        train_all(stages.fresh(sweep, lams, ended))
    return [
        {
            "first_seed": first_seed,
            "regularizer": number,
            "verdict": str(found.verdict),
            "looked": found.looked,
            "difference_pp": round(100 * found.difference.mean, 4),
            "low_pp": round(100 * found.difference.low, 4),
            "high_pp": round(100 * found.difference.high, 4),
            "trainings": len(ended),
        }
        for number, found in enumerate(stages.compare(sweep, lams, ended).values(), 1)
    ]


def readme(rows: pd.DataFrame, sweep: Sweep, command: str) -> str:
    """Return the committed page: what was trained, and how often something was told apart that is the same."""
    wrong = rows["verdict"].isin(list(WRONG)).groupby(rows["first_seed"]).any()
    low, high = stats.binomtest(int(wrong.sum()), len(wrong)).proportion_ci(0.95, method="exact")
    trainings = rows.groupby("first_seed")["trainings"].first()
    verdicts = ", ".join(f"{count} {verdict}" for verdict, count in Counter(rows["verdict"]).most_common())
    looks = ", ".join(map(str, sweep.looks))
    return f"""# The same against the same, on real trainings

    {command}

{len(wrong)} sweeps on {sweep.recipes[0].dataset} ({sweep.recipes[0]}),
each of {len(NAMES)} regularizers that do nothing, {len(LAMS)} lams and {SEEDS} seeds, then at most {CONFIRM} fresh seeds,
judged after {looks}: {trainings.sum():,} trainings, each of `none` with a seed of its own.
Python {platform.python_version()},
torch {version("torch")}. All verdicts: [verdicts.csv](verdicts.csv).

* **Wrong claims: {wrong.sum()} of {len(wrong)} sweeps** call any of the three better or worse,
  {100 * wrong.mean():.1f} %, 95 % interval {100 * low:.1f} to {100 * high:.1f} %. The aim is at most 5 %.
* Verdicts: {verdicts}.
* Trainings of a sweep: {trainings.mean():.0f} on average, {len(sweep.longest)} at most.
"""


@click.command(context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.option("--sweeps", type=click.IntRange(1), default=40)
@click.option("--jobs", type=click.IntRange(1), default=1, help="Sweeps side by side.")
@click.option("--seed", type=click.IntRange(0), default=0, help="Other trainings for each.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("benchmarks/results/same-against-same"))
def main(sweeps: int, jobs: int, seed: int, out: Path) -> int:
    """Train SWEEPS sweeps in which nothing differs, and count those that call something better or worse."""
    images = data.load("digits", Path())
    recipe = Recipe(images.name, images.fingerprint, 700, 200, f"{__name__}:Small", epochs=6, batch_size=50, lr=0.05)
    fresh = range(SEEDS, SEEDS + CONFIRM)
    sweep = grid(recipe, cells(NAMES, LAMS), range(SEEDS), confirm=fresh, looks=schedule(CONFIRM, len(NAMES)))
    starts = [(seed * sweeps + number) * len(sweep.longest) for number in range(sweeps)]
    found = Parallel(jobs, verbose=5)(delayed(judge)(sweep, images, first) for first in starts)
    rows = pd.DataFrame([row for one in found for row in one])
    command = f"python -m benchmarks.same_against_same --sweeps={sweeps} --jobs={jobs} --seed={seed}"
    page = readme(rows, sweep, command)
    pages.write(out, {"verdicts.csv": rows.to_csv(index=False, lineterminator="\n"), "README.md": page})
    click.echo(page)
    return 0


if __name__ == "__main__":
    # by its own name, by which workers and the recipe know the network
    from benchmarks import same_against_same

    exit_code.run(same_against_same.main)
