"""Results that wait on disk: what becomes of one that the store will not have, and of the others."""

import dataclasses
from pathlib import Path

import psutil
import pytest
from mlflow import MlflowClient
from rich.console import Console

from regbench import plan as planning
from regbench import run
from regbench.engines import select
from regbench.errors import TrackingError
from regbench.regularizers import cells
from regbench.run import run_plan
from regbench.tracking import delivery, finished, outbox, schema, writer, writer_process
from regbench.tracking.delivery import flush
from regbench.tracking.outbox import Outbox, Record
from regbench.tracking.store import Store
from regbench.tracking.sweep_run import SweepRun
from regbench.trial import Recipe, grid
from tests.conftest import TINY

pytestmark = [pytest.mark.usefixtures("database"), pytest.mark.pictures]  # results that take a while to be written


@pytest.fixture
def sweep(images):
    recipe = Recipe(images.name, images.fingerprint, 120, 40, TINY, epochs=2, batch_size=40)
    return grid(recipe, cells(["l1"], [1e-3]), [0, 1])


def train(sweep, images, plan=None):
    store = Store("e")
    plan = plan or planning.make(sweep, store, rerun=False)
    return run_plan(plan, images, store, select.sequential("cpu"), Console(quiet=True), "a sweep")


def statuses(kind: str = "trial") -> list[str]:
    client = MlflowClient(f"sqlite:///{Path('mlflow.db').resolve()}")
    found = client.search_runs([client.get_experiment_by_name("e").experiment_id], f"tags.`{schema.KIND}` = '{kind}'")
    return sorted(run.info.status for run in found)


def waiting(elsewhere: Path) -> list[Path]:
    return sorted(path.parent for path in (elsewhere.parent / "cache" / "waiting").rglob(outbox.RECORD))


@pytest.fixture
def left_behind(sweep, images, elsewhere, monkeypatch):
    """A sweep whose store fails for good after its first trial; the other results wait."""
    finish, count = delivery.Delivery.finish, iter(range(100))

    def fail(self, folder):
        if next(count) > 0:
            raise PermissionError(13, "Permission denied", "mlruns")
        return finish(self, folder)

    with monkeypatch.context() as patch:
        patch.setattr(delivery.Delivery, "finish", fail)
        with pytest.raises(TrackingError):
            train(sweep, images)
    return waiting(elsewhere)


def test_a_result_that_the_store_refuses_is_set_aside_and_the_others_go_on(sweep, images, elsewhere, monkeypatch):
    measure, bad = run.measure, sweep.trials[1]

    def with_a_name_that_mlflow_refuses(event):
        result = measure(event)
        extra = {"no%name": 1.0} if event.trial == bad else {}
        return dataclasses.replace(result, metrics={**result.metrics, **extra})

    monkeypatch.setattr(run, "measure", with_a_name_that_mlflow_refuses)
    with pytest.raises(TrackingError, match=rf"the result of {bad.name} is refused .*no%name.* set aside in \S+;"):
        train(sweep, images)
    assert statuses() == ["FAILED", "FINISHED", "FINISHED", "FINISHED"]
    assert statuses("sweep") == ["FAILED"]
    assert not waiting(elsewhere)
    (kept,) = (elsewhere.parent / "cache" / "refused").rglob("model.safetensors")
    monkeypatch.setattr(run, "measure", measure)
    assert [result.status for result in train(sweep, images)] == ["ok"] * 4
    assert kept.is_file()


def test_a_damaged_result_is_set_aside_and_the_others_are_brought(left_behind, sweep, images, elsewhere):
    first, *others = left_behind
    assert others
    (first / outbox.RECORD).write_text("{")
    reported = []
    flush(Store("e"), reported.append)
    assert first.name in reported[0] and "set aside" in reported[0]
    assert f"{len(others)} result" in reported[1] and "brought" in reported[1]
    assert not waiting(elsewhere)
    assert [result.status for result in train(sweep, images)] == ["ok"] * 4


