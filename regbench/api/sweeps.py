"""A sweep: regularizers x lams x seeds, trained and tracked, from its options to what came of it."""

from collections.abc import Sequence
from dataclasses import dataclass

from regbench import regularizers
from regbench.api import keywords, parsing, pipeline
from regbench.api.pipeline import TrainingOptions
from regbench.api.result import SweepResult
from regbench.click_fields import AUTO, Several, images, option, switch
from regbench.errors import UserError
from regbench.statistics.looks import CONFIRM, schedule
from regbench.trial import BASELINE, RATE, Recipe, default_val_size, format_seeds, grid, seeds_option, side_by_side


@dataclass(frozen=True, kw_only=True)
class SweepOptions(TrainingOptions):
    """The options of a sweep beside those that are fields of the recipe."""

    reg: tuple[str, ...] = option(
        "l1,l2,weight_decay",
        parsing.names,
        f"Regularizers, a comma list of {', '.join(regularizers.REGISTRY)}, your own as pkg.module:Class, "
        "or several at once as l1+weight_decay@1e-4.",
    )
    lam: tuple[float, ...] | None = option(
        AUTO, parsing.lams, "Strengths, a comma list for each regularizer; auto: the regularizer's own grid."
    )
    seeds: tuple[int, ...] = option(
        "0-2", parsing.seeds, "Seeds of the grid, on which lam is chosen by validation: 0,1,2 or 0-2."
    )
    confirm: int | tuple[int, ...] | None = option(
        AUTO,
        parsing.confirm,
        f"Fresh seeds, on which the chosen lam is compared with `none`: at most so many, judged in looks; a list, as "
        f"10-19, judged once; 0: the grid alone; auto: {CONFIRM}, 0 where there is nothing to compare or choose.",
    )
    lr: tuple[float, ...] = option("0.01", Several(RATE), "Learning rates, a comma list, to be compared side by side.")
    scope: tuple[str, ...] = option(
        "weights",
        parsing.scopes,
        "What is regularized: one or more of weights (tensors of two dimensions and more), all parameters, no_norm (all "
        "but those of normalization layers); or patterns of names as in conv*,l1.weight.",
    )
    val_size: int | None = option(
        AUTO, images(auto=None), "Images held out of the training images for validation; auto: a tenth."
    )
    baseline: bool = option(True, switch(), "Train `none` on the same seeds too.")


@keywords.function(SweepOptions, Recipe)
def sweep(options: SweepOptions, **chosen: object) -> SweepResult:
    """Train regularizers x lams x seeds, track every trial in MLflow, and return what came of it.

    regbench.sweep(reg="l2", dataset="digits", lam=[1e-4, 1e-3], epochs=20) does what the command
    `regbench sweep --reg=l2 --dataset=digits --lam=1e-4,1e-3 --epochs=20` does: a trial that is finished
    already is not trained again, and what an interruption leaves is gone on with by the same call. The
    store is that of MLflow's settings, as of mlflow.set_tracking_uri, else mlflow.db in the current
    folder. Of the result (regbench.api.result.SweepResult) `trials` and `verdicts` are tables of pandas,
    and `report()` writes the report and shows it. With dry_run=True the plan is printed and nothing is
    trained.

    Raises UserError, before anything is trained, for what cannot be; KeyboardInterrupt where it is
    interrupted, after what is finished is written; regbench.errors.TrackingError where the store fails.
    """
    return run(options, **chosen)


def run(options: SweepOptions, **chosen: object) -> SweepResult:
    """Train the sweep of these options; `chosen` are the recipe's. Prints what it does."""
    cells = regularizers.cells(options.reg, options.lam, options.baseline)
    for reg in options.reg if len(options.scope) > 1 else ():
        if reg != BASELINE and not regularizers.find(reg).acts_on_weights():
            raise UserError(
                f"scope={','.join(options.scope)!r}: reg={reg!r} acts on no weights, and would be trained alike with each; "
                "give one scope, or leave it out"
            )
    prepared = pipeline.prepare(options, options.reg, chosen["model"])
    data, train_size = prepared.data, prepared.size(options.train_size)
    val_size = options.val_size
    if val_size is None:
        val_size = default_val_size(train_size, len(data.classes))
    fresh, looks = fresh_seeds(options, cells, val_size)
    recipes = [Recipe(data.name, data.fingerprint, train_size, val_size, lr=lr, **chosen) for lr in options.lr]
    sweep = side_by_side(
        [grid(recipe, cells, options.seeds, scope, fresh, looks) for recipe in recipes for scope in options.scope]
    )
    return pipeline.train(prepared, options, sweep, f"sweep {','.join(options.reg)}")


def fresh_seeds(
    options: SweepOptions, cells: Sequence[tuple[str, float]], val_size: int
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the fresh seeds of a sweep of these cells, and after how many of them it is judged; none for the grid alone.

    Raises UserError for fresh seeds that are in the grid, or that could not tell anything.
    """
    wanted, compared = options.confirm, {name for name, _ in cells} - {BASELINE}
    problem = ""
    if not compared or BASELINE not in dict(cells):
        problem = "a verdict needs `none` and a regularizer; leave baseline=true and name one in reg"
    elif val_size == 0 and len(cells) > len(compared) + 1:
        problem = "val_size=0 leaves nothing to choose lam by; give val_size, or one lam"
    if problem and wanted:
        shown = wanted if isinstance(wanted, int) else seeds_option(wanted)
        raise UserError(f"confirm={shown}: {problem}, or take confirm=0")
    wanted = (0 if problem else CONFIRM) if wanted is None else wanted
    if isinstance(wanted, tuple):
        if both := sorted(set(wanted) & set(options.seeds)):
            raise UserError(
                f"confirm={seeds_option(wanted)}: seed {both[0]} is one of seeds={format_seeds(options.seeds)}, on which "
                "lam is chosen; give fresh ones"
            )
        return tuple(sorted(wanted)), (len(wanted),)
    first = max(options.seeds) + 1
    if first + wanted - 1 > parsing.MAX_SEED:
        raise UserError(f"confirm={wanted}: there are not so many seeds after {first - 1}; give a list of others")
    return tuple(range(first, first + wanted)), schedule(wanted, len(compared) * len(options.scope)) if wanted else ()
