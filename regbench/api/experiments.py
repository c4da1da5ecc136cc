"""The lecture notebook's four experiments, side by side."""

from dataclasses import dataclass

from regbench.api import keywords, parsing, pipeline
from regbench.api.pipeline import TrainingOptions
from regbench.api.result import SweepResult
from regbench.click_fields import AUTO, option, whole
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


@keywords.function(NotebookOptions)
def notebook(options: NotebookOptions) -> SweepResult:
    """Train the lecture notebook's four experiments, track them in MLflow, and return what came of them.

    They are `none`, `l1`, `l2` and `weight_decay`, each with the notebook's own lam and batch size; their
    test accuracies are printed side by side. See regbench.sweep for the result and for what is raised.
    """
    return run(options)


def run(options: NotebookOptions) -> SweepResult:
    """Train the four experiments with these options. Prints what it does."""
    prepared = pipeline.prepare(options)
    size = prepared.size(options.train_size)
    trials = [experiment(name, prepared.data, size, options.epochs, options.seed) for name in EXPERIMENTS]
    found = pipeline.train(prepared, options, Sweep(tuple(trials)), "notebook")
    if found.results:
        texts = [f"{r.metrics['test/accuracy']:.2%}" if r.status != "failed" else "failed" for r in found.results]
        prepared.console.print("test accuracy, the four experiments side by side:")
        prepared.console.print("  ".join(f"{name:>12}" for name in EXPERIMENTS))
        prepared.console.print("  ".join(f"{text:>12}" for text in texts))
    return found
