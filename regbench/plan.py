"""What a sweep will train and how long that takes; imports neither torch nor MLflow, so that a dry run is quick."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from regbench.data.images import Images
from regbench.engines.base import Engine
from regbench.measures import SHARES
from regbench.tracking import finished as finished_trials
from regbench.tracking.finished import FinishedTrial
from regbench.tracking.store import Store
from regbench.trial import Recipe, Sweep, Trial

# runs that are listed in the time of a search for one
LISTED = 10


@dataclass(frozen=True)
class Plan:
    """What is to be done: `todo` is trained, `reused` (by trial key) is finished already.

    `altered` is how many of `todo` are finished with other images under the data set's name. With `rerun` what is
    finished is trained too, and nothing goes on from where it was cut off.
    """

    sweep: Sweep
    todo: tuple[Trial, ...]
    reused: dict[str, FinishedTrial]
    altered: int = 0
    rerun: bool = False

    @cached_property
    def replaced(self) -> dict[str, FinishedTrial]:
        """The finished trials that are trained again, by trial key."""
        todo = {trial.key for trial in self.todo}
        return {key: old for key, old in self.reused.items() if key in todo}

    @cached_property
    def kept(self) -> dict[str, FinishedTrial]:
        """The finished trials that are results of the sweep as they are, by trial key."""
        return {key: old for key, old in self.reused.items() if key not in self.replaced}


def make(sweep: Sweep, store: Store, rerun: bool) -> Plan:
    """Return the sweep split into what is finished in the store's experiment and what is not (or all, for `rerun`)."""
    finished = finished_trials.of_recipes(store, sweep.recipes)
    found = {trial.key: finished[trial.key] for trial in sweep.trials if trial.key in finished}
    todo = sweep.trials if rerun else tuple(trial for trial in sweep.trials if trial.key not in found)
    return Plan(sweep, todo, found, _altered(todo, store), rerun)


def _altered(todo: Sequence[Trial], store: Store) -> int:
    """Return how many of these trials would be finished if their data were as in an earlier sweep."""
    known = store.fingerprints()
    # trial key with the data of then -> key with that of now
    keys: dict[str, str] = {}
    recipes: set[Recipe] = set()
    for trial in todo:
        for fingerprint in known.get(trial.recipe.dataset, set()) - {trial.recipe.fingerprint}:
            then = replace(trial.recipe, fingerprint=fingerprint)
            recipes.add(then)
            keys[replace(trial, recipe=then).key] = trial.key
    finished = finished_trials.of_recipes(store, recipes) if recipes else {}
    return len({now for then, now in keys.items() if then in finished})


def refresh(plan: Plan, store: Store) -> Plan:
    """Return the plan without the trials that another process has finished since it was made."""
    if LISTED * len(plan.todo) < len(plan.reused):
        finished = finished_trials.of_trials(store, plan.todo)
    else:
        finished = finished_trials.of_recipes(store, plan.sweep.recipes)
    known = {old.run_id for old in plan.reused.values()}
    new = {t.key: finished[t.key] for t in plan.todo if t.key in finished and finished[t.key].run_id not in known}
    todo = tuple(trial for trial in plan.todo if trial.key not in new)
    return replace(plan, todo=todo, reused=plan.reused | new)


def estimate(plan: Plan, data: Images, engine: Engine) -> float | None:
    """Return the seconds that training `plan.todo` takes, from some measured steps of each recipe; None if they fail.

    Evaluation is counted as a third of a training pass: a forward pass is about a third of a forward and backward one.
    """
    seconds = 0.0
    for recipe in plan.sweep.recipes:
        trials = [trial for trial in plan.todo if trial.recipe == recipe]
        if trials:
            try:
                cost = engine.seconds_per_image(trials, data)
            except Exception:  # a model that cannot be trained fails as a trial, with its reason on record
                return None
            train = recipe.train_size - recipe.val_size
            last = train + len(SHARES) * len(data.test_labels)
            images = recipe.epochs * (train + recipe.val_size / 3) + last / 3
            seconds += cost * images * len(trials)
    return seconds
