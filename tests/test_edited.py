"""In a process that goes on, as a notebook's kernel, a class that was edited is the one that is trained."""

import importlib
import os
import sys

import pytest

import regbench
from regbench import edited
from tests.conftest import TINY

REG = """
from regbench.regularizers import Regularizer
from scale_of_mine import SCALE


class Mine(Regularizer):
    def penalty(self, w):
        return SCALE * w.square().sum()
"""
OPTIONS = {"dataset": "digits", "reg": "reg_of_mine:Mine", "lam": 1e-2, "seeds": 0, "confirm": 0, "baseline": False}
OPTIONS |= {"model": TINY, "epochs": 1, "train_size": 200, "batch_size": 50}


@pytest.fixture
def folder(elsewhere, monkeypatch):
    (elsewhere / "reg_of_mine.py").write_text(REG)
    (elsewhere / "scale_of_mine.py").write_text("SCALE = 1\n")
    monkeypatch.syspath_prepend(elsewhere)
    yield elsewhere
    for name in ("reg_of_mine", "scale_of_mine"):
        sys.modules.pop(name, None)


@pytest.mark.usefixtures("database")
def test_what_is_edited_is_trained_and_what_is_not_is_finished(folder, capsys):
    accuracies = []
    for scale in (1, 9, 1):  # of the same size, and within a second
        (folder / "scale_of_mine.py").write_text(f"SCALE = {scale}\n")
        accuracies.append(regbench.sweep(**OPTIONS).trials["norm/l2"].item())
        assert scale == sys.modules["scale_of_mine"].SCALE
    assert accuracies[0] == accuracies[2] > accuracies[1]
    assert capsys.readouterr().out.count("1 finished already") == 1  # the third


def test_what_was_imported_before_is_imported_again_only_if_it_may_have_changed(folder):
    before = importlib.import_module("reg_of_mine")
    long_ago = 1_000_000_000
    for name in ("reg_of_mine", "scale_of_mine"):
        os.utime(folder / f"{name}.py", (long_ago, long_ago))
    edited.forget(["reg_of_mine"])
    assert sys.modules["reg_of_mine"] is before
    (folder / "scale_of_mine.py").write_text("SCALE = 2  # and a comment\n")
    edited.forget(["reg_of_mine"])
    assert "reg_of_mine" not in sys.modules and "scale_of_mine" not in sys.modules
    after = importlib.import_module("reg_of_mine")
    (folder / "scale_of_mine.py").write_text("SCALE = 2  # and another\n")
    edited.forget(["reg_of_mine"])
    assert sys.modules["reg_of_mine"] is after


def test_modules_that_are_not_there_are_left_to_the_import():
    edited.forget(["no_such_module", "no.such.module", ""])
    modules = dict(sys.modules)
    edited.forget(["torch", "regbench.regularizers", "json"])
    assert {name: sys.modules.get(name) for name in modules} == modules
