"""`sweep`: regularizers x lams x seeds of one recipe, trained and tracked (`mlflow run . -P reg=l2`)."""

import sys
from dataclasses import dataclass

from regbench import regularizers
from regbench.click_fields import AUTO, choice, command, images, option, switch
from regbench.commands import parsing, pipeline
from regbench.commands.pipeline import TrainingOptions
from regbench.trial import SCOPES, Recipe, grid


@dataclass(frozen=True, kw_only=True)
class SweepOptions(TrainingOptions):
    """The options of a sweep beside those that are fields of the recipe."""

    reg: tuple[str, ...] = option(
        "l1,l2,weight_decay",
        parsing.names,
        f"Regularizers, a comma list of {', '.join(regularizers.REGISTRY)}, or your own as pkg.module:Class.",
    )
    lam: tuple[float, ...] | None = option(
        AUTO, parsing.lams, "Strengths, a comma list for each regularizer; auto: the regularizer's own grid."
    )
    seeds: tuple[int, ...] = option("0-9", parsing.seeds, "Seeds: 0,1,2 or 0-9.")
    scope: str = option(
        "weights",
        choice(*SCOPES),
        "What is regularized: weights (tensors of two dimensions and more) or all parameters.",
    )
    val_size: int | None = option(
        AUTO, images(auto=None), "Images held out of the training images for validation; auto: a tenth."
    )
    baseline: bool = option(True, switch(), "Train `none` on the same seeds too.")


@command(SweepOptions, Recipe)
def main(options: SweepOptions, **chosen: object) -> None:
    """Train regularizers x lams x seeds and track every trial in MLflow."""
    cells = regularizers.cells(options.reg, options.lam, options.baseline)
    prepared = pipeline.prepare(options, options.reg, chosen["model"])
    data, train_size = prepared.data, prepared.size(options.train_size)
    val_size = max(train_size // 10, len(data.classes)) if options.val_size is None else options.val_size
    recipe = Recipe(data.name, data.fingerprint, train_size, val_size, **chosen)
    sweep = grid(recipe, cells, options.seeds, options.scope)
    results = pipeline.train(prepared, options, sweep, f"sweep {','.join(options.reg)}")
    sys.exit(int(any(result.status == "failed" for result in results)))
