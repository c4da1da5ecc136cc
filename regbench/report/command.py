"""The command lines that would train what a verdict lacks."""

import shlex
from collections.abc import Iterable
from dataclasses import fields

import pandas as pd

from regbench import data
from regbench.regularizers import REGISTRY
from regbench.report.load import Runs
from regbench.statistics.looks import schedule
from regbench.tracking.schema import GRID
from regbench.tracking.store import DEFAULT_EXPERIMENT
from regbench.trial import BASELINE, Recipe, default_val_size, format_lam, seeds_option


def sweeps(runs: Runs, confirm: int = 0) -> list[tuple[list[str], str]]:
    """Return methods with the command that goes on with their sweep, or trains it with `confirm` fresh seeds instead.

    There is one for each scope and grid, since a sweep has one of each: usually one. Options of the recipe that have their
    default are left out; what is not known, as a folder's place, is left as three dots.
    """
    grid = runs.trials[runs.trials["stage"] == GRID]
    groups: dict[tuple[str, str, tuple[int, ...]], dict[str, str]] = {}
    for method, cells in grid[grid["method"] != BASELINE].groupby("method", sort=False):
        seeds = runs.chosen_on.get(method) or frozenset(grid["seed"])
        name, scope = cells["regularizer"].iloc[0], method.partition(" scope=")[2]
        both = pd.concat([cells, runs.others[runs.others["method"] == method]])  # a lam may have failed throughout
        lams = sorted(set(both.loc[both["seed"].isin(seeds), "lam"]))
        own = name in REGISTRY and lams == sorted(REGISTRY[name].lams)
        group = scope, "" if own else ",".join(map(format_lam, lams)), tuple(sorted(seeds))
        groups.setdefault(group, {})[method] = name
    found = []
    for (scope, lams, seeds), names in groups.items():
        fresh = str(confirm) if confirm else _recorded(runs, seeds, len(names))
        options = [("reg", ",".join(names.values())), ("lam", lams), ("seeds", seeds_option(seeds)), ("confirm", fresh)]
        found.append((list(names), _command([*options, ("scope", scope)], runs)))
    return found


def _recorded(runs: Runs, seeds: tuple[int, ...], family: int) -> str:
    """Return the option with which a sweep of these seeds has the fresh seeds that are recorded."""
    count, first = len(runs.confirm), max(seeds) + 1
    following = runs.confirm == tuple(range(first, first + count)) and runs.looks == schedule(count, family)
    return str(count) if following else seeds_option(runs.confirm)


def _command(options: Iterable[tuple[str, str]], runs: Runs) -> str:
    experiment = "" if runs.experiment == DEFAULT_EXPERIMENT else runs.experiment
    given = [*options, *_recipe(runs.recipe), ("experiment", experiment)]
    words = [f"-P {shlex.quote(f'{name}={value}')}" for name, value in given if value]
    return " ".join(["mlflow run . --env-manager=local", *words])


def _recipe(recipe: dict[str, str]) -> list[tuple[str, str]]:
    name = recipe.get("dataset", "")
    found = [("dataset", name)] if name in data.NAMES else [("dataset", "folder"), ("data_dir", "...")]
    train, val = recipe.get("train_size", ""), recipe.get("val_size", "")
    found += [("train_size", train)]
    if train.isdigit() and val != str(default_val_size(int(train), classes=1)):  # of how many classes is not on record
        found += [("val_size", val)]
    declared = [field for field in fields(Recipe) if "settings" in field.metadata]
    values = {field.name: recipe.get(field.name, "") for field in declared}
    return found + [(field.name, values[field.name]) for field in declared
                    if values[field.name] != str(field.default_factory())]  # fmt: skip
