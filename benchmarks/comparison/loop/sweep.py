"""By hand: every strength with every seed, each an MLflow run; the best by validation, with its mean and deviation."""

import mlflow
import pandas as pd
from question import CELLS, REGS, SEEDS, trial

mlflow.set_experiment("loop")
rows = []
for reg, lam in CELLS:
    for seed in SEEDS:
        with mlflow.start_run(run_name=f"{reg} lam={lam:g} seed={seed}"):
            mlflow.log_params({"reg": reg, "lam": lam, "seed": seed})
            scores = trial(reg, lam, seed, mlflow.log_metrics)
            mlflow.log_metrics(scores)
        rows.append({"reg": reg, "lam": lam, **scores})
table = pd.DataFrame(rows).groupby(["reg", "lam"]).agg(["mean", "std"])
table.to_csv("table.csv")
print(table.to_string())
for reg in ("none", *REGS):
    found = table.loc[reg]
    lam = found["val_accuracy", "mean"].idxmax()
    test = found.loc[lam, "test_accuracy"]
    print(f"{reg} at lam {lam:g}: test accuracy {test['mean']:.2%} ± {test['std']:.2%}")
