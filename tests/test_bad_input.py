"""Every mistake of a user's gets one clear line and exit code 2 before anything is made."""

import gzip
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torchvision.datasets import CIFAR10

from benchmarks import notebook, notebook_loop, sweep
from regbench import cli
from regbench.errors import UserError
from regbench.sweep import format_seeds
from tests.conftest import TINY

GOOD = {"dataset": "digits", "model": TINY, "reg": "l1", "lam": "1e-3", "seeds": "0", "epochs": "1"}


@pytest.fixture
def places(tmp_path: Path) -> dict[str, str]:
    """Broken data sets by name."""
    broken = tmp_path / "broken"
    for part in ("train", "test"):
        for name in ("a", "b"):
            place = broken / part / name
            place.mkdir(parents=True)
            Image.new("RGB", (32, 32)).save(place / "1.png")
    (broken / "train" / "b" / "1.png").write_bytes(b"rubbish")
    archive = tmp_path / "archive"
    archive.mkdir()
    (archive / CIFAR10.filename).write_bytes(gzip.compress(b"x" * 1000)[:-10])
    idx = tmp_path / "idx"
    idx.mkdir()
    for part in ("train", "t10k"):
        for kind in ("images-idx3", "labels-idx1"):
            (idx / f"{part}-{kind}-ubyte.gz").write_bytes(gzip.compress(b"\0\0\x08\x03" + b"x" * 1000)[:-10])
    (tmp_path / "file").write_text("")
    return {"broken": str(broken), "archive": str(archive), "idx": str(idx), "file": str(tmp_path / "file")}


