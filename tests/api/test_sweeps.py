"""A sweep in Python is the command's: the same trials, and the same in the store; what came of it as tables and report."""

import json
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pandas as pd
import pytest

import regbench
from regbench import run
from regbench.commands import sweep
from regbench.console import Progress
from regbench.tracking import schema
from regbench.tracking.store import Store
from tests.conftest import TINY, printed

OPTIONS = {"dataset": "digits", "model": TINY, "reg": "l1,l2", "lam": "1e-3", "seeds": "0-1", "epochs": 2}
OPTIONS |= {"train_size": 200, "batch_size": 50}


@pytest.fixture(autouse=True)
def _database(database):
    """The tests' store."""


def trials(experiment: str) -> dict[str, object]:
    """Return what the store holds of each finished trial, by its key, but for ids and times."""
    runs = Store(experiment).search(schema.where(schema.KIND, "trial"))
    return {
        run.data.tags[schema.KEY]: (
            run.info.run_name,
            run.data.params,
            {name: value for name, value in run.data.metrics.items() if not name.startswith("time/")},
            {name for name in run.data.tags},
            (Path(run.info.artifact_uri) / "weights" / "model.safetensors").read_bytes(),
        )
        for run in runs
    }


def sweep_file(experiment: str) -> dict[str, object]:
    (parent,) = Store(experiment).search(schema.where(schema.KIND, "sweep"))
    return json.loads((Path(parent.info.artifact_uri) / schema.SWEEP_FILE).read_text())


def test_it_is_the_commands(run_here):
    found = regbench.sweep(**OPTIONS, confirm=0, experiment="python")
    code, _ = run_here(sweep.main, **OPTIONS, experiment="command")
    assert code == found.failed == 0
    assert trials("python") == trials("command") and len(trials("python")) == 6
    assert sweep_file("python") == sweep_file("command")
    assert repr(found) == f"<sweep {sweep_file('python')['sweep']} in MLflow experiment 'python': 6 trials>"
    # and each finds what the other has trained
    _, text = run_here(sweep.main, **OPTIONS, experiment="python")
    assert "6 finished already, 0 to train" in text
    again = regbench.sweep(**OPTIONS, confirm=0, experiment="command")
    assert again.id == found.id and len(trials("command")) == 6


def test_trials_and_verdicts_are_tidy_tables_and_the_report_is_shown(elsewhere):
    found = regbench.sweep(**OPTIONS | {"reg": "l2", "lam": [1e-4, 1e-3], "seeds": 0}, confirm=6)
    table = found.trials
    assert list(table.columns[:8]) == [
        "regularizer", "lam", "seed", "scope", "stage", "status", "test/accuracy", "val/accuracy"]  # fmt: skip
    assert table.groupby(["regularizer", "stage"]).size().to_dict() == {
        ("l2", "confirm"): 6, ("l2", "grid"): 2, ("none", "confirm"): 6, ("none", "grid"): 1}  # fmt: skip
    for row in table.to_dict("records"):
        data = Store().client.get_run(row["run_id"]).data
        assert (data.params["regularizer"], float(data.params["lam"])) == (row["regularizer"], row["lam"])
        assert (data.metrics["test/accuracy"], data.tags[schema.STAGE]) == (row["test/accuracy"], row["stage"])
        assert (row["status"], row["scope"]) == ("ok", "weights")

    (verdict,) = found.verdicts.to_dict("records")
    chosen = table[(table["stage"] == "confirm") & (table["regularizer"] == "l2")]
    none = table[(table["stage"] == "confirm") & (table["regularizer"] == "none")]
    difference = chosen["test/accuracy"].mean() - none["test/accuracy"].mean()
    assert (verdict["regularizer"], verdict["lam"]) == ("l2", chosen["lam"].unique().item())
    assert verdict["difference"] == pytest.approx(difference)
    assert verdict["low"] <= verdict["difference"] <= verdict["high"] and isinstance(verdict["verdict"], str)

    written = found.report("shown")
    assert written.path == elsewhere / "shown" / "report.md" and repr(written) == f"<report {written.path}>"
    assert pd.read_csv("shown/comparisons.csv")["verdict"].tolist() == [verdict["verdict"]]
    (parent,) = Store().search(schema.where(schema.KIND, "sweep"))
    assert written.published == parent.info.run_id
    html = written._repr_html_()
    assert html.count('<img src="data:image/png;base64,') == written.path.read_text().count("](figures/") > 3
    assert "<table>" in html and "<h2>" in html


