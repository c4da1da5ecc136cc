"""The lecture notebook's four experiments, by name (`mlflow run . -e notebook`)."""

import sys

import click

from regbench import cli
from regbench.data.images import Images
from regbench.launch import launch
from regbench.sweep import Recipe, Sweep, Trial

# name -> regularizer, lam, batch size, epochs; all on every training image and every parameter
EXPERIMENTS = {
    "none": ("none", 0.0, 100, 30),
    "l1": ("l1", 1e-4, 100, 30),
    "l2": ("l2", 1e-3, 100, 30),
    "weight_decay": ("weight_decay", 1e-4, 64, 10),
}


def experiment(name: str, data: Images, train_size: int, epochs: int | None, seed: int) -> Trial:
    """Return one of the notebook's experiments as a trial; `epochs` None means the notebook's own number."""
    regularizer, lam, batch_size, own_epochs = EXPERIMENTS[name]
    recipe = Recipe(
        data.name, data.fingerprint, train_size, val_size=0, epochs=epochs or own_epochs, batch_size=batch_size
    )
    return Trial(recipe, regularizer, lam, seed, "weights" if regularizer == "none" else "all")


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--epochs", default=cli.AUTO, show_default=True, help="Epochs of each; auto: the notebook's (30, 30, 30, 10)."
)
@click.option("--seed", default="0", show_default=True, help="The seed of all four.")
@cli.shared_options
def main(epochs: str, seed: str, **shared) -> None:
    """Train the notebook's four experiments and print their test accuracies side by side."""
    number = cli.one_seed(seed)
    shortened = None if epochs == cli.AUTO else cli.positive("epochs", epochs, cli.MAX_EPOCHS)

    def make_sweep(data: Images, train_size: int) -> Sweep:
        return Sweep(tuple(experiment(name, data, train_size, shortened, number) for name in EXPERIMENTS))

    results = launch(make_sweep, "notebook", **shared)
    if results:
        click.echo("test accuracy, the four experiments side by side:")
        told = [f"{r.metrics['test/accuracy']:.2%}" if r.status != "failed" else "failed" for r in results]
        click.echo("  ".join(f"{name:>12}" for name in EXPERIMENTS))
        click.echo("  ".join(f"{text:>12}" for text in told))
    sys.exit(int(any(result.status == "failed" for result in results)))


if __name__ == "__main__":
    cli.run(main)
