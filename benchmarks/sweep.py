"""A sweep: regularizers x lams x seeds of one recipe, trained and tracked (`mlflow run . -P reg=l2`)."""

import sys

import click

from regbench import cli
from regbench.data.images import Images
from regbench.errors import UserError
from regbench.launch import launch
from regbench.regularizers import REGISTRY, check_lam, own_lams
from regbench.sweep import BASELINE, NOTEBOOK, PRECISIONS, SCOPES, Recipe, Sweep, grid


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--reg",
    default="l1,l2,weight_decay",
    show_default=True,
    help=f"Regularizers, a comma list of {', '.join(REGISTRY)}, or your own as pkg.module:Class.",
)
@click.option(
    "--lam",
    default=cli.AUTO,
    show_default=True,
    help="Strengths, a comma list for each regularizer; auto: the regularizer's own grid.",
)
@click.option("--seeds", default="0-9", show_default=True, help="Seeds: 0,1,2 or 0-9.")
@click.option("--model", default=NOTEBOOK, show_default=True, help="notebook, or pkg.module:Class.")
@click.option("--epochs", type=cli.Whole(cli.MAX_EPOCHS), default=30, show_default=True)
@click.option("--batch_size", type=cli.Whole(), default=100, show_default=True)
@click.option(
    "--lr",
    type=cli.Real("above 0, at most 100", lambda lr: 0 < lr <= 100),
    default=0.01,
    show_default=True,
    help="Learning rate of SGD.",
)
@click.option(
    "--momentum",
    type=cli.Real("of 0 or more, below 1", lambda momentum: 0 <= momentum < 1),
    default=0.9,
    show_default=True,
)
@click.option("--precision", default="float32", show_default=True, help=f"One of {', '.join(PRECISIONS)}.")
@click.option(
    "--scope",
    default="weights",
    show_default=True,
    help="What is regularized: weights (tensors of two dimensions and more) or all parameters.",
)
@click.option(
    "--val_size",
    default=cli.AUTO,
    show_default=True,
    help="Images held out of the training images for validation; auto: a tenth.",
)
@click.option(
    "--baseline", type=cli.Switch(), default=True, show_default=True, help="Train `none` on the same seeds too."
)
@cli.shared_options
def main(
    reg: str,
    lam: str,
    seeds: str,
    model: str,
    epochs: int,
    batch_size: int,
    lr: float,
    momentum: float,
    precision: str,
    scope: str,
    val_size: str,
    baseline: bool,
    **shared,
) -> None:
    """Train regularizers x lams x seeds and track every trial in MLflow."""
    names, strengths, numbers = cli.names(reg), cli.lams(lam), cli.seeds(seeds)
    held_out = cli.size("val_size", val_size, {cli.AUTO: -1})
    if precision not in PRECISIONS:
        raise UserError(f"precision={precision!r} is unknown; accepted: {', '.join(PRECISIONS)}")
    if scope not in SCOPES:
        raise UserError(f"scope={scope!r} is unknown; accepted: {', '.join(SCOPES)}")
    if strengths is not None and names == (BASELINE,):
        raise UserError(f"lam={lam!r} has no meaning for reg=none alone; leave lam out, or name another regularizer")

    for name in names:
        for strength in own_lams(name) if strengths is None else strengths:
            check_lam(name, strength)

    def make_sweep(data: Images, train_size: int) -> Sweep:
        val = max(train_size // 10, len(data.classes)) if held_out == -1 else held_out
        recipe = Recipe(
            data.name, data.fingerprint, train_size, val, model, epochs, batch_size, lr, momentum, precision
        )
        return grid(recipe, names, strengths, numbers, scope, baseline)

    results = launch(make_sweep, f"sweep {','.join(names)}", regs=names, model=model, **shared)
    sys.exit(int(any(result.status == "failed" for result in results)))


if __name__ == "__main__":
    cli.run(main)
