"""With Optuna: a study per regularizer searches its strength by validation; the winners are trained anew, and tested."""

import mlflow
import numpy as np
import optuna
from question import LAMS, REGS, SEEDS, trial

TRIALS = 2 * len(LAMS)
FRESH = range(1, 1 + 2 * len(SEEDS))  # seed 0 searches


def tracked(reg: str, lam: float, seed: int) -> dict[str, float]:
    with mlflow.start_run(run_name=f"{reg} lam={lam:g} seed={seed}"):
        mlflow.log_params({"reg": reg, "lam": lam, "seed": seed})
        scores = trial(reg, lam, seed, mlflow.log_metrics)
        mlflow.log_metrics(scores)
    return scores


def search(reg: str) -> float:
    study = optuna.create_study(
        study_name=reg,
        storage="sqlite:///optuna.db",
        load_if_exists=True,
        direction="maximize",
    )
    left = TRIALS - len(study.get_trials(states=[optuna.trial.TrialState.COMPLETE]))

    def objective(one: optuna.Trial) -> float:
        lam = one.suggest_float("lam", min(LAMS), max(LAMS), log=True)
        return tracked(reg, lam, seed=0)["val_accuracy"]

    study.optimize(objective, n_trials=left)
    return study.best_params["lam"]


mlflow.set_experiment("optuna")
lams = {"none": 0.0} | {reg: search(reg) for reg in REGS}
for reg, lam in lams.items():
    test = np.array([tracked(reg, lam, seed)["test_accuracy"] for seed in FRESH])
    print(f"{reg} at lam {lam:.3g}: test accuracy {test.mean():.2%} ± {test.std(ddof=1):.2%}")
