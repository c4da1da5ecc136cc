"""A user's own code is part of the trial key: all of it that is the user's, and nothing that changes no result."""

import dataclasses
from pathlib import Path

import pytest

from regbench import identity
from regbench.trial import Recipe, Trial
from tests.conftest import printed

RECIPE = Recipe("x", "f" * 64, train_size=100, val_size=10)
KEY = (
    "import regbench.trial as s; r = s.Recipe('x', 'f' * 64, 100, 10, {model!r}); print(s.Trial(r, {reg!r}, 1, 0).key)"
)
# of the libraries one that is imported fast, since each key is that of a new interpreter
NET = """
import click
from lab.base import Base
import layers


class Net(Base):
    depth = 1

    def forward(self, x):
        from lab import late
        return late.forward(self, x)
"""
REGULARIZER = """
from regbench.regularizers import L1
from helpers.maths import shrink
import importlib

SCALE = 1


class Mine(L1):
    alpha = SCALE

    def add_grad(self, p, g, lam):
        shrink(p, g, lam, importlib.import_module("by_name"))
"""
FILES = {
    "lab/__init__.py": "from lab.net import Net\n",
    "lab/net.py": NET,
    "lab/base.py": "import click\nclass Base:\n    width = 1\n",
    "lab/late.py": "from . import later\ndef forward(net, x): return x\n",
    "lab/later.py": "FACTOR = 1\n",
    "layers.py": "try:\n    import no_such_module\nexcept ImportError:\n    pass\nSIZE = 1\n",
    "code.py": REGULARIZER,  # as a module of the standard library is called
    "helpers/maths.py": "from .numbers import TWO\ndef shrink(*_): return TWO\n",  # in a folder without __init__.py
    "helpers/numbers.py": "TWO = 2\n",
    "by_name.py": "VALUE = 1\n",
    "stranger.py": "def f(): return 1\n",
}


@pytest.fixture
def lab(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        path = tmp_path / "lab of mine" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path / "lab of mine"


def key(folder: Path, reg: str = "l1", model: str = "notebook") -> str:
    return printed(KEY.format(reg=reg, model=model), folder).strip()


@pytest.mark.parametrize(
    ("given", "own"),
    [
        ({"model": "lab:Net"}, [name for name in FILES if name.startswith("la")]),
        ({"reg": "code:Mine"}, ["code.py", "helpers/maths.py", "helpers/numbers.py", "by_name.py"]),
    ],
)
def test_the_key_knows_every_file_of_the_users_that_is_imported(lab, given, own):
    """Also in a function, relatively, by its name as text, or by a package that hands a class on; and no other file."""
    keys = [key(lab, **given)]
    for name in own:
        (lab / name).write_text(FILES[name] + "\nCHANGED = 1\n")
        keys.append(key(lab, **given))
    assert len(set(keys)) == 1 + len(own)
    (lab / "stranger.py").write_text("def f(): return 2\n")
    assert key(lab, **given) == keys[-1]


def test_comments_docstrings_layout_and_the_place_do_not_count(lab, tmp_path):
    before = key(lab, "code:Mine")
    text = FILES["code.py"].replace("alpha = SCALE", '"""What."""\n\n    alpha = (SCALE)  # why')
    (lab / "code.py").write_bytes(("\ufeff'''Module.'''\n" + text).replace("\n", "\r\n").encode())
    moved = lab.rename(tmp_path / "elsewhere")
    assert key(moved, "code:Mine") == before
    (moved / "code.py").write_text(FILES["code.py"].replace("SCALE = 1", "SCALE = 2"))
    assert key(moved, "code:Mine") != before


@pytest.mark.parametrize("content", [b"# -*- coding: latin-1 -*-\nNAME = '\xfc'\n", b"\xef\xbb\xbfNAME = '\xc3\xbc'\n"])
def test_a_file_counts_as_python_reads_it_whatever_its_encoding(tmp_path, monkeypatch, content):
    (tmp_path / "encoded.py").write_bytes(content + b"from torch import nn\nclass Net(nn.Module): pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    found = identity.sources(["encoded"])
    (tmp_path / "plain.py").write_text("NAME = 'ü'\nfrom torch import nn\nclass Net(nn.Module): pass\n", "utf-8")
    assert list(found.values()) == list(identity.sources(["plain"]).values())


def test_what_is_installed_counts_with_its_own_file_alone():
    assert set(identity.files("l1", "torchvision.models:AlexNet")) == {
        "torchvision.models",
        "torchvision.models.alexnet",
    }
    assert identity.files("l1", "notebook") == {}


def test_the_key_knows_the_version_of_the_results(monkeypatch):
    trial = Trial(RECIPE, "l1", 1e-3, 0)
    before = trial.key
    monkeypatch.setattr(identity, "RESULT_VERSION", identity.RESULT_VERSION + 1)
    assert dataclasses.replace(trial).key != before


def test_syntax_trees_are_told_apart_and_written_alike():
    """Texts and names that look alike, and what is between the lines of a class."""
    trees = [
        "x = '1'",
        "x = 1",
        "x = 1.0",
        "x = b'1'",
        "x = y",
        "x = None",
        "x: y",
        "x",
        "def x(): pass",
        "x = f'{y}1'",
    ]
    bare = [identity.digest(identity._bare(identity.ast.parse(text))) for text in trees]
    assert len(set(bare)) == len(trees)
    one, other = (identity._bare(identity.ast.parse(text)) for text in ("f'{x}' u'a'", "f'{x}' 'a'"))
    assert one == other  # Python 3.14 tells them apart, 3.11 does not
