"""What docs/your-regularizer.md says is what happens."""

import re
import shlex
import subprocess
import tomllib

import pytest
import torch

from regbench import __main__, regularizers
from regbench.commands import exit_code
from regbench.regularizers.contract import rules
from regbench.regularizers.lookup import GROUP
from tests import documents
from tests.conftest import PROJECT, TINY

BLOCKS = documents.blocks(PROJECT / "docs" / "your-regularizer.md")


def blocks(language: str) -> list[str]:
    return [block.code for block in BLOCKS if block.language == language]


@pytest.fixture
def folder(elsewhere, monkeypatch):
    """The reader's folder with the page's files in it."""
    for block in BLOCKS:
        if block.language == "python":
            (elsewhere / block.file).write_text(block.code)
    monkeypatch.syspath_prepend(elsewhere)
    return elsewhere


def test_the_pages_class_keeps_every_rule(folder, capsys):
    check = blocks("sh")[0].split()
    assert check[:3] == ["python", "-m", "regbench"]
    with pytest.raises(SystemExit) as stop:
        exit_code.run(__main__.main, check[3:])
    told = capsys.readouterr().out
    assert stop.value.code == 0, told
    assert "broken" not in told


@pytest.mark.parametrize(
    "name",
    [
        *("more:Spread", "more:Orthogonal", "more:Nuclear", "fast:Log"),
        *("others:Shake", "others:Brightness", "others:EvenPruning"),
    ],
)
def test_the_pages_other_classes_keep_every_rule(folder, name):
    assert not [rule for rule, broken in rules.check(regularizers.find(name)) if broken]


def test_the_page_writes_one_penalty_in_two_ways(folder):
    p = torch.linspace(-0.1, 0.1, 12, dtype=torch.float64).view(2, 3, 2)
    lam, found = torch.tensor([1e-3, 2e-3], dtype=torch.float64).view(2, 1, 1), []
    for name in ("shrink:Log", "fast:Log"):
        method, g = regularizers.find(name)(), torch.zeros_like(p)
        with torch.no_grad():
            method.add_grad(p, g, lam)
            found.append((g, method.value(p, lam)))
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-15)


def test_the_pages_commands_work(folder, database, environment):
    """With the real path of the folder, one seed, fewer images, a small network; mlflow's launcher only plans."""
    _, sweep, launched = blocks("sh")
    sweep = sweep.strip() + f" --seeds=0 --train_size=200 --model={TINY}"
    launched = launched.strip().replace("/path/to/folder", shlex.quote(str(folder))) + " -P dry_run=true"
    elsewhere = environment | {"MLFLOW_TRACKING_URI": f"sqlite:///{folder / 'mlflow.db'}"}
    for command, where, variables in (
        (sweep, folder, environment),
        (launched, PROJECT, elsewhere),
    ):
        done = subprocess.run(
            ["bash", "-c", command], cwd=where, env=variables,
            capture_output=True, text=True, timeout=240, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        if command == sweep:
            assert re.search(r"shrink:Log lam=1e-5 +1 +[\d.]+%", done.stdout)
    assert "shrink:Log lam=1e-4" in done.stdout


def test_the_pages_entry_point_is_the_one_that_is_read():
    (text,) = blocks("toml")
    assert list(tomllib.loads(text)["project"]["entry-points"]) == [GROUP]
