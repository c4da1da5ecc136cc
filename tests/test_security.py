"""What comes from elsewhere is data: parameters, what a tracking store holds, archives (tests/data/test_downloads.py)."""

import ast
import pickle
import subprocess
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from regbench.commands import exit_code, report, sweep
from regbench.tracking import schema
from regbench.tracking.store import Store
from tests.conftest import PROJECT, TINY

EVIL = "evil_module:Class"


@pytest.fixture
def trap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that is made when the module of EVIL, which is on the path, is imported."""
    place, made = tmp_path / "evil", tmp_path / "evil-was-here"
    place.mkdir()
    (place / "evil_module.py").write_text(f"import pathlib\npathlib.Path({str(made)!r}).touch()\n")
    monkeypatch.syspath_prepend(place)
    return made


def log_trial(store: Store, regularizer: str, seed: int | str, lam: str = "0.001", **params: str) -> str:
    """Make a finished run as a stranger with access to the store could; return its id."""
    tags = {schema.KIND: "trial", schema.KEY: f"{regularizer}{lam}{seed}", schema.RECIPE: "r", schema.STATUS: "ok"}
    run_id = store.client.create_run(store.create(), tags=tags, run_name=f"{regularizer} `|<b>").info.run_id
    known = {"regularizer": regularizer, "lam": lam, "seed": str(seed), "scope": "weights", "dataset": "d"}
    for name, value in (known | {"model": EVIL} | params).items():
        store.client.log_param(run_id, name, value)
    for name in ("val/accuracy", "test/accuracy", "status", "method", "prune/x"):
        store.client.log_metric(run_id, name, 0.6 if seed else 0.5)
    store.client.set_terminated(run_id, "FINISHED")
    return run_id


@pytest.mark.usefixtures("database")
def test_nothing_that_a_store_names_is_imported_and_no_file_of_it_is_unpickled(
    trap, run_here, elsewhere, tmp_path, monkeypatch
):
    store = Store("e")
    runs = [log_trial(store, name, seed) for name in ("none", EVIL, "$(touch x);`$\n|<b>") for seed in (0, 1)]
    for run_id, content in zip(runs, (pickle.dumps(Path.touch), b"\x80", save({"w": np.ones((2, 2))})), strict=False):
        for name in ("model.safetensors", "layers.csv", "epochs.csv"):
            (tmp_path / name).write_bytes(content)
            store.client.log_artifact(run_id, tmp_path / name, "weights")
    code, text = run_here(report.main, experiment="e")
    assert code == 0, text
    told = (elsewhere / "report" / "report.md").read_text()
    assert f"`{EVIL}`" in told
    assert "<b>" not in told
    options = {"dataset": "digits", "model": TINY, "reg": "l1", "lam": "1e-3", "seeds": "0", "dry_run": "true"}
    assert run_here(sweep.main, **options, experiment="e")[0] == 0
    assert not trap.exists()
    assert {path.name for path in elsewhere.iterdir()} == {"mlflow.db", "mlruns", "report"}
    __import__("evil_module")
    assert trap.exists()  # it would have been seen


@pytest.mark.usefixtures("database")
@pytest.mark.parametrize("wrong", [{"lam": "many"}, {"seed": "1.5"}])
def test_a_run_that_is_no_trial_is_named(wrong, capsys):
    store = Store("e")
    log_trial(store, "none", **{"seed": 0} | wrong)
    with pytest.raises(SystemExit) as stop:
        exit_code.run(report.main, ["--experiment=e"])
    assert stop.value.code == 2
    ((name, value),) = wrong.items()
    assert f"has {name}={value!r}, which is not a number" in capsys.readouterr().err


@pytest.mark.parametrize(("entry", "command"), [("main", sweep.main), ("report", report.main)])
def test_parameters_of_mlflow_run_are_inert(entry, command, environment, database, elsewhere):
    """A shell would run what is in them; each is text, and the first is told as a mistake."""
    oops = elsewhere / "oops"
    evil = f"a b'; touch {oops}; \" $(touch {oops}) `touch {oops}` | touch {oops} & ${{IFS}} \\"
    done = subprocess.run(
        ["mlflow", "run", str(PROJECT), "--env-manager=local", "-e", entry,
         *(part for option in command.params for part in ("-P", f"{option.opts[0].lstrip('-')}={evil}"))],
        env=environment | {"MLFLOW_TRACKING_URI": f"sqlite:///{database}"},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    (told,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert repr(evil) in told
    assert not oops.exists()
    assert {path.name for path in elsewhere.iterdir()} <= {"mlflow.db", "mlruns"}


def test_no_shell_is_started_and_pickles_only_pass_between_a_sweeps_own_processes():
    found: dict[str, set[str]] = {}
    for path in [*(PROJECT / "regbench").rglob("*.py"), *(PROJECT / "benchmarks").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                name = ast.unparse(node.func)
                used = found.setdefault(name, set())
                used.add(path.name)
                assert not any(keyword.arg in ("shell", "allow_pickle") for keyword in node.keywords), path
    dangerous = {"os.system", "os.popen", "eval", "exec", "torch.load", "np.load", "joblib.load", "pickle.load"}
    assert not dangerous & set(found)
    assert found["pickle.loads"] == {"processes.py"}
    assert found["importlib.import_module"] <= {"__init__.py", "importing.py", "lookup.py", "base.py"}
