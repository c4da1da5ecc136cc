"""Sweep, resume and report against the set-up of docs/team-server.md: PostgreSQL behind `mlflow server`, over HTTP.

Skipped where PostgreSQL or its driver is not installed, unless REGBENCH_TEST_ALL=1.
"""

import math
import os
import re
import signal
import urllib.request

import mlflow
import pytest
import torch
from mlflow import MlflowClient
from mlflow.entities import Metric

from regbench.commands import report, sweep
from regbench.tracking import schema
from regbench.tracking.store import Store
from tests import team_server
from tests.conftest import TINY, cut_off

SWEEP = {
    "dataset": "digits",
    "model": TINY,
    "epochs": 3,
    "batch_size": 50,
    "reg": "l1,l2",
    "lam": "1e-3",
    "seeds": "0-1",
    "train_size": 300,
    "jobs": 1,
}
TRIALS = 6


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """The address of the team's server."""
    missing = team_server.missing()
    if missing:
        if os.environ.get("REGBENCH_TEST_ALL"):
            pytest.fail(missing)
        pytest.skip(missing)
    with (
        team_server.postgresql() as database,
        team_server.mlflow_server(database, tmp_path_factory.mktemp("server")) as address,
    ):
        yield address


@pytest.fixture
def environment(environment, server):
    """What a member of the team sets in the shell."""
    return environment | {"MLFLOW_TRACKING_URI": server, "LOGNAME": "ada"}


def runs_of(server: str, experiment: str, kind: str = "trial"):
    client = MlflowClient(server)
    where = [client.get_experiment_by_name(experiment).experiment_id]
    return list(client.search_runs(where, f"tags.`{schema.KIND}` = '{kind}'", order_by=["start_time ASC"]))


def test_sweep_a_colleagues_sweep_and_report(server, command, run_here, elsewhere, tmp_path, monkeypatch):
    done = command("sweep", **SWEEP, experiment="team")
    assert done.returncode == 0, done.stderr
    runs, (parent,) = runs_of(server, "team"), runs_of(server, "team", "sweep")
    assert len(runs) == TRIALS
    assert {run.info.status for run in [*runs, parent]} == {"FINISHED"}
    # who trained it, which the list in the UI shows
    assert {run.data.tags["mlflow.user"] for run in [*runs, parent]} == {"ada"}
    # the server keeps the files: nothing is left in the folder from which the sweep was started
    assert list(elsewhere.iterdir()) == []
    assert {run.info.artifact_uri.split(":")[0] for run in runs} == {"mlflow-artifacts"}
    files = {file.path for file in MlflowClient(server).list_artifacts(runs[0].info.run_id, "weights")}
    assert {"weights/model.safetensors", "weights/layers.csv", "weights/epochs.csv"} <= files

    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    larger = SWEEP | {"seeds": "0-2", "experiment": "team"}
    # a colleague's larger sweep takes what is there
    code, text = run_here(sweep.main, **larger)
    assert code == 0, text
    assert "9 trials, 6 finished already, 3 to train" in text
    # the same again trains nothing
    code, text = run_here(sweep.main, **larger)
    assert code == 0, text
    assert "9 finished already, 0 to train" in text
    assert len(runs_of(server, "team")) == 9

    out = tmp_path / "report"
    code, text = run_here(report.main, experiment="team", out=out)
    assert code == 0, text
    assert "| `l1` |" in (out / "report.md").read_text()
    _, *epochs = (out / "epochs.csv").read_text().splitlines()
    assert len(epochs) == 9 * SWEEP["epochs"]
    assert (out / "figures" / "weight_histograms.png").exists()  # from the weights that the server sent
    parents = [run.info.run_id for run in runs_of(server, "team", "sweep")]
    kept = [file.path for run_id in parents for file in MlflowClient(server).list_artifacts(run_id, "report")]
    assert "report/report.md" in kept

    newest = runs_of(server, "team", "sweep")[-1]
    # the page shows the report's figure by its own address, relative to it
    (figure,) = re.findall(r"!\[\]\((get-artifact\?[^)]+)\)", newest.data.tags[schema.NOTE])
    with urllib.request.urlopen(f"{server}/{figure}", timeout=20) as answer:
        assert answer.read() == (out / "figures" / "forest.png").read_bytes()


@pytest.mark.models
def test_its_networks_are_loaded_from_the_server(server, run_here, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    code, text = run_here(sweep.main, **SWEEP | {"reg": "l1", "seeds": "0"}, experiment="models")
    assert code == 0, text
    addresses = re.findall(r"models:/m-\w+", text)
    assert len(addresses) == 2
    for address in addresses:
        logits = mlflow.pytorch.load_model(address)(torch.zeros(3, 3, 32, 32))
        assert logits.shape == (3, 10)
    experiment = Store("models").experiment_id
    assert f"at: {server}/#/experiments/{experiment}/runs?viewStateShareKey=regbench" in text


def test_killed_in_mid_sweep_the_same_command_continues(server, environment, run_here, monkeypatch):
    cut_off(r"\(4/6\) .* epoch 2/3", signal.SIGKILL, environment, **SWEEP, experiment="killed")
    before = {run.info.run_id for run in runs_of(server, "killed") if run.info.status == "FINISHED"}
    assert len(before) < TRIALS

    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    code, text = run_here(sweep.main, **SWEEP, experiment="killed")
    assert code == 0, text
    # at least: what was on disk, and not on the server yet, comes first
    assert int(re.search(r"(\d+) finished already", text)[1]) >= max(1, len(before))
    both = runs_of(server, "killed") + runs_of(server, "killed", "sweep")
    assert not [run for run in both if run.info.status == "RUNNING"]
    finished = [run for run in runs_of(server, "killed") if run.info.status == "FINISHED"]
    assert len({run.data.tags[schema.KEY] for run in finished}) == len(finished) == TRIALS
    assert before < {run.info.run_id for run in finished}


def test_histories_over_http_are_complete(server, monkeypatch):
    """One run has thousands of points, one has none, one a NaN."""
    client = MlflowClient(server)
    experiment = client.create_experiment("histories")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    expected, run_ids = {}, []
    for steps in (0, 3, 2600):
        run_ids.append(client.create_run(experiment).info.run_id)
        for first in range(0, steps, 1000):
            part = range(first, min(first + 1000, steps))
            values = {step: math.nan if step == 2 else 1 / (step + 1) for step in part}
            points = [Metric("train/loss", value, 0, step) for step, value in values.items()]
            client.log_batch(run_ids[-1], metrics=[*points, Metric("other", 1, 0, first)])
            expected |= {(run_ids[-1], step): value for step, value in values.items()}
    found = list(Store("histories").histories(run_ids, "train/loss"))
    assert len(found) == len(expected)
    assert {(run_id, step): value for run_id, step, value in found} == pytest.approx(expected, nan_ok=True)