def test_learning_rates_have_a_column():
    found = regbench.sweep(**OPTIONS | {"reg": "l2", "seeds": 0, "epochs": 1}, lr=[0.1, 0.01], confirm=[5, 6])
    assert set(found.trials["lr"]) == set(found.verdicts["lr"]) == {0.1, 0.01}
    assert found.trials.columns[0] == found.verdicts.columns[0] == "lr"


def test_a_dry_run_prints_the_plan_and_makes_nothing(capsys, elsewhere):
    (elsewhere / "mlflow.db").unlink()
    found = regbench.sweep(**OPTIONS, confirm=0, dry_run=True)
    told = capsys.readouterr().out
    assert f"sweep {found.id}: 6 trials, 0 finished already, 6 to train" in told
    assert repr(found).endswith("'regbench': not trained>")
    assert not list(elsewhere.iterdir())
    with pytest.raises(regbench.UserError, match="there is no experiment 'regbench'"):
        _ = found.trials


def test_an_interruption_keeps_what_is_finished(monkeypatch):
    ended = Progress.end

    def interrupt(progress, trial, text):
        ended(progress, trial, text)
        if progress._ended == 3:
            signal.raise_signal(signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    with monkeypatch.context() as patch:
        patch.setattr(run.Progress, "end", interrupt)
        with pytest.raises(KeyboardInterrupt):
            regbench.sweep(**OPTIONS, confirm=0)
    assert signal.getsignal(signal.SIGINT) is before
    kept = {run.info.run_id: run.info.status for run in Store().search(schema.where(schema.KIND, "trial"))}
    assert list(kept.values()).count("FINISHED") == 3
    found = regbench.sweep(**OPTIONS, confirm=0)
    assert len(found.trials) == 6
    assert {run_id for run_id, status in kept.items() if status == "FINISHED"} <= set(found.trials["run_id"])


def test_a_thread_trains_too():
    found = []
    thread = threading.Thread(target=lambda: found.append(regbench.sweep(**OPTIONS, confirm=0)))
    thread.start()
    thread.join()
    assert len(found[0].trials) == 6


def test_a_trial_that_fails_is_counted_and_has_no_row():
    options = OPTIONS | {"model": "tests.networks:RaisesLater", "reg": "l1", "seeds": 0, "epochs": 10}
    found = regbench.sweep(**options, confirm=0)
    assert found.failed == 2 and repr(found).endswith(": 2 trials, 2 failed>")
    assert found.trials.empty and "run_id" in found.trials


def test_the_report_goes_where_it_can(elsewhere):
    found = regbench.sweep(**OPTIONS | {"reg": "l1", "seeds": 0}, confirm=0)
    (elsewhere / "file").write_text("")
    with pytest.raises(regbench.UserError, match="is a file; give a folder"):
        found.report("file")
    with pytest.raises(regbench.UserError, match="lang='xx' is unknown; accepted: en, ja"):
        found.report(lang="xx")


def test_the_notebooks_experiments(capsys):
    found = regbench.notebook(dataset="digits", train_size=120, epochs=1)
    told = capsys.readouterr().out.strip().splitlines()
    assert told[-2].split() == ["none", "l1", "l2", "weight_decay"] == found.trials["regularizer"].tolist()
    assert told[-1].split() == [f"{value:.2%}" for value in found.trials["test/accuracy"]]
    assert found.trials["batch_size"].tolist() == [100, 100, 100, 64]


SCRIPT = """
import regbench
print("begun")
found = regbench.sweep(dataset="digits", model="mynet:Small", reg="l1", lam=1e-3, seeds=[0, 1], confirm=0, epochs=1,
                       train_size=200, batch_size=50, jobs=2)
print(len(found.trials), "trials")
"""
NET = """
from torch import nn


class Small(nn.Sequential):
    def __init__(self):
        super().__init__(nn.AvgPool2d(8), nn.Flatten(), nn.Linear(48, 10))
"""


def test_a_script_needs_no_guard_for_its_processes(environment, elsewhere):
    (elsewhere / "mynet.py").write_text(NET)
    (elsewhere / "script.py").write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, "script.py"], env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "2 trials side by side" in done.stdout
    assert (done.stdout.count("begun"), done.stdout.splitlines()[-1]) == (1, "4 trials")


def test_the_package_is_imported_at_once_and_its_functions_without_torch(elsewhere):
    heavy = "{'torch', 'mlflow', 'pandas', 'numpy', 'click', 'matplotlib'} & set(sys.modules)"
    code = f"import sys, regbench; print({heavy}); regbench.sweep, regbench.load, regbench.notebook; print(sorted({heavy}))"
    assert printed(code, elsewhere) == "set()\n['click', 'numpy']\n"
