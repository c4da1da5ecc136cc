"""The two stages of a sweep: which lams its grid chooses, and which trials on fresh seeds are needed next."""

import math
from collections.abc import Mapping
from typing import Protocol

from regbench.statistics.choice import Choice, choose
from regbench.statistics.verdict import Comparison, judge
from regbench.trial import Recipe, Sweep, Trial


class Ended(Protocol):
    """How a trial ended: status ok, diverged, collapsed or failed, and the metrics of one that has some."""

    status: str
    metrics: Mapping[str, float]


def choices(sweep: Sweep, ended: Mapping[str, Ended]) -> dict[str, Choice]:
    """Return method -> the choice of its lam, from the trials of the grid that have `ended`, by trial key.

    A lam with a trial that failed or diverged takes no part; a method without any other is left out.
    """
    found = {}
    for method in sweep.methods:
        cells: dict[float, list[Ended | None]] = {}
        for trial in sweep.trials:
            if sweep.method(trial) == method:
                cells.setdefault(trial.lam, []).append(ended.get(trial.key))
        scores = {
            lam: [one.metrics.get("val/accuracy", math.nan) for one in trials]
            for lam, trials in cells.items()
            if all(one is not None and one.status in ("ok", "collapsed") for one in trials)
        }
        if choice := choose(scores):
            found[method] = choice
    return found


def fresh(sweep: Sweep, lams: Mapping[str, float], ended: Mapping[str, Ended]) -> tuple[Trial, ...]:
    """Return the trials on fresh seeds that are needed, as far as those that have `ended` tell: up to the next look.

    `lams` are the chosen ones of the methods. A method whose verdict is settled needs no more, and the `none` of a recipe
    goes on while any of its methods does.
    """
    found: list[Trial] = []
    judged = compare(sweep, lams, ended)
    for before, look in zip((0, *sweep.looks), sweep.looks, strict=False):
        pending = [method for method in lams if not (judged[method].settled and judged[method].looked <= before)]
        if not pending or any(trial.key not in ended for trial in found):
            break
        found += dict.fromkeys(
            trial
            for seed in sweep.confirm[before:look]
            for method in pending
            for trial in sweep.pair(method, lams[method], seed)
        )
    return tuple(found)


def compare(sweep: Sweep, lams: Mapping[str, float], ended: Mapping[str, Ended]) -> dict[str, Comparison]:
    """Return method -> its comparison with `none` on the fresh seeds, as far as trials have `ended`.

    The methods of a recipe are a family: what another recipe shows changes nothing of their verdicts.
    """
    families: dict[Recipe, dict[str, list[float]]] = {}
    for method, lam in lams.items():
        differences = [own - base for own, base in pairs(sweep, method, lam, ended)]
        families.setdefault(sweep.arms[method].recipe, {})[method] = differences
    found = {}
    for family in families.values():
        found |= judge(family, sweep.looks)
    return {method: found[method] for method in lams}


def pairs(sweep: Sweep, method: str, lam: float, ended: Mapping[str, Ended]) -> list[tuple[float, float]]:
    """Return the test accuracies of a method and of `none`, in the order of the fresh seeds; NaN where a trial has failed.

    One that diverged or collapsed counts with the accuracy that it has.
    """
    found = []
    for seed in sweep.confirm:
        both = [ended.get(trial.key) for trial in sweep.pair(method, lam, seed)]
        if None in both:
            break
        base, own = (one.metrics.get("test/accuracy", math.nan) for one in both)
        found.append((own, base))
    return found