def refusal(main, options: dict[str, str], capsys) -> str:
    """Run a command that must be refused; return its one line."""
    with pytest.raises(SystemExit) as stop:
        cli.run(main, [f"--{name}={value}" for name, value in options.items()])
    captured = capsys.readouterr()
    assert stop.value.code == 2, captured.err
    assert captured.err.count("\n") == 1, captured.err
    assert captured.err.startswith("error: ")
    return captured.err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"reg": "l3"}, "reg='l3' is unknown; accepted: none, l1, l2, weight_decay"),
        ({"reg": ""}, "reg='' is empty; accepted: one or more of none, l1"),
        ({"reg": "l1,,l2"}, "has an empty item between commas"),
        ({"reg": "l1,l1"}, "l1 is given more than once"),
        ({"reg": "none"}, "lam='1e-3' has no meaning for reg=none alone"),
        ({"reg": "l1_proxy"}, "elastic_net, group_lasso, max_norm, or an import path pkg.module:Class"),
        ({"reg": "no_such_module:Reg"}, "reg='no_such_module:Reg' cannot be imported (No module named"),
        (
            {"reg": "tests.plugins:Missing"},
            "reg='tests.plugins:Missing' cannot be imported (module 'tests.plugins' has",
        ),
        ({"reg": "tests.plugins:"}, "reg='tests.plugins:' is unknown; accepted: an import path pkg.module:Class"),
        ({"reg": "tests.plugins:not_a_class"}, "is not a subclass of regbench.regularizers.Regularizer"),
        ({"reg": "tests.networks:Tiny"}, "is not a subclass of regbench.regularizers.Regularizer"),
        ({"reg": "tests.plugins:WithoutLams", "lam": "auto"}, "has no lams of its own; give them, as in lam=1e-4,1e-3"),
        ({"reg": "tests.plugins:BadLams", "lam": "auto"}, "has lams=(0.001, -1.0); accepted: a tuple of different"),
        ({"reg": "l1,tests.plugins:Mixes"}, "reg='tests.plugins:Mixes' breaks a rule of regularizers: A row does not"),
        ({"reg": "tests.plugins:NeedsArgument"}, "breaks a rule of regularizers: The class is made without arguments"),
        ({"lam": "-1e-3"}, "lam='-1e-3': -1e-3 is not a finite number above 0; accepted: numbers above 0"),
        ({"lam": "nan"}, "nan is not a finite number above 0"),
        ({"lam": "inf"}, "inf is not a finite number above 0"),
        ({"lam": "1e-50"}, "1e-50 is outside what float32 holds"),
        ({"lam": "1e300"}, "1e300 is outside what float32 holds"),
        ({"lam": "0"}, "for lam 0 take reg=none"),
        ({"lam": "big"}, "'big' is no number; accepted"),
        ({"lam": ""}, "lam='' is empty"),
        ({"lam": ","}, "lam=',' is empty"),
        ({"lam": "1e-3,0.001"}, "0.001 is given more than once"),
        ({"seeds": ""}, "seeds='' is empty; accepted: numbers and ranges"),
        ({"seeds": "0-4,3"}, "seed 3 is given more than once"),
        ({"seeds": "4-0"}, "the range 4-0 runs backwards; write 0-4"),
        ({"seeds": "-1"}, "'-1' is no seed"),
        ({"seeds": "one"}, "'one' is no seed"),
        ({"seeds": "4294967296"}, "the largest seed is 4294967295"),
        ({"seeds": "0-99999999"}, "more than 10000 seeds"),
        ({"dataset": "cifar100"}, "dataset='cifar100' is unknown; accepted: cifar10, folder, fashion_mnist, digits"),
        ({"dataset": "folder", "data_dir": "nowhere"}, "found no folder nowhere/train"),
        ({"dataset": "folder", "data_dir": "{broken}"}, "train/b/1.png is not a readable image"),
        ({"dataset": "folder", "data_dir": "{file}"}, "found no folder"),
        ({"dataset": "cifar10", "data_dir": "{archive}"}, "is damaged or cut short"),
        ({"dataset": "fashion_mnist", "data_dir": "{idx}"}, "is damaged or cut short"),
        ({"train_size": "5000"}, "train_size=5000 is out of range: this data set has 1437 training images"),
        ({"backend": "dask"}, "backend='dask' is unknown; accepted: local, ray"),
        ({"train_size": "few"}, "train_size='few' is no number of images; accepted: 0 or more, or all"),
        ({"train_size": "0"}, "train_size=0 is out of range"),
        ({"val_size": "1437"}, "val_size=1437 is out of range for 1437 training images in 10 classes"),
        ({"val_size": "-5"}, "val_size='-5' is no number of images"),
        ({"val_size": "3"}, "val_size=3 is out of range"),
        ({"model": "resnet"}, "model='resnet' is unknown; accepted: notebook, or an import path"),
        ({"model": "no_such_module:Net"}, "model='no_such_module:Net' cannot be imported (No module named"),
        ({"model": "tests.networks:Missing"}, "cannot be imported"),
        ({"model": "tests.networks:not_a_class"}, "is not a subclass of torch.nn.Module"),
        ({"model": "tests.networks:FiveClasses"}, "returns shape (2, 5) for two images, expected (2, 10)"),
        ({"model": "tests.networks:NeedsArgument"}, "does not run on images [2, 3, 32, 32]"),
        ({"epochs": "0"}, "epochs=0 is out of range; accepted: 1 or more"),
        ({"epochs": "many"}, "'many' is not a valid integer"),
        ({"batch_size": "0"}, "batch_size=0 is out of range"),
        ({"batch_size": "2000"}, "batch_size=2000 is out of range: only 1294 images are trained on"),
        ({"lr": "0"}, "lr=0.0 is out of range"),
        ({"lr": "nan"}, "lr=nan is out of range"),
        ({"momentum": "1"}, "momentum=1.0 is out of range; accepted: 0 or more, below 1"),
        ({"scope": "biases"}, "scope='biases' is unknown; accepted: weights, all"),
        ({"precision": "fp8"}, "precision='fp8' is unknown; accepted: float32, tf32, bf16, float64"),
        ({"precision": "tf32", "device": "cpu"}, "precision='tf32' needs a CUDA GPU, this is cpu; accepted here"),
        ({"engine": "warp"}, "engine='warp' is unknown; accepted: auto, sequential, stacked"),
        ({"engine": "stacked", "jobs": "2"}, "jobs=2 is for engine=sequential on a CPU"),
        ({"engine": "stacked", "model": "tests.networks:Noisy"}, "engine='stacked' cannot train model="),
        ({"jobs": "0"}, "jobs='0' is out of range; accepted: a whole number of 1 or more, or auto"),
        ({"jobs": "many"}, "jobs='many' is out of range"),
        ({"device": "tpu"}, "device='tpu' is unknown; accepted: auto, cpu, cuda, cuda:N"),
        ({"device": "cuda:99"}, "device='cuda:99' is not there: this machine has"),
        ({"dry_run": "perhaps"}, "'perhaps' is not a valid boolean"),
        ({"lambda": "1"}, "No such option"),
    ],
)
def test_a_sweep_is_refused_with_one_line(options, message, places, elsewhere, tmp_path, capsys):
    before = sorted(tmp_path.rglob("*"))
    filled = {name: value.format(**places) for name, value in options.items()}
    assert message in refusal(sweep.main, GOOD | filled, capsys)
    cached = tmp_path / "cache"
    found = sorted(path for path in tmp_path.rglob("*") if not path.is_relative_to(cached))
    assert found == before  # nothing created but the data's cache


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("sqlite:///{file}/mlflow.db", "cannot be written"),
        ("sqlite:////no/such/folder/mlflow.db", "cannot be written"),
        ("sqlite:///{broken}/train/b/1.png", "cannot be written (file is not a database)"),
        ("http://127.0.0.1:9", "the tracking store http://127.0.0.1:9 does not work"),
        ("nonsense://x", "the tracking store nonsense://x does not work"),
    ],
)
def test_a_store_that_cannot_be_written_is_refused(uri, message, places, elsewhere, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri.format(**places))
    before = sorted(tmp_path.rglob("*"))
    told = refusal(sweep.main, GOOD, capsys)
    assert message in told
    assert "set MLFLOW_TRACKING_URI to" in told
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("main", "options", "message"),
    [
        (notebook.main, {"seed": "0-3"}, "take one seed"),
        (notebook.main, {"epochs": "0"}, "epochs='0' is out of range; accepted: a whole number of 1 or more, or auto"),
        (notebook_loop.main, {"name": "l7"}, "name='l7' is unknown; accepted: none, l1, l2, weight_decay"),
        (notebook_loop.main, {"workers": "-1"}, "-1 is not in the range"),
        (notebook_loop.main, {"train_size": "9999"}, "train_size=9999 is out of range"),
    ],
)
def test_the_other_commands_are_refused_alike(main, options, message, elsewhere, capsys):
    assert message in refusal(main, {"dataset": "digits"} | options, capsys)
    assert list(elsewhere.iterdir()) == []


def test_as_a_user_sees_it(command, elsewhere):
    done = command("benchmarks.sweep", **GOOD | {"lam": "nan"})
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: lam='nan': nan is not a finite number above 0")
    assert list(elsewhere.iterdir()) == []


def test_help_is_no_mistake(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.run(sweep.main, ["--help"])
    assert stop.value.code == 0
    assert "--train_size" in capsys.readouterr().out


seed_lists = st.lists(st.integers(0, 5000), min_size=1, max_size=30, unique=True)


@given(seed_lists)
def test_a_plan_writes_seeds_in_a_way_that_reads_back(seeds):
    assert cli.seeds(format_seeds(seeds)) == tuple(sorted(seeds))


@given(st.text(max_size=20) | st.text("0123456789-,. e", max_size=20))
def test_any_text_is_a_list_or_a_clear_refusal(text):
    for option, parse in (("seeds", cli.seeds), ("lam", cli.lams)):
        try:
            found = parse(text)
        except UserError as error:
            told = str(error)
            if not told.startswith(f"{option}={text!r}"):
                pytest.fail(told)
        else:
            assert found is None or (found and len(set(found)) == len(found) and min(found) >= 0)
