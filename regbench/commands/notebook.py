"""`notebook`: the lecture notebook's four experiments, by name (`mlflow run . -e notebook`)."""

import sys
from dataclasses import dataclass

import click

from regbench.click_fields import AUTO, command, option, whole
from regbench.commands import parsing, pipeline
from regbench.commands.pipeline import TrainingOptions
from regbench.data.images import Images
from regbench.regularizers import BASELINE
from regbench.trial import MAX_EPOCHS, NEUTRAL, Recipe, Sweep, Trial

# name -> regularizer, lam, batch size, epochs; all on every training image and every parameter
EXPERIMENTS = {
    "none": ("none", 0.0, 100, 30),
    "l1": ("l1", 1e-4, 100, 30),
    "l2": ("l2", 1e-3, 100, 30),
    "weight_decay": ("weight_decay", 1e-4, 64, 10),
}


@dataclass(frozen=True, kw_only=True)
class NotebookOptions(TrainingOptions):
    epochs: int | None = option(
        AUTO, whole(1, MAX_EPOCHS, auto=None), "Epochs of each; auto: the notebook's (30, 30, 30, 10)."
    )
    seed: int = option("0", parsing.one_seed, "The seed of all four.")


def experiment(name: str, data: Images, train_size: int, epochs: int | None, seed: int) -> Trial:
    """Return one of the notebook's experiments as a trial; `epochs` None means the notebook's own number."""
    regularizer, lam, batch_size, own_epochs = EXPERIMENTS[name]
    recipe = Recipe(
        data.name,
        data.fingerprint,
        train_size,
        val_size=0,
        epochs=epochs or own_epochs,
        batch_size=batch_size,
        **NEUTRAL,
    )
    return Trial(recipe, regularizer, lam, seed, "weights" if regularizer == BASELINE else "all")


@command(NotebookOptions)
def main(options: NotebookOptions) -> None:
    """Train the notebook's four experiments and print their test accuracies side by side."""
    prepared = pipeline.prepare(options)
    size = prepared.size(options.train_size)
    trials = [experiment(name, prepared.data, size, options.epochs, options.seed) for name in EXPERIMENTS]
    results = pipeline.train(prepared, options, Sweep(tuple(trials)), "notebook")
    if results:
        click.echo("test accuracy, the four experiments side by side:")
        texts = [f"{r.metrics['test/accuracy']:.2%}" if r.status != "failed" else "failed" for r in results]
        click.echo("  ".join(f"{name:>12}" for name in EXPERIMENTS))
        click.echo("  ".join(f"{text:>12}" for text in texts))
    sys.exit(int(any(result.status == "failed" for result in results)))
