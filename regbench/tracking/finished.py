"""How a finished trial is recognised among the runs of an experiment: by the key of its settings and code."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from regbench.tracking import schema
from regbench.tracking.store import Store
from regbench.trial import Recipe, Sweep, Trial

if TYPE_CHECKING:  # MLflow takes two seconds to import
    from mlflow.entities import Run

LISTED = 10  # runs that are listed in the time of a search for one


@dataclass(frozen=True)
class FinishedTrial:
    """A trial's run that ended: `status` is ok, diverged or collapsed; `parent` the sweep's run it is listed under.

    `sweeps` are the ids of its sweeps, with its stage in each; `has_weights`: its weights were kept.
    """

    run_id: str
    status: str
    metrics: dict[str, float]
    parent: str
    sweeps: Mapping[str, str]
    has_weights: bool = True


def of_recipes(store: Store, recipes: Iterable[Recipe]) -> dict[str, FinishedTrial]:
    """Return trial key -> run of all trials of `recipes` that ended and were not trained again on request."""
    return _search(store, schema.RECIPE, (recipe.id for recipe in recipes))


def search(store: Store, trials: Sequence[Trial], others: int) -> dict[str, FinishedTrial]:
    """Return the same as `of_recipes` of these trials only; `others` is how many more the store may hold."""
    if LISTED * len(trials) < others:
        return _search(store, schema.KEY, (trial.key for trial in trials))
    found = of_recipes(store, dict.fromkeys(trial.recipe for trial in trials))
    return {trial.key: found[trial.key] for trial in trials if trial.key in found}


def choice(store: Store, sweep: Sweep) -> tuple[str, dict[str, float]]:
    """Return the run of an earlier start of this sweep that has chosen lams, and these, by method; empty if none has."""
    for run in reversed(starts(store, sweep)):
        if schema.CHOICE in run.data.tags:
            lams = schema.chosen(sweep, run.data.tags[schema.CHOICE])
            return run.data.tags.get(schema.CHOSEN_BY, run.info.run_id), lams
    return "", {}


def starts(store: Store, sweep: Sweep) -> list[Run]:
    """Return the sweep's own runs, one for each start of it, oldest first."""
    return store.search(f"{schema.where(schema.KIND, 'sweep')} and {schema.where(schema.SWEEP, sweep.id)}")


def newest(runs: Iterable[Run]) -> dict[str, Run]:
    """Return trial key -> the one of these runs that counts: the newest that finished and was not replaced on request.

    Two concurrent sweeps may finish the same trial.
    """
    finished = (run for run in runs if run.info.status == "FINISHED")
    ours = [run for run in finished if schema.KEY in run.data.tags and schema.SUPERSEDED not in run.data.tags]
    # the token decides between two that ended in the same millisecond, so that the choice is the same everywhere
    ours.sort(key=lambda run: (run.info.end_time or 0, schema.token(run)))
    return {run.data.tags[schema.KEY]: run for run in ours}


def _search(store: Store, tag: str, values: Iterable[str]) -> dict[str, FinishedTrial]:
    conditions = [f"attributes.status = 'FINISHED' and {schema.where(tag, value)}" for value in values]
    found = newest(run for condition in conditions for run in store.search(condition))
    return {key: _read(run) for key, run in found.items()}


def _read(run: Run) -> FinishedTrial:
    tags = run.data.tags
    status, parent = tags.get(schema.STATUS, ""), tags.get(schema.PARENT, "")
    kept = tags.get(schema.KEPT) != schema.LEFT_OUT
    return FinishedTrial(run.info.run_id, status, dict(run.data.metrics), parent, schema.stages(tags), kept)
