"""The saved view of an experiment's trials on MLflow's pages."""

import json
import re

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from regbench.commands import sweep
from regbench.tracking import view
from regbench.tracking.store import Store

pytestmark = pytest.mark.usefixtures("database")
OPTIONS = {
    "dataset": "digits",
    "model": "tests.networks:Dense",
    "epochs": 1,
    "train_size": 200,
    "seeds": "0",
    "reg": "l1",
}


def test_a_sweep_saves_it_once_and_prints_its_address(run_here):
    code, told = run_here(sweep.main, **OPTIONS, lam="1e-3")
    assert code == 0
    store = Store("regbench")
    address = f"http://127.0.0.1:5000/#/experiments/{store.experiment_id}/runs?viewStateShareKey=regbench"
    assert f"at: {address}" in told
    saved = json.loads(store.client.get_experiment(store.experiment_id).tags[view.TAG])
    assert saved["name"] and saved["createdAt"] == saved["updatedAt"]
    state = json.loads(saved["state"])
    (trial, _) = store.search(state["searchFilter"])
    # what it shows is there under that name
    named = [re.fullmatch(r"(\w+)\.`(.+)`", column).groups() for column in state["selectedColumns"]]
    charts = {chart["type"]: chart for chart in state["compareRunCharts"]}
    named += [("params", name) for name in charts["PARALLEL"]["selectedParams"]]
    named += [("metrics", name) for name in charts["PARALLEL"]["selectedMetrics"]]
    named += [("metrics", charts["SCATTER"][axis]["key"]) for axis in ("xaxis", "yaxis")]
    named += [("metrics", charts["LINE"]["metricKey"])]
    assert all(name in getattr(trial.data, kind) for kind, name in named), named
    # a user's own changes stay
    store.client.set_experiment_tag(store.experiment_id, view.TAG, "changed")
    run_here(sweep.main, **OPTIONS, lam="1e-4")
    assert store.client.get_experiment(store.experiment_id).tags[view.TAG] == "changed"


def test_where_it_cannot_be_saved_the_page_is_shown_without_it(monkeypatch):
    def refuse(*_):
        raise MlflowException("not today")

    store = Store("e")
    store.create()
    monkeypatch.setattr(MlflowClient, "set_experiment_tag", refuse)
    assert view.save(store) == f"#/experiments/{store.experiment_id}/runs"
