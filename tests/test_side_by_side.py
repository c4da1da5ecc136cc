"""Several learning rates and scopes in one sweep, from the command to the report."""

import re

import pytest

from regbench.commands import report, sweep
from regbench.tracking import schema
from regbench.tracking.store import Store
from tests.conftest import TINY

OPTIONS = {
    "dataset": "digits", "model": TINY, "train_size": 400, "val_size": 100, "epochs": 1, "batch_size": 50,
    "lr": "0.02,0.1", "reg": "l2", "lam": "1e-3", "seeds": "0-1", "confirm": 6, "jobs": 1, "experiment": "e",
}  # fmt: skip


@pytest.mark.usefixtures("database")
def test_learning_rates_and_scopes_end_in_one_report(run_here, elsewhere):
    code, text = run_here(sweep.main, **OPTIONS, scope="weights,all")
    assert code == 0
    assert "12 trials of the grid, 0 finished already, 12 to train" in text and "at most 36 trials" in text
    for rate in ("0.02", "0.1"):
        for name in ("none", "l2 lam=1e-3", "l2 lam=1e-3 scope=all"):
            assert re.search(rf"{name} lr={rate} +2 +[\d.]+%", text), (name, rate)
    (parent,) = Store("e").search("tags.`regbench.kind` = 'sweep'")
    trials = Store("e").search("tags.`regbench.kind` = 'trial'")
    assert len(trials) == 12 + 36
    assert {run.data.tags[schema.PARENT] for run in trials} == {parent.info.run_id}
    assert "l2 lam=1e-3 scope=all lr=0.1 seed=0" in {run.info.run_name for run in trials}
    # one of the rates alone has nothing left to train
    code, text = run_here(sweep.main, **OPTIONS | {"lr": "0.1"}, scope="weights,all", dry_run="true")
    assert "6 trials of the grid, 6 finished already, 0 to train" in text
    code, text = run_here(report.main, experiment="e")
    assert code == 0 and "The recipes differ in `lr`: `0.02` and `0.1`." in text
    folder = elsewhere / "report"
    assert "| `l2 scope=all` | 0.1 | 1e-3 | 6 |" in (folder / "report.md").read_text()
    for rate in ("0.02", "0.1"):
        whole = (folder / f"lr={rate}" / "report.md").read_text()
        assert "| `l2` | `l2 scope=all` |" in whole  # against each other
