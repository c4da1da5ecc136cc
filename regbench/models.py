"""Which networks of a sweep become logged models: the best of each regularizer at its chosen lam, and of `none`."""

import math
from collections.abc import Callable, Mapping

from torch import Tensor, nn

from regbench import stages
from regbench.data.images import Images
from regbench.errors import TrackingError, UserError
from regbench.regularizers import BASELINE
from regbench.results import Result
from regbench.tracking import finished, logged_models, retry, settings
from regbench.tracking.finished import FinishedTrial
from regbench.tracking.store import Store
from regbench.training.restored import restored
from regbench.trial import Sweep, Trial


def log(
    store: Store,
    sweep: Sweep,
    lams: Mapping[str, float],
    results: Mapping[str, Result],
    data: Images,
    tell: Callable[[str], None],
) -> dict[str, str]:
    """Have the store hold a logged model of each chosen cell; return trial's name -> model's id, of those that it holds.

    `lams` are the chosen ones by method, `results` by trial key, all of them in the store. What is there is not made
    again. What is not made is no failure of the sweep: `tell` gets a line about it.
    """
    ranked, found, without = candidates(sweep, lams, results), {}, []
    try:
        runs = finished.search(store, [trial for trials in ranked.values() for trial in trials], len(results))
        starts = finished.starts(store, sweep)
        parent = starts[-1].info.run_id if starts else ""  # it may have been deleted
        for cell, trials in ranked.items():
            kept = [trial for trial in trials if trial.key in runs and runs[trial.key].has_weights]
            if not kept:
                without.append(cell)
                continue
            try:
                found[sweep.name(kept[0])] = _log(store, sweep, kept[0], runs[kept[0].key], data, parent, tell)
            except logged_models.NotLogged as error:
                tell(f"{sweep.name(kept[0])} is not logged as a model: {error}")
    except (TrackingError, UserError) as error:
        tell(f"the trained networks are not all logged as models: {error}; the same command tries it again")
    if without:
        tell(f"not logged as models, since their weights were not kept: {', '.join(without)}")
    return found


def candidates(sweep: Sweep, lams: Mapping[str, float], results: Mapping[str, Result]) -> dict[str, list[Trial]]:
    """Return the trials of each chosen cell and of `none`, by the cell's name: the best on validation first, then by seed.

    `lams` are the chosen ones by method; if there are none, as in a grid alone, those that the grid would choose. Trials
    that failed or diverged are left out.
    """
    lams = lams or _would_be_chosen(sweep, results)
    cells: dict[str, list[Result]] = {}
    for result in results.values():
        trial = result.trial
        if result.status in ("ok", "collapsed") and (
            trial.regularizer == BASELINE or lams.get(sweep.method(trial)) == trial.lam
        ):
            cells.setdefault(sweep.cell(trial), []).append(result)
    return {cell: [result.trial for result in sorted(members, key=_rank)] for cell, members in cells.items()}


def _restored(trial: Trial, num_classes: int, tensors: Mapping[str, Tensor]) -> nn.Module:
    recipe = trial.recipe
    return restored(recipe.model, num_classes, trial.seed, recipe.precision, tensors)


def _would_be_chosen(sweep: Sweep, results: Mapping[str, Result]) -> dict[str, float]:
    try:
        return {method: choice.lam for method, choice in stages.choices(sweep, results).items()}
    except ValueError:  # nothing was held out for validation, by which one of several lams would be chosen
        return {}


def _rank(result: Result) -> tuple[float, int]:
    accuracy = result.metrics.get("val/accuracy", math.nan)
    return (math.inf if math.isnan(accuracy) else -accuracy, result.trial.seed)


def _log(
    store: Store, sweep: Sweep, trial: Trial, run: FinishedTrial, data: Images, parent: str, tell: Callable[[str], None]
) -> str:
    def attempt() -> tuple[str, logged_models.NotLogged | None]:
        try:
            model_id = logged_models.log(store, sweep, trial, run.run_id, data, _restored)
        except logged_models.NotLogged as error:  # which a retry does not change
            return "", error
        if parent:
            logged_models.link(store.client, parent, sweep.id, model_id)
        return model_id, None

    with settings.override({"MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false"}):
        model_id, problem = retry.retry(attempt, tell)
    if problem:
        raise problem
    return model_id
