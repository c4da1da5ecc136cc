"""Python's keywords are the command's options: the same names, checks and defaults."""

import inspect
from pathlib import Path

import numpy as np
import pytest

import regbench
from regbench import click_fields, regularizers
from regbench.api import keywords
from regbench.api.experiments import NotebookOptions
from regbench.api.sweeps import SweepOptions
from regbench.commands import exit_code, notebook, sweep
from regbench.networks.notebook import NotebookCNN
from regbench.trial import Recipe
from tests import networks, plugins
from tests.conftest import PROJECT


def collect(options: object, **chosen: object) -> tuple[object, dict[str, object]]:
    """Return what a command, or a function, gets."""
    return options, chosen


from_python = keywords.function(SweepOptions, Recipe)(collect)


def from_command_line(*arguments: str) -> tuple[object, dict[str, object]]:
    got = []
    main = click_fields.command(SweepOptions, Recipe)(lambda *args, **more: got.append(collect(*args, **more)))
    main.main(list(arguments), standalone_mode=False)
    return got[0]


@pytest.mark.parametrize(
    ("values", "arguments"),
    [
        ({}, []),
        ({"reg": "l1,l2", "lam": "1e-4,1e-3", "seeds": "0-3", "confirm": "12"},
         ["--reg=l1,l2", "--lam=1e-4,1e-3", "--seeds=0-3", "--confirm=12"]),
        ({"reg": ["l1", "l2"], "lam": (1e-4, 1e-3), "seeds": range(4), "confirm": 12},
         ["--reg=l1,l2", "--lam=1e-4,1e-3", "--seeds=0-3", "--confirm=12"]),
        ({"lam": np.array([1e-4, 1e-3], np.float32), "seeds": 3}, ["--lam=1e-4,1e-3", "--seeds=3"]),
        ({"confirm": [7]}, ["--confirm=7-7"]),
        ({"confirm": [7, 9], "scope": ["all", "weights"]}, ["--confirm=7,9", "--scope=all,weights"]),
        ({"lr": 0.1, "epochs": np.int64(5), "train_size": 500, "val_size": 0, "baseline": False, "rerun": np.bool_(True)},
         ["--lr=0.1", "--epochs=5", "--train_size=500", "--val_size=0", "--baseline=false", "--rerun=true"]),
        ({"lr": [0.1, 0.01], "data_dir": Path("here"), "experiment": "e"},
         ["--lr=0.1,0.01", "--data_dir=here", "--experiment=e"]),
        ({"lam": None, "train_size": None, "jobs": None, "dry_run": None}, []),
        ({"reg": [regularizers.L1, plugins.Log, "l2"], "model": networks.Tiny},
         ["--reg=l1,tests.plugins:Log,l2", "--model=tests.networks:Tiny"]),
        ({"reg": plugins.Log, "model": NotebookCNN}, ["--reg=tests.plugins:Log"]),
    ],
)  # fmt: skip
def test_a_value_is_what_the_command_makes_of_its_text(values, arguments):
    assert from_python(**values) == from_command_line(*arguments)


@pytest.mark.parametrize(("function", "command"), [(regbench.sweep, sweep.main), (regbench.notebook, notebook.main)])
def test_names_and_defaults_are_the_commands_and_help_has_them(function, command):
    parameters = inspect.signature(function).parameters
    params = [param for param in command.params if param.name != "report"]  # of the result it is a method
    assert {name: one.default for name, one in parameters.items()} == {
        param.opts[0].lstrip("-"): param.default for param in params
    }
    assert {one.kind for one in parameters.values()} == {inspect.Parameter.KEYWORD_ONLY}
    for param in params:
        assert f"\n    {param.opts[0].lstrip('-')}={param.default!r}: " in function.__doc__
    assert max(map(len, function.__doc__.splitlines())) <= 105


@pytest.mark.parametrize(
    ("values", "arguments"),
    [
        ({"reg": ["l1", "l3"]}, ["--reg=l1,l3"]),
        ({"reg": []}, ["--reg="]),
        ({"lam": [1e-4, 1e-4]}, ["--lam=0.0001,0.0001"]),
        ({"epochs": 0}, ["--epochs=0"]),
        ({"epochs": 2.5}, ["--epochs=2.5"]),
        ({"lr": -1}, ["--lr=-1"]),
        ({"dataset": "mnist"}, ["--dataset=mnist"]),
        ({"seeds": [1, 1]}, ["--seeds=1,1"]),
        ({"train_size": True}, ["--train_size=true"]),
        ({"dry_run": "maybe"}, ["--dry_run=maybe"]),
    ],
)
def test_a_mistake_is_told_as_the_command_tells_it(values, arguments, capsys):
    with pytest.raises(SystemExit):
        exit_code.run(sweep.main, arguments)
    with pytest.raises(regbench.UserError) as error:
        regbench.sweep(**values)
    assert f"error: {error.value}\n" == capsys.readouterr().err
    assert error.value.__cause__ is None and error.value.__suppress_context__


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"epoch": 3}, "sweep has no option 'epoch'; did you mean epochs? accepted: reg, lam, seeds"),
        ({"LAM": 1}, "sweep has no option 'LAM'; did you mean lam? accepted: "),
        ({"nothing_like_it": 3}, "sweep has no option 'nothing_like_it'; accepted: "),
        ({"reg": networks.Tiny()}, "reg is of type Tiny; give its class; accepted: text as on the command line"),
        ({"lam": {"l1": 1}}, "lam is of type dict; accepted: text as on the command line, a number, True, False or"),
        ({"dataset": ["digits"]}, "dataset is of type list; accepted: text"),
        ({"lr": [[0.1]]}, "lr is of type list; accepted: text"),
        ({"dataset": networks.Tiny}, "dataset is the class Tiny; accepted: text"),
    ],
)
def test_what_only_python_can_get_wrong_is_told(values, told):
    with pytest.raises(regbench.UserError) as error:
        regbench.sweep(**values)
    assert str(error.value).startswith(told)


def test_a_class_of_the_notebook_itself_goes_into_a_file():
    class Mine(plugins.Log):
        pass

    told = "reg: Mine is written in the notebook or script itself, .* and give reg='mine:Mine'"
    with pytest.raises(regbench.UserError, match=told):
        regbench.sweep(reg=Mine)
    Mine.__qualname__, Mine.__module__ = "Mine", "__main__"
    with pytest.raises(regbench.UserError, match=told):
        regbench.sweep(reg=["l1", Mine])


def test_passwords_are_not_told(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "oracle://me:secret@host/db")
    with pytest.raises(regbench.UserError) as error:
        regbench.sweep(dataset="digits", reg="l1", lam=1e-3)
    assert "secret" not in str(error.value) and "me:***@host" in str(error.value)
    (line,) = error.value._render_traceback_()  # what a notebook shows
    assert line == f"UserError: {error.value}"


def test_every_option_of_the_notebooks_experiments_is_read():
    made = keywords.function(NotebookOptions)(collect)(epochs=3, seed=2, dataset="digits")
    assert (made[0].epochs, made[0].seed, made[0].dataset) == (3, 2, "digits")


def test_the_package_has_what_it_says():
    assert {"UserError", "load", "notebook", "sweep"} <= set(dir(regbench))
    with pytest.raises(AttributeError, match="no attribute 'sweeep'"):
        _ = regbench.sweeep
    assert (PROJECT / "regbench" / "sweep.py").exists() is False  # a module of the name would take the function's place
