"""What a sweep will train and how long that takes; imports neither torch nor MLflow, so that a dry run is quick."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from regbench import stages
from regbench.data.images import Images
from regbench.engines.base import RAY, Engine
from regbench.errors import UserError
from regbench.measures import SHARES
from regbench.stages import Ended
from regbench.tracking import finished as finished_trials
from regbench.tracking.finished import FinishedTrial
from regbench.tracking.store import Store
from regbench.training import bf16
from regbench.trial import Recipe, Sweep, Trial


@dataclass(frozen=True)
class Plan:
    """What is to be done next of a sweep: of its `trials`, `todo` are trained, `reused` (by key) are finished already.

    The trials are those of the grid and, once it has chosen `lams` (by method), those on fresh seeds up to the next
    look; what an earlier start has `chosen` of them, in its run `chosen_by`, stays. `altered` is how many of `todo` are
    finished with other images under the data set's name. With `rerun` what is finished is trained too, and nothing goes
    on from where it was cut off.
    """

    sweep: Sweep
    trials: tuple[Trial, ...]
    todo: tuple[Trial, ...]
    reused: dict[str, FinishedTrial] = field(default_factory=dict)
    lams: Mapping[str, float] = field(default_factory=dict)
    chosen: Mapping[str, float] = field(default_factory=dict)
    chosen_by: str = ""
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
    """Return what is to be done of a sweep, by what is finished in the store's experiment (or all, for `rerun`)."""
    finished = finished_trials.of_recipes(store, sweep.recipes)
    chosen_by, lams = finished_trials.choice(store, sweep) if sweep.confirm and not rerun else ("", {})
    plan = _advance(
        Plan(sweep, (), (), lams=lams, chosen=lams, chosen_by=chosen_by, rerun=rerun),
        {},
        lambda trials: {trial.key: finished[trial.key] for trial in trials if trial.key in finished},
    )
    return replace(plan, altered=_altered(plan.todo, store))


def proceed(plan: Plan, ended: Mapping[str, Ended], store: Store) -> Plan:
    """Return what is to be done after the trials that have `ended`; without any `trials` the sweep is over."""

    def find(trials: Sequence[Trial]) -> dict[str, FinishedTrial]:
        try:
            return finished_trials.search(store, trials, len(ended))
        except UserError:  # the store is away: what another sweep may have finished there is trained too
            return {}

    return _advance(plan, ended, find)


def _advance(
    plan: Plan, ended: Mapping[str, Ended], find: Callable[[Sequence[Trial]], dict[str, FinishedTrial]]
) -> Plan:
    """Return the plan for the trials that are needed beside those that have `ended`; `find` gives the finished ones."""
    sweep, lams = plan.sweep, plan.lams
    known, added, reused = dict(ended), (), {}
    while True:
        if sweep.confirm and len(lams) < len(sweep.methods) and all(trial.key in known for trial in sweep.trials):
            # what is chosen stays; of a method that had no choice, for want of results, no fresh seed has been seen
            lams = {method: choice.lam for method, choice in stages.choices(sweep, known).items()} | lams
        needed = sweep.trials + (stages.fresh(sweep, lams, known) if lams else ())
        new = tuple(trial for trial in needed if trial.key not in known)
        found = find(new) if new else {}
        added, reused = (*added, *new), reused | found
        if plan.rerun or len(found) < len(new) or not new:
            break
        known |= found
    todo = tuple(trial for trial in added if plan.rerun or trial.key not in reused)
    return replace(plan, trials=added, todo=todo, reused=reused, lams=lams)


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
    finished = finished_trials.search(store, plan.todo, len(plan.reused))
    known = {old.run_id for old in plan.reused.values()}
    new = {key: found for key, found in finished.items() if found.run_id not in known}
    if new and not plan.rerun:
        return make(plan.sweep, store, rerun=False)
    todo = tuple(trial for trial in plan.todo if trial.key not in new)
    return replace(plan, todo=todo, reused=plan.reused | new)


def estimate_in_bf16(trials: Sequence[Trial], data: Images, engine: Engine) -> float | None:
    """Return the seconds that training float32 `trials` would take in bf16; None where that is not for the device."""
    if engine.device != "cpu" or engine.module == RAY or any(t.recipe.precision != "float32" for t in trials):
        return None
    if bf16.slowdown() > bf16.MOST_SLOWDOWN:
        return None
    rounded = [replace(trial, recipe=replace(trial.recipe, precision="bf16")) for trial in trials]
    return estimate(rounded, data, engine)


def estimate(trials: Sequence[Trial], data: Images, engine: Engine) -> float | None:
    """Return the seconds that training `trials` takes, from some measured steps of each recipe; None if they fail.

    Evaluation is counted as a third of a training pass: a forward pass is about a third of a forward and backward one.
    """
    seconds = 0.0
    # at another learning rate a step takes as long
    alike = [replace(trial, recipe=replace(trial.recipe, lr=trials[0].recipe.lr)) for trial in trials]
    for recipe in dict.fromkeys(trial.recipe for trial in alike):
        members = [trial for trial in alike if trial.recipe == recipe]
        try:
            cost = engine.seconds_per_image(members, data)
        except Exception:  # a model that cannot be trained fails as a trial, with its reason on record
            return None
        train = recipe.train_size - recipe.val_size
        last = train + len(SHARES) * len(data.test_labels)
        images = recipe.epochs * (train + recipe.val_size / 3) + last / 3
        seconds += cost * images * len(members)
    return seconds
