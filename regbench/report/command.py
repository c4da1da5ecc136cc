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
from regbench.trial import BASELINE, SCOPES, Recipe, default_val_size, format_lam, seeds_option

# scopes, lams, seeds, as options
Group = tuple[str, str, tuple[int, ...]]


def sweeps(runs: Runs, confirm: int = 0) -> list[tuple[list[str], str]]:
    """Return methods with the command that goes on with their sweep, or trains it with `confirm` fresh seeds instead.

    There is one for each grid, since a sweep has one: usually one. Scopes that can be given together are, with the same
    regularizers, and so are the learning rates that were compared. Options of the recipe that have their default are left
    out; what is not known, as a folder's place, is left as three dots.
    """
    grid = runs.trials[runs.trials["stage"] == GRID]
    groups: dict[Group, dict[str, str]] = {}
    for method, cells in grid[grid["method"] != BASELINE].groupby("method", sort=False):
        seeds = runs.chosen_on.get(method) or frozenset(grid["seed"])
        name, scope = cells["regularizer"].iloc[0], method.partition(" scope=")[2]
        both = pd.concat([cells, runs.others[runs.others["method"] == method]])  # a lam may have failed throughout
        lams = sorted(set(both.loc[both["seed"].isin(seeds), "lam"]))
        own = name in REGISTRY and lams == sorted(REGISTRY[name].lams)
        group = scope, "" if own else ",".join(map(format_lam, lams)), tuple(sorted(seeds))
        groups.setdefault(group, {})[method] = name
    found = []
    for (scopes, lams, seeds), names in _together(groups).items():
        fresh = str(confirm) if confirm else _recorded(runs, seeds, len(names))
        regs = ",".join(dict.fromkeys(names.values()))
        options = [("reg", regs), ("lam", lams), ("seeds", seeds_option(seeds)), ("confirm", fresh)]
        found.append((list(names), _command([*options, ("scope", scopes)], runs)))
    return found


def _together(groups: dict[Group, dict[str, str]]) -> dict[Group, dict[str, str]]:
    """Return the groups, of which those that differ in scope alone are one, if an option can have all of their scopes."""
    found: dict[tuple, dict[str, dict[str, str]]] = {}
    for (scope, lams, seeds), names in groups.items():
        # patterns stand alone
        alike = tuple(names.values()) if scope in ("", *SCOPES) else scope
        found.setdefault((alike, lams, seeds), {})[scope or "weights"] = names
    joined = {}
    for (_, lams, seeds), scopes in found.items():
        option = "" if list(scopes) == ["weights"] else ",".join(scopes)
        joined[option, lams, seeds] = {method: name for names in scopes.values() for method, name in names.items()}
    return joined


def _recorded(runs: Runs, seeds: tuple[int, ...], family: int) -> str:
    """Return the option with which a sweep of these seeds has the fresh seeds that are recorded."""
    count, first = len(runs.confirm), max(seeds) + 1
    following = runs.confirm == tuple(range(first, first + count)) and runs.looks == schedule(count, family)
    return str(count) if following else seeds_option(runs.confirm)


def _command(options: Iterable[tuple[str, str]], runs: Runs) -> str:
    recipe = runs.recipe | ({"lr": runs.rates} if runs.rates else {})
    # named, since what it is by default depends on how a sweep is started
    given = [*options, *_recipe(recipe), ("experiment", runs.experiment)]
    words = [shlex.quote(f"--{name}={value}") for name, value in given if value]
    return " ".join(["regbench sweep", *words])


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
