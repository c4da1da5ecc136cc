"""All that a finished training is measured by: the one place that composes the other measures."""

import math
from dataclasses import dataclass, field

import numpy as np

from regbench.measures import pruned, weights
from regbench.measures.logits import calibration, classification, collapsed, prefixed
from regbench.measures.multiplications import per_image
from regbench.training.events import Trained


@dataclass(frozen=True)
class Measured:
    """The final metrics, a row of measures per layer, and the status (ok, diverged or collapsed) with its reason."""

    metrics: dict[str, float]
    layers: list[dict[str, object]] = field(default_factory=list)
    status: str = "ok"
    reason: str = ""


def measure(event: Trained) -> Measured:
    """Return all measures of a finished training.

    gap/accuracy is training minus test accuracy, gap/loss test minus training loss, both of the final weights in
    evaluation mode: positive where the model does better on what it was trained on.
    """
    fit = classification(event.train_logits, event.train_labels)
    test = classification(event.test_logits, event.test_labels)
    total, layers = weights.measure({name: event.weights[name] for name in event.parameters})
    work = per_image(event.trial.recipe.model, event.test_logits.shape[1])
    metrics = {
        **prefixed("fit", fit),
        **prefixed("test", test | calibration(event.test_logits, event.test_labels)),
        "gap/accuracy": fit["accuracy"] - test["accuracy"],
        "gap/loss": test["loss"] - fit["loss"],
        **total,
        **_early(event),
        **pruned.measures(event.pruned),
        "theoretical_speedup": math.nan if work.unknown else weights.speedup(event.weights, work.weights, work.others),
        "time/trial": event.seconds,
    }
    layers = [row | {"macs": work.weights.get(row["layer"], "" if work.unknown else 0)} for row in layers]
    return Measured(metrics, layers, *_status(event, metrics))


def _early(event: Trained) -> dict[str, float]:
    """Return what early stopping would have given: the test images' measures after the best epoch, and which it was."""
    if event.best_logits is None:
        return {}
    found = classification(event.best_logits, event.test_labels)
    return prefixed("early", found | {"epoch": event.best_epoch})


def _status(event: Trained, metrics: dict[str, float]) -> tuple[str, str]:
    if event.diverged:
        return "diverged", event.diverged
    if not np.isfinite([metrics["fit/loss"], metrics["test/loss"], metrics.get("norm/l2", 0.0)]).all():
        # the last steps can do it without the epoch's mean loss having seen it
        return "diverged", "the final weights, or what they predict, are not finite"
    if collapsed(event.test_logits):
        return "collapsed", "the logits are the same for every test image"
    return "ok", ""