def test_a_result_whose_run_was_deleted_meanwhile_gets_a_new_one(sweep, images, monkeypatch):
    end = delivery.Delivery._end
    deleted = []

    def delete_before(self, run, record):
        if record.name == sweep.trials[1].name and not deleted:
            deleted.append(run.run_id)
            self._client.delete_run(run.run_id)
        end(self, run, record)

    monkeypatch.setattr(delivery.Delivery, "_end", delete_before)
    train(sweep, images)
    assert deleted
    assert statuses() == ["FINISHED"] * 4


def test_a_sweep_whose_own_run_is_deleted_meanwhile_keeps_its_trials(sweep, images, monkeypatch):
    monkeypatch.setattr(writer, "FLUSH_SECONDS", 0.01)
    open_, client = SweepRun._open, Store("e").client

    def open_and_delete(self):
        open_(self)
        client.delete_run(self.run_id)

    monkeypatch.setattr(SweepRun, "_open", open_and_delete)
    train(sweep, images)
    assert statuses() == ["FINISHED"] * 4


def test_a_trial_whose_result_the_disk_does_not_take_is_not_left_running(sweep, images, monkeypatch):
    put = Outbox.put

    def full(self, record, write=None):
        if record.name == sweep.trials[1].name:
            raise OSError(28, "No space left on device", "waiting")
        return put(self, record, write)

    monkeypatch.setattr(Outbox, "put", full)
    with pytest.raises(TrackingError, match="make room"):
        train(sweep, images)
    assert "RUNNING" not in statuses() + statuses("sweep")


def test_a_sweep_whose_files_cannot_be_written_is_not_left_running(sweep, images, elsewhere):
    (elsewhere / "mlruns").write_text("in the way")
    with pytest.raises(TrackingError, match="make it writable"):
        train(sweep, images)
    assert statuses("sweep") == ["KILLED"]


def test_what_another_start_left_after_the_plan_was_made_is_not_trained_again(sweep, images, monkeypatch, request):
    before = planning.make(sweep, Store("e"), rerun=False)
    left = request.getfixturevalue("left_behind")
    names = {name for folder in left if (name := outbox.read(folder).name)}
    assert names
    trained = []
    monkeypatch.setattr(run, "measure", lambda event, measure=run.measure: trained.append(event) or measure(event))
    results = train(sweep, images, before)
    assert [result.status for result in results] == ["ok"] * 4
    assert len(trained) < len(sweep.trials) - len(names)
    assert names.isdisjoint(event.trial.name for event in trained)
    assert statuses().count("FINISHED") == 4


def test_a_clock_that_is_set_does_not_make_a_living_process_dead(monkeypatch):
    owner = writer_process.current()
    since = psutil.boot_time()
    monkeypatch.setattr(psutil._psplatform, "boot_time", lambda: since + 3600.0)
    assert writer_process.alive(owner)


def test_what_belongs_to_somebody_else_is_left_alone(sweep, images, elsewhere):
    box = Store("e").outbox
    theirs = box.root / "theirs"
    (theirs / "1-x").mkdir(parents=True)
    (theirs / "1-x" / outbox.RECORD).write_text("{}")
    (box.root / "theirs.lock").mkdir()  # opened for writing it fails, as another user's does
    assert box.pending() == 0
    assert box.claim() == []
    assert theirs.is_dir()


def test_a_result_is_claimed_once(elsewhere):
    boxes = [Outbox("sqlite:///x.db", "e") for _ in range(3)]
    boxes[0].put(Record("token", "name"))
    assert boxes[1].claim() == []  # its process lives
    boxes[0].close()
    assert [len(box.claim()) for box in boxes[1:]] == [1, 0]


@pytest.mark.parametrize("listed", [0, 100])
def test_what_was_finished_after_the_plan_was_made_is_seen(listed, sweep, images, monkeypatch):
    """By a listing, or by a search for each trial, whichever is quicker."""
    monkeypatch.setattr(finished, "LISTED", listed)
    train(grid(sweep.recipes[0], cells(["l1"], [1e-3]), [0]), images)
    before = planning.make(sweep, Store("e"), rerun=False)
    assert (len(before.todo), len(before.reused)) == (2, 2)
    train(sweep, images)
    after = planning.refresh(before, Store("e"))
    assert (len(after.todo), len(after.reused)) == (0, 4)
