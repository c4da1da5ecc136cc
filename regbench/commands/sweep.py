"""`sweep`: regularizers x lams x seeds, trained and tracked (`mlflow run . -P reg=l2`)."""

import sys

from regbench.api import sweeps
from regbench.api.sweeps import SweepOptions
from regbench.click_fields import command
from regbench.trial import Recipe


@command(SweepOptions, Recipe)
def main(options: SweepOptions, **chosen: object) -> None:
    """Train regularizers x lams x seeds and track every trial in MLflow."""
    sys.exit(int(sweeps.run(options, **chosen).failed > 0))
