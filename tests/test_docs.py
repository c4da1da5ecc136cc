"""What docs/your-regularizer.md says is what happens."""

import re
import subprocess
import tomllib

import pytest

from regbench import __main__, cli
from regbench.regularizers.registry import GROUP
from tests.conftest import PROJECT

PAGE = (PROJECT / "docs" / "your-regularizer.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)


@pytest.fixture
def folder(elsewhere, monkeypatch):
    """The reader's folder with the page's file in it."""
    (code,) = blocks("python")
    (name,) = re.findall(r"put this into `(\w+\.py)`", PAGE)
    (elsewhere / name).write_text(code)
    monkeypatch.syspath_prepend(elsewhere)
    return elsewhere


def test_the_pages_class_keeps_every_rule(folder, capsys):
    check = blocks("sh")[0].split()
    assert check[:3] == ["python", "-m", "regbench"]
    with pytest.raises(SystemExit) as stop:
        cli.run(__main__.main, check[3:])
    told = capsys.readouterr().out
    assert stop.value.code == 0, told
    assert "broken" not in told


def test_the_pages_commands_work(folder, database, environment):
    """With the clone's and the folder's real places, one seed and fewer images; mlflow's launcher only plans."""
    check, sweep, launched = blocks("sh")
    sweep = sweep.strip().replace("~/regbench", str(PROJECT)) + " --seeds=0 --train_size=400"
    launched = launched.strip().replace("/path/to/folder", str(folder)) + " -P dry_run=true"
    elsewhere = environment | {"MLFLOW_TRACKING_URI": f"sqlite:///{folder / 'mlflow.db'}"}
    for command, where, variables in (
        (check, folder, environment),
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
