"""With Hydra: one training, whose configuration is swept from the command line; an MLflow run each."""

import hydra
import mlflow
from omegaconf import DictConfig, OmegaConf
from question import trial


@hydra.main(version_base=None, config_path=".", config_name="config")
def main(config: DictConfig) -> None:
    mlflow.set_experiment("hydra")
    with mlflow.start_run(run_name=f"{config.reg} lam={config.lam:g} seed={config.seed}"):
        mlflow.log_params(OmegaConf.to_container(config))
        mlflow.log_metrics(trial(config.reg, config.lam, config.seed, mlflow.log_metrics))


if __name__ == "__main__":
    main()
