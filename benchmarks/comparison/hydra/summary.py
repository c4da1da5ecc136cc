"""What the runs of the sweep come to: the best strength by validation, with its mean and deviation."""

import mlflow

runs = mlflow.search_runs(experiment_names=["hydra"], filter_string="attributes.status = 'FINISHED'")
runs = runs.rename(columns=lambda name: name.removeprefix("params.").removeprefix("metrics."))
runs["lam"] = runs["lam"].astype(float)
table = runs.groupby(["reg", "lam"])[["val_accuracy", "test_accuracy"]].agg(["mean", "std"])
print(table.to_string())
for reg, found in table.groupby("reg"):
    best = found.loc[found["val_accuracy", "mean"].idxmax(), "test_accuracy"]
    print(f"{reg} at lam {best.name[1]:g}: test accuracy {best['mean']:.2%} ± {best['std']:.2%}")
