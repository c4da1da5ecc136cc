"""The command that trains what a verdict lacks: the sweep's own parser takes it, and makes the same sweep of it."""

import dataclasses
import shlex

import pandas as pd
import pytest

from regbench.api import sweeps
from regbench.commands import sweep
from regbench.regularizers import cells
from regbench.report import command, text
from regbench.statistics.looks import schedule
from tests.report.sweeps import RECIPE, fresh, grid


def lines(runs, confirm: int = 0) -> list[str]:
    return [line for _, line in command.sweeps(runs, confirm)]


def options(line: str) -> dict[str, str]:
    """Return a command's options, each of which must be one of the sweep's."""
    words = shlex.split(line)
    assert words[:2] == ["regbench", "sweep"]
    assert all(word.startswith("--") for word in words[2:])
    found = dict(word[2:].split("=", 1) for word in words[2:])
    assert set(found) <= {param.name for param in sweep.main.params}
    return found


def with_recipe(runs, **values: str):
    return dataclasses.replace(runs, recipe=RECIPE | values)


@pytest.mark.parametrize("count", [6, 20, 40])
def test_the_sweep_that_goes_on_has_the_same_fresh_seeds_and_looks(count):
    runs = fresh({"l1": [0.0], "l2": [0.0]}, planned=count)
    (line,) = lines(runs)
    given = {param.name: param.type_cast_value(None, options(line).get(param.name, param.default))
             for param in sweep.main.params if param.name in ("reg", "lam", "seeds", "confirm")}  # fmt: skip
    made = sweeps.SweepOptions(**given)
    assert sweeps.fresh_seeds(made, cells(made.reg, made.lam), 10) == (runs.confirm, runs.looks)
    assert (made.reg, made.lam, made.seeds) == (("l1", "l2"), (1e-4, 1e-3), (0, 1, 2))


def test_fresh_seeds_that_were_listed_are_listed_again():
    listed = dataclasses.replace(fresh({"l1": [0.0]}), confirm=(7,), looks=(1,))
    assert options(lines(listed)[0])["confirm"] == "7-7"
    listed = dataclasses.replace(listed, confirm=(7, 9, 10, 11), looks=(4,))
    assert options(lines(listed)[0])["confirm"] == "7,9-11"


def test_the_seeds_are_those_on_which_lam_was_chosen():
    runs = dataclasses.replace(fresh({"l1": [0.0]}), chosen_on={"l1": frozenset({0, 1})})
    assert options(lines(runs)[0])["seeds"] == "0,1"


def test_a_regularizers_own_grid_is_not_spelled_out():
    own = [lam for _, lam in cells(["l1"], None, baseline=False)]
    runs = grid({"none": {0.0: [70]}, "l1": {lam: [70] for lam in own}, "l2": {0.5: [70]}})
    first, second = map(options, lines(runs, 40))
    assert (first["reg"], "lam" in first, first["confirm"], first["seeds"]) == ("l1", False, "40", "0-0")
    assert (second["reg"], second["lam"]) == ("l2", "0.5")


def test_a_lam_of_which_every_trial_failed_is_one_of_the_grid():
    runs = fresh({"l1": [0.0]})
    others = [("l1 lam=0.5 seed=0", "l1", 0.5, 0, "FAILED", "failed", "")]
    runs = dataclasses.replace(runs, others=pd.DataFrame(others, columns=runs.others.columns))
    assert options(lines(runs)[0])["lam"] == "1e-4,1e-3,0.5"


def scoped(*methods: str):
    runs = grid({"none": {0.0: [70]}} | {method: {0.1: [70]} for method in methods})
    runs.trials["regularizer"] = runs.trials["method"].str.partition(" scope=")[0]
    return runs


def test_scopes_that_were_compared_are_compared_again():
    (line,) = lines(scoped("l1", "l2", "l1 scope=all", "l2 scope=all"), 40)
    assert (options(line)["reg"], options(line)["scope"]) == ("l1,l2", "weights,all")
    (line,) = lines(scoped("l1 scope=no_norm", "l1 scope=all"), 40)
    assert options(line)["scope"] == "no_norm,all"


def test_scopes_that_cannot_be_given_together_are_separate_commands():
    plain, patterns = map(options, lines(scoped("l1", "l1 scope=l1.*"), 40))
    assert "scope" not in plain and (patterns["reg"], patterns["scope"]) == ("l1", "l1.*")
    plain, other = map(options, lines(scoped("l1", "l2 scope=all"), 40))
    assert "scope" not in plain and (other["reg"], other["scope"]) == ("l2", "all")


@pytest.mark.parametrize("count", [28, 31, 40])
def test_a_family_of_scopes_has_the_same_looks_again(count):
    methods = ["l1 scope=all", "l1 scope=no_norm"]
    runs = fresh({method: [0.0] for method in methods}, planned=count)
    runs.trials["regularizer"] = runs.trials["method"].str.partition(" scope=")[0]
    (line,) = lines(runs)
    given = options(line)
    assert given["confirm"] == str(count) and given["scope"] == "all,no_norm"
    assert runs.looks == schedule(count, 2)


def test_learning_rates_that_were_compared_are_compared_again():
    runs = with_recipe(grid({"none": {0.0: [70]}, "l1": {0.1: [70]}}), lr="0.1")
    assert options(lines(runs, 40)[0])["lr"] == "0.1"
    assert options(lines(dataclasses.replace(runs, rates="0.01,0.1"), 40)[0])["lr"] == "0.01,0.1"


def test_a_scope_of_patterns_is_quoted_for_the_shell():
    runs = grid({"none": {0.0: [70]}, "l1 scope=conv[12].*,l3.weight": {0.1: [70]}})
    runs.trials["regularizer"] = runs.trials["method"].str.partition(" scope=")[0]
    (line,) = lines(runs, 40)
    assert "'--scope=conv[12].*,l3.weight'" in line
    assert options(line)["scope"] == "conv[12].*,l3.weight"


def test_of_the_recipe_only_what_is_not_the_default_is_given():
    runs = grid({"none": {0.0: [70]}, "l1": {0.1: [70]}})
    plain = options(lines(with_recipe(runs, epochs="30", lr="0.01"), 40)[0])
    assert set(plain) == {"reg", "lam", "seeds", "confirm", "dataset", "train_size", "experiment"}
    other = options(lines(with_recipe(runs, lr="0.5", val_size="0", model="a.b:C"), 40)[0])
    assert (other["lr"], other["val_size"], other["model"]) == ("0.5", "0", "a.b:C")


def test_a_folder_of_images_is_left_to_be_filled_in_and_the_experiment_is_named():
    runs = with_recipe(grid({"none": {0.0: [70]}, "l1": {0.1: [70]}}), dataset="my images")
    given = options(lines(dataclasses.replace(runs, experiment="it's mine"), 40)[0])
    assert (given["dataset"], given["data_dir"], given["experiment"]) == ("folder", "...", "it's mine")


def test_a_command_is_code_that_can_be_copied_as_it_is():
    line = "regbench sweep '--scope=conv[12].*,l?.weight' --train_size=100"
    assert text.code(line) == f"`{line}`"
    assert "`" not in text.code("l1 scope=a|b")  # would be two cells of a table
