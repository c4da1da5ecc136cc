"""Regularizers that are not packaged: by import path, or from an installed package."""

import re
from pathlib import Path

import pytest

from regbench import regularizers
from regbench.commands import report, sweep
from regbench.errors import UserError
from regbench.regularizers import cells, lookup
from regbench.tracking.store import Store
from regbench.trial import Recipe, Trial, grid
from tests.conftest import TINY, printed
from tests.plugins import Log, Outer

RECIPE = Recipe("x", "f" * 64, train_size=100, val_size=10)
LOG = "tests.plugins:Log"


def own_lams(name: str) -> tuple[float, ...]:
    return tuple(lam for _, lam in regularizers.cells([name], None, baseline=False))


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package that names some regularizers, as pip would leave it."""
    place = tmp_path / "site"
    info = place / "pkg-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: pkg\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        f"[{lookup.GROUP}]\nlog = {LOG}\nbroken = no_such_module:X\nwrong = tests.plugins:not_a_class\nl1 = {LOG}\n"
    )
    monkeypatch.syspath_prepend(place)
    lookup._entry_points.cache_clear()
    yield
    lookup._entry_points.cache_clear()


def test_a_regularizer_is_found_by_import_path():
    assert regularizers.find(LOG) is Log
    assert own_lams(LOG) == (1e-5, 1e-4, 1e-3)
    trials = grid(RECIPE, cells([LOG, "l1"], None), [0]).trials
    assert [trial.name for trial in trials[:2]] == ["none seed=0", f"{LOG} lam=1e-5 seed=0"]
    assert len(trials) == 1 + 3 + 7
    assert regularizers.find("tests.plugins:Outer.Inner") is Outer.Inner


@pytest.mark.parametrize("first", ["", "import torch; "])
def test_what_a_users_file_sets_of_torch_for_the_whole_program_is_put_back(tmp_path, first):
    """Other trials would change, which are kept under the same keys with and without it."""
    (tmp_path / "settles.py").write_text(
        "import torch\ntorch.set_default_dtype(torch.float64)\ntorch.set_default_device('meta')\n"
        "torch.set_grad_enabled(False)\nclass R: pass\n"
    )
    code = f"{first}from regbench import importing; importing.by_path('reg', 'settles:R', ''); import torch; "
    told = printed(code + "x = torch.zeros(1, requires_grad=True) * 2; print(x.dtype, x.device, x.grad_fn)", tmp_path)
    assert told.startswith("torch.float32 cpu <MulBackward0")


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("notebook", b"%matplotlib inline\n", r"leave out what only a notebook has, '%matplotlib inline'\)"),
        ("exported", b"get_ipython().system('ls')\n", r"'get_ipython' is not defined; leave out what only a notebook"),
        ("wide", "x = 1\n".encode("utf-16"), r"; save it as UTF-8\)"),
        ("json", b"class R: pass\n", r"__init__.py, and not your json.py: give that another name\)"),
    ],
)
def test_a_file_that_cannot_be_imported_is_told_with_what_to_do(elsewhere, monkeypatch, name, text, told):
    (elsewhere / f"{name}.py").write_bytes(text)
    monkeypatch.syspath_prepend(elsewhere)
    with pytest.raises(UserError, match=told):
        regularizers.find(f"{name}:R")


def test_a_grid_is_a_tuple_list_array_tensor_or_range():
    for name in ("AsList", "AsArray", "AsTensor", "AsTexts"):
        assert own_lams(f"tests.plugins:{name}") == (1e-4, 1e-3), name
    assert own_lams("tests.plugins:AsRange") == (1.0, 2.0, 3.0)


def test_the_least_and_largest_lam_are_those_that_the_message_gives():
    with pytest.raises(UserError) as refused:
        regularizers.cells(["l1"], [1e-45])
    least, largest = map(float, re.search(r"([\de.-]+) to ([\de.-]+);", str(refused.value)).groups())
    assert len(regularizers.cells(["l1"], [least, largest])) == 3
    for lam in (least / 1.1, largest * 1.1, 0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(UserError, match=re.escape(f"lam={lam:g} is ")):
            regularizers.cells(["l1"], [lam])


@pytest.mark.usefixtures("installed")
def test_a_regularizer_is_found_in_an_installed_package():
    assert regularizers.find("log") is Log
    assert regularizers.is_plugin("log")
    assert regularizers.find("l1") is regularizers.L1  # what is packaged cannot be replaced unnoticed
    with pytest.raises(
        UserError,
        match=r"'l3' is unknown; accepted: none, .*, weight_decay, log, broken, wrong, an import path .*or a comb",
    ):
        regularizers.find("l3")
    with pytest.raises(UserError, match=r"reg='broken' cannot be imported .* it is no_such_module:X of an installed"):
        regularizers.find("broken")
    with pytest.raises(UserError, match=r"reg='wrong' is not a subclass"):
        regularizers.find("wrong")


def test_the_key_of_a_plugin_is_not_that_of_its_base():
    assert len({Trial(RECIPE, name, 1e-3, 0).key for name in ("l1", "tests.plugins:WithoutLams", LOG)}) == 3


@pytest.mark.usefixtures("database")
def test_a_sweep_of_a_plugin_is_trained_and_reported(run_here, elsewhere):
    """One that raises in mid-training fails its own trials; the others finish."""
    late = "tests.plugins:RaisesLate"
    options = {"dataset": "digits", "model": TINY, "reg": f"{LOG},{late}", "lam": "1e-3", "seeds": "0-1", "epochs": 2}
    options |= {"train_size": 400, "batch_size": 10, "experiment": "e", "jobs": 1}
    code, text = run_here(sweep.main, **options)
    assert code == 1
    assert re.search(rf"{re.escape(LOG)} lam=1e-3 +2 +[\d.]+%", text)
    assert re.search(rf"{late} lam=1e-3 seed=1 failed: .*ValueError: no more of this", text)
    runs = Store("e").search("tags.`regbench.kind` = 'trial'")
    ended = {run.info.run_name: (run.info.status, run.data.params["regularizer"]) for run in runs}
    assert {name for name, (status, _) in ended.items() if status == "FINISHED"} == {
        *(f"none seed={seed}" for seed in (0, 1)),
        *(f"{LOG} lam=1e-3 seed={seed}" for seed in (0, 1)),
    }
    assert ended[f"{LOG} lam=1e-3 seed=0"] == ("FINISHED", LOG)
    assert ended[f"{late} lam=1e-3 seed=0"] == ("FAILED", late)
    code, text = run_here(sweep.main, **options, dry_run="true")
    assert "6 trials, 4 finished already, 2 to train" in text
    assert run_here(report.main, experiment="e")[0] == 0
    assert f"`{LOG}`" in (elsewhere / "report" / "report.md").read_text()
