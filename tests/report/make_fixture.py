"""Make the golden test's fixture: invented trials with every case that a report must tell of.

Run `python -m tests.report.make_fixture` after a change of what a report is made of, and look at what changes.
"""

from pathlib import Path
from unittest import mock

import numpy as np
import pandas as pd

from regbench.report import build, figures, fonts, language
from regbench.report.analysis import analyse
from regbench.report.inputs import Material
from regbench.report.load import Runs
from regbench.report.render import render
from regbench.tracking.schema import ALL_LAYERS

HERE = Path(__file__).parent / "fixture"
SEEDS, CONFIRM, LOOKS = range(3), range(3, 23), (12, 20)
# method -> lam -> gain over `none` in points, share of exact zeros
GRIDS = {
    "none": {0.0: (0.0, 0.0)},
    "l1": {1e-5: (1.6, 0.0), 1e-4: (0.2, 0.0), 1e-3: (-55.0, 0.0)},
    "l2": {1e-4: (0.2, 0.0), 1e-3: (0.3, 0.0), 1e-2: (-3.0, 0.0)},
    "weight_decay": {1e-4: (0.1, 0.0), 1e-3: (-0.3, 0.0)},
    "my|prox <b>": {1e-5: (-2.0, 0.3), 1e-4: (-3.5, 0.9)},
    "dropout": {0.1: (0.3, 0.0), 0.3: (-1.0, 0.0)},
    "elastic_net": {1e-4: (0.3, 0.0), 1e-3: (-3.0, 0.0)},
    "group_lasso": {1e-1: (-55.0, 0.0)},
}
# what the sweep chose, before the grid's last trials arrived: now it would be another lam of l2's
CHOICE = {
    "l1": 1e-5, "l2": 1e-4, "weight_decay": 1e-4, "my|prox <b>": 1e-5, "dropout": 0.1, "elastic_net": 1e-4,
}  # fmt: skip
# method -> standard deviation of its own, in points
NOISE = {"l2": 0.1, "dropout": 1.0, "elastic_net": 0.9}
# method -> how many fresh seeds it was trained on: until it was settled, or cut off
TRAINED = {"l1": 12, "l2": 12, "weight_decay": 20, "my|prox <b>": 12, "dropout": 20, "elastic_net": 15, "none": 20}
# method -> share of weights that can be zeroed for nothing
PRUNABLE = {"none": 0.5, "l1": 0.95, "my|prox <b>": 0.98}
SHARES = (0.0, 0.5, 0.8, 0.9, 0.95, 0.98, 0.99)
LAYERS = {"conv1.weight": 432, "l1.weight": 2_097_152, "l3.weight": 10_240}


def trials() -> pd.DataFrame:
    """Return the trials of a sweep with fresh seeds that was cut off."""
    random = np.random.default_rng(0)
    shared = random.normal(0, 0.4, CONFIRM.stop)
    rows = []
    for method, grid in GRIDS.items():
        for lam, (gain, zeros) in grid.items():
            chosen = method == "none" or CHOICE.get(method) == lam
            for seed in [*SEEDS, *(CONFIRM[: TRAINED[method]] if chosen else ())]:
                accuracy = max(10.0, 65 + gain + shared[seed] + random.normal(0, NOISE.get(method, 0.25)))
                if (method, lam, seed) == ("dropout", 0.1, 9):
                    accuracy = 10.0
                outcome = "collapsed" if accuracy == 10.0 else "ok"
                if method == "group_lasso" or (method, lam, seed) == ("l2", 1e-2, 2):
                    outcome = "diverged"
                rows.append({
                    "run_id": f"run{len(rows)}", "name": f"{method} lam={lam:g} seed={seed}", "outcome": outcome,
                    "key": f"key{len(rows)}", "recipe": "0123456789ab", "parent": "parent",
                    "stage": "grid" if seed in SEEDS else "confirm", "device": "cpu",
                    "engine": "sequential", "ended": 1_767_225_600_000 + 1000 * len(rows), "method": method,
                    "regularizer": method, "lam": lam, "seed": seed,
                    "val/accuracy": round((accuracy + random.normal(0, 0.1)) / 100, 4),
                    "test/accuracy": round(accuracy / 100, 4), "gap/accuracy": round(0.2 - gain / 100, 4),
                    "early/accuracy": round((accuracy + shared[seed]) / 100, 4),
                    "sparsity/exact": zeros, "sparsity/abs_1e-3": round(zeros + 0.03, 4),
                    "compression_ratio": round(1 / (1 - zeros), 4),
                    # a third of the work is in layers that keep their weights
                    "theoretical_speedup": round(1 / (1 / 3 + (1 - zeros) * 2 / 3), 4),
                    **({} if outcome == "diverged" else pruned(accuracy / 100, PRUNABLE.get(method, 0.8))),
                    "time/trial": 30.0 if method == "none" else 33.0,
                })  # fmt: skip
    table = pd.DataFrame(rows)
    # a cell of the grid lacks a seed, and a fresh training has failed
    lost = {("weight_decay", 1e-3, 1), ("elastic_net", 1e-4, 5)}
    return table[[(t.method, t.lam, t.seed) not in lost for t in table.itertuples()]]


