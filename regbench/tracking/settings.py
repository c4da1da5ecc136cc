"""MLflow's settings, which it reads from the environment at each call."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from regbench.errors import UserError, one_line

# free text, which needs no check
TEXTS = {"MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME"}


def check() -> None:
    """Raise UserError for a variable that MLflow cannot read: MLflow itself would fail later, with a traceback."""
    names = sorted(name for name in os.environ if name.startswith("MLFLOW_") and name not in TEXTS)
    if not names:
        return  # without importing MLflow, which takes two seconds
    try:
        from mlflow import environment_variables
    except ValueError as error:
        raise UserError(
            f"MLflow cannot read its settings ({one_line(error)}): unset what is wrong of {', '.join(names)}"
        ) from error
    for name in names:
        setting = getattr(environment_variables, name, None)
        try:
            if setting is not None:
                setting.get()
        except ValueError as error:
            raise UserError(f"{name}={os.environ[name]!r} cannot be read ({one_line(error)}): unset {name}") from error


@contextmanager
def override(values: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables within the block and restore them after it."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
