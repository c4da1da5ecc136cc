"""`notebook`: the lecture notebook's four experiments, by name (`mlflow run . -e notebook`)."""

import sys

from regbench.api import experiments
from regbench.api.experiments import NotebookOptions
from regbench.click_fields import command


@command(NotebookOptions)
def main(options: NotebookOptions) -> None:
    """Train the notebook's four experiments and print their test accuracies side by side."""
    sys.exit(int(experiments.run(options).failed > 0))