def pruned(accuracy: float, limit: float) -> dict[str, float]:
    """Return a curve that stays as it is up to a share and goes down to chance from there."""
    falls = [min(1.0, (1 - share) / (1 - limit)) for share in SHARES]
    curve = {f"prune/{share:g}": round(0.1 + fall * (accuracy - 0.1), 4)
             for share, fall in zip(SHARES, falls, strict=True)}  # fmt: skip
    return curve | {"sparsity_at_1pp": max(share for share in SHARES if curve[f"prune/{share:g}"] > accuracy - 0.01)}


def epochs(table: pd.DataFrame) -> pd.DataFrame:
    rows = []
    for trial in table.itertuples():
        final = table.loc[trial.Index, "val/accuracy"]
        for epoch in (1, 2, 3):
            rows.append({
                "run_id": trial.run_id, "method": trial.method, "lam": trial.lam, "seed": trial.seed, "epoch": epoch,
                "train/loss": 2.0 / epoch, "val/loss": 2.1 / epoch + 0.3, "train/accuracy": round(final * epoch / 3, 4),
                "val/accuracy": round(final * (1 - 0.3 / epoch), 4),
            })  # fmt: skip
    return pd.DataFrame(rows)


def layers(table: pd.DataFrame) -> pd.DataFrame:
    rows = [
        {
            "layer": layer, "weights": size, "sparsity/exact": zeros, "sparsity/abs_1e-2": round(zeros + 0.08, 4),
            "sparsity/abs_1e-3": round(zeros + 0.03, 4), "sparsity/rel_1e-2": round(zeros + 0.01, 4),
            "sparsity/filters": zeros / 2 if layer.startswith("conv") else np.nan,
            "sparsity/neurons": np.nan if layer.startswith("conv") else zeros / 2, "gini": round(0.4 + zeros / 2, 4),
            "n_eff": round(0.7 * size * (1 - zeros)), "norm/max": 0.25, "method": trial.method, "lam": trial.lam,
            "seed": trial.seed,
        }
        for trial in table.itertuples()
        for layer, size in LAYERS.items()
        for zeros in [GRIDS[trial.method][trial.lam][1]]
    ]  # fmt: skip
    return pd.DataFrame(rows)


def outputs() -> dict[str, tuple[str, np.ndarray]]:
    random = np.random.default_rng(1)
    return {method: ("l3.weight", random.normal(0, 0.03, (10, 64))) for method in ("none", *CHOICE)}


def histograms(table: pd.DataFrame) -> pd.DataFrame:
    """Return the counts of each cell's first trial: a layer, and all together, with an empty bin."""
    rows = [
        (layer, low / 100, (low + 1) / 100, count, trial.method, trial.lam, trial.seed)
        for trial in table.drop_duplicates(["method", "lam"]).itertuples()
        for layer, factor in (("l3.weight", 1), (ALL_LAYERS, 20))
        for low, count in ((place - 6, factor * place) for place in range(12))
    ]
    return pd.DataFrame(rows, columns=["layer", "low", "high", "count", "method", "lam", "seed"])


def material(folder: Path = HERE) -> Material:
    """Return the fixture as a report takes it."""
    read = {
        name: pd.read_csv(folder / f"{name}.csv", keep_default_na=False, na_values=["nan"])
        for name in ("trials", "epochs", "layers")
    }
    others = pd.DataFrame(
        [("elastic_net lam=1e-4 seed=5", "elastic_net", 1e-4, 5, "FAILED", "failed", "RuntimeError: out of | memory <b>"),
         ("elastic_net lam=1e-4 seed=18", "elastic_net", 1e-4, 18, "RUNNING", "", ""),
         ("weight_decay lam=1e-3 seed=1", "weight_decay", 1e-3, 1, "KILLED", "interrupted", "")],
        columns=["name", "method", "lam", "seed", "status", "outcome", "reason"],
    )  # fmt: skip
    recipe = {"dataset": "made-up_data", "train_size": "2500", "val_size": "500", "model": "notebook", "epochs": "3",
              "batch_size": "100", "lr": "0.01", "data": "0f0f0f0f0f0f0f0f"}  # fmt: skip
    environment = {"env.torch": ("2.14.1",), "git.commit": ("abc", "def"), "git.clean": ("true",)}
    runs = Runs(
        "an `experiment` | of [mine](../../x)", read["trials"].assign(artifacts="nowhere"), others, recipe, environment,
        {"parent": 0}, foreign=2, confirm=tuple(CONFIRM), looks=LOOKS, choice=CHOICE,
    )  # fmt: skip
    found = histograms(read["trials"])
    return Material(runs, analyse(runs), read["epochs"], read["layers"], outputs(), histograms=found)


def japanese() -> str:
    """Return the fixture's report in Japanese, as it is where a font is installed."""
    with language.use(language.JAPANESE), mock.patch.object(fonts, "family", return_value="a font"):
        return render(material(), list(figures.FIGURES))


if __name__ == "__main__":
    table = trials()
    HERE.mkdir(exist_ok=True)
    for name, frame in (("trials", table), ("epochs", epochs(table)), ("layers", layers(table))):
        frame.to_csv(HERE / f"{name}.csv", index=False, lineterminator="\n", na_rep="nan")
    (HERE / "report.md").write_bytes(build.write([material()], HERE / "out").read_bytes())
    (HERE / "report.ja.md").write_text(japanese(), encoding="utf-8")
