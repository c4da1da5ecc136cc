"""A training that was cut off goes on to the very same result."""

import dataclasses
import os
import sys
import time
import types

import pytest
import torch
from rich.console import Console

from regbench import identity
from regbench import plan as planning
from regbench.engines import select, sequential, stacked
from regbench.errors import UserError
from regbench.run import run_plan
from regbench.tracking.store import Store
from regbench.training import checkpoint, stack
from regbench.training.device_data import DeviceData
from regbench.training.events import Epoch, Started, Trained
from regbench.training.optimizer import Optimizer
from regbench.trial import Recipe, Sweep, Trial

CPU = torch.device("cpu")
ENGINES = {
    "sequential": sequential.train,
    "stacked": lambda trials, device_data: stacked.train(trials, device_data, len(trials)),
}
CELLS = [
    ("none", 0.0),
    ("l1_prox", 1e-3),
    ("imp", 0.8),
    ("random_pruning", 0.5),
    ("random_at_init", 0.5),
    ("dropout", 0.5),
    ("max_norm", 3.0),
]


@pytest.fixture(autouse=True)
def every_epoch(monkeypatch, tmp_path):
    monkeypatch.setenv("REGBENCH_CHECKPOINT_SECONDS", "0")
    monkeypatch.setenv("REGBENCH_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def recipe(images) -> Recipe:
    return Recipe(
        images.name, images.fingerprint, 120, 40, "tests.networks:Normalized", epochs=4, batch_size=32, lr=0.05
    )


def files(tmp_path) -> list:
    return sorted((tmp_path / "cache" / "checkpoints").glob("*"))


def cut_off(events, trial: Trial, epoch: int) -> list:
    """Take events until this trial's epoch is told, and the next event has been asked for; then stop as if killed."""
    told = []
    for event in events:
        told.append(event)
        if isinstance(event, Epoch) and (event.trial, event.epoch) == (trial, epoch + 1):
            break
    return told


def results(events) -> dict[Trial, Trained]:
    return {event.trial: event for event in events if isinstance(event, Trained)}


def assert_same(found: Trained, expected: Trained) -> None:
    for name, w in expected.weights.items():
        assert torch.equal(found.weights[name], w), name
    assert torch.equal(found.test_logits, expected.test_logits)
    assert found.pruned == expected.pruned
    assert found.best_epoch == expected.best_epoch and torch.equal(found.best_logits, expected.best_logits)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(("epoch", "optimizer"), [(1, "sgd"), (3, "sgd"), (1, "adam")])
def test_it_goes_on_to_the_same_bits(recipe, images, engine, epoch, optimizer, tmp_path):
    recipe = dataclasses.replace(recipe, optimizer=optimizer)
    train, device_data = ENGINES[engine], DeviceData(images, CPU)
    trials = [Trial(recipe, name, lam, seed) for seed, (name, lam) in enumerate(CELLS)]
    expected = list(train(trials, device_data))
    assert not files(tmp_path)  # nothing is left of what has ended
    # alone, the second trial is cut off; in a stack all are, in the order of its rows
    victim = trials[1] if engine == "sequential" else sorted(trials, key=lambda t: t.regularizer)[0]
    if epoch == 3:
        events = train(trials, device_data)
        for event in events:
            if isinstance(event, Trained):
                break
    else:
        events = train(trials, device_data)
        cut_off(events, victim, epoch)
    del events
    left = trials if engine == "stacked" else trials[0 if epoch == 3 else 1 :]
    again = list(train(left, device_data))
    for trial in left:
        mine, theirs = ([e for e in some if e.trial == trial] for some in (again, expected))
        assert [type(e) for e in mine] == [type(e) for e in theirs] == [Started, *[Epoch] * 4, Trained]
        for ours, other in zip(mine[1:5], theirs[1:5], strict=True):
            assert {k: v for k, v in ours.metrics.items() if k != "time/epoch"} == {
                k: v for k, v in other.metrics.items() if k != "time/epoch"
            }
        assert_same(mine[-1], theirs[-1])
    assert not files(tmp_path)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_rerun_begins_again(recipe, images, engine, monkeypatch, tmp_path):
    """Whatever was cut off before: what is asked for is a training by the code as it is now."""
    device_data = DeviceData(images, CPU)
    trials = [Trial(recipe, "l1", 1e-3, seed) for seed in (0, 1)]
    cut_off(ENGINES[engine](trials, device_data), trials[0], 2)
    begun = []
    begin = Optimizer.begin_epoch
    monkeypatch.setattr(Optimizer, "begin_epoch", lambda self, epoch: begun.append(epoch) or begin(self, epoch))
    plan = planning.Plan(Sweep(tuple(trials[:1])), tuple(trials[:1]), tuple(trials[:1]), rerun=True)
    run_plan(plan, images, Store("e"), getattr(select, engine)("cpu"), Console(quiet=True), "a sweep")
    assert begun == [1, 2, 3, 4]
    assert not files(tmp_path)


@pytest.mark.parametrize("engine", ENGINES)
def test_only_what_was_not_done_is_trained(recipe, images, engine, monkeypatch, tmp_path):
    train, device_data = ENGINES[engine], DeviceData(images, CPU)
    trial = Trial(recipe, "l1", 1e-3, 0)
    cut_off(train([trial], device_data), trial, 2)
    assert len(files(tmp_path)) == 1
    begun = []
    monkeypatch.setattr(
        "regbench.training.optimizer.Optimizer.begin_epoch", lambda self, epoch: begun.append(epoch), raising=True
    )
    assert len(results(train([trial], device_data))) == 1
    assert begun == [3, 4]


def test_a_stack_that_had_lost_a_trial_goes_on_as_it_was(recipe, images):
    """The lost one's row stays, so that the others are rounded as before, and is not told again."""
    device_data = DeviceData(images, CPU)
    good, bad = [Trial(recipe, "l2", 1e-3, seed) for seed in (0, 1)], Trial(recipe, "l2", 1e36, 2)
    expected = results(stacked.train([*good, bad], device_data, 3))
    events = cut_off(stacked.train([*good, bad], device_data, 3), good[0], 2)
    assert results(events)[bad].diverged
    again = list(stacked.train(good, device_data, 3))
    assert {event.trial for event in again} == set(good)
    for trial in good:
        assert_same(results(again)[trial], expected[trial])
    # and where its result was not kept, it is trained again
    cut_off(stacked.train([*good, bad], device_data, 3), good[0], 2)
    assert results(stacked.train([*good, bad], device_data, 3))[bad].diverged == expected[bad].diverged


@pytest.mark.parametrize("damage", ["truncated", "altered", "history", "empty", "text"])
def test_a_damaged_checkpoint_is_named_and_training_begins_again(recipe, images, damage, tmp_path, caplog):
    device_data, trial = DeviceData(images, CPU), Trial(recipe, "l1", 1e-3, 0)
    (expected,) = results(sequential.train([trial], device_data)).values()
    cut_off(sequential.train([trial], device_data), trial, 2)
    (path,) = files(tmp_path)
    content = bytearray(path.read_bytes())
    if damage == "altered":
        content[-5] ^= 1
    if damage == "history":  # a digit of it
        place = content.index(b"train/loss") + len('train/loss\\": 1.')
        content[place] ^= 1
    path.write_bytes(
        {"truncated": content[:-9], "altered": content, "history": content, "empty": b"", "text": b"no tensors"}[damage]
    )
    (found,) = results(sequential.train([trial], device_data)).values()
    assert_same(found, expected)
    assert str(path) in caplog.text and "damaged" in caplog.text


def test_other_circumstances_begin_again(recipe, images, tmp_path):
    """Another number of threads rounds differently, other code computes something else."""
    device_data, trial = DeviceData(images, CPU), Trial(recipe, "l1", 1e-3, 0)
    cut_off(sequential.train([trial], device_data), trial, 2)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(threads + 1)
        assert checkpoint.Checkpointer("sequential", [trial], CPU).read() is None
    finally:
        torch.set_num_threads(threads)
    assert checkpoint.Checkpointer("stacked", [trial], CPU).read() is None
    assert checkpoint.Checkpointer("sequential", [dataclasses.replace(trial, seed=1)], CPU).read() is None
    assert checkpoint.Checkpointer("sequential", [trial], CPU).read().epoch == 2


def test_short_trainings_write_none_and_a_full_disk_costs_only_the_checkpoint(
    recipe, images, monkeypatch, tmp_path, caplog
):
    device_data, trial = DeviceData(images, CPU), Trial(recipe, "l1", 1e-3, 0)
    monkeypatch.setenv("REGBENCH_CHECKPOINT_SECONDS", "60")
    cut_off(sequential.train([trial], device_data), trial, 3)
    assert not files(tmp_path)
    monkeypatch.setenv("REGBENCH_CHECKPOINT_SECONDS", "0")

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", full)
    assert len(results(sequential.train([trial], device_data))) == 1
    assert caplog.text.count("No space left on device") == 1


def test_abandoned_ones_are_removed_after_a_month(recipe, images, tmp_path):
    trial = Trial(recipe, "l1", 1e-3, 0)
    cut_off(sequential.train([trial], DeviceData(images, CPU)), trial, 2)
    (path,) = files(tmp_path)
    cut_short = path.with_name(f".{path.name}.x1y2z3")  # by a kill, while it was written
    cut_short.touch()
    checkpoint.clean()
    assert path.exists() and cut_short.exists()
    old = time.time() - 31 * 86400
    for file in (path, cut_short):
        os.utime(file, (old, old))
    checkpoint.clean()
    assert not files(tmp_path)


@pytest.mark.parametrize("text", ["soon", "-1", "nan", ""])
def test_a_bad_pace_is_refused(monkeypatch, text):
    monkeypatch.setenv("REGBENCH_CHECKPOINT_SECONDS", text)
    with pytest.raises(UserError, match=r"REGBENCH_CHECKPOINT_SECONDS=.* accepted: seconds, 0 or more"):
        checkpoint.seconds_between()


def test_buffers_that_a_network_does_not_save_go_on_too(recipe, images):
    trial = Trial(dataclasses.replace(recipe, model="tests.networks:Centred"), "l1", 1e-3, 0)
    device_data = DeviceData(images, CPU)
    (expected,) = results(sequential.train([trial], device_data)).values()
    cut_off(sequential.train([trial], device_data), trial, 2)
    (found,) = results(sequential.train([trial], device_data)).values()
    assert_same(found, expected)


PLUGIN = """
from regbench.regularizers import L1


class Mine(L1):
    lams = (1e-3,)
"""


def test_a_checkpoint_of_another_sweep_imports_nothing_and_stays(recipe, images, tmp_path, monkeypatch, caplog):
    """Its regularizer is a file of another folder; only a command line may name what is imported."""
    (tmp_path / "mine.py").write_text(PLUGIN)
    monkeypatch.syspath_prepend(tmp_path)
    device_data = DeviceData(images, CPU)
    theirs = [Trial(recipe, "mine:Mine", 1e-3, seed) for seed in (0, 1)]
    cut_off(stacked.train(theirs, device_data, 2), theirs[0], 2)
    monkeypatch.delitem(sys.modules, "mine")
    identity.files.cache_clear()
    (path,) = files(tmp_path)
    assert len(results(stacked.train([Trial(recipe, "l1", 1e-3, 0)], device_data, 2))) == 1
    assert "mine" not in sys.modules
    # a file of the same name, but without that class
    monkeypatch.setitem(sys.modules, "mine", types.ModuleType("mine"))
    assert len(results(stacked.train([Trial(recipe, "l1", 1e-3, 0)], device_data, 2))) == 1
    assert files(tmp_path) == [path] and not caplog.text


def test_a_stack_is_not_gone_on_with_where_that_is_not_wanted(recipe, images, monkeypatch):
    device_data = DeviceData(images, CPU)
    trials = [Trial(recipe, "l1", 1e-3, seed) for seed in (0, 1)]
    cut_off(stacked.train(trials, device_data, 2), trials[0], 2)
    begun = []
    begin = stack.Training.epoch
    monkeypatch.setattr(stack.Training, "epoch", lambda self, n: begun.append(len(self.trials)) or begin(self, n))
    assert len(results(stacked.train(trials[:1], device_data, resume=False))) == 1
    assert begun == [1] * 4


def test_what_another_process_removes_meanwhile_is_passed_over(recipe, images, monkeypatch, tmp_path):
    for seed in (0, 2):
        trials = [Trial(recipe, "l1", 1e-3, seed), Trial(recipe, "l1", 1e-3, seed + 1)]
        cut_off(stacked.train(trials, DeviceData(images, CPU), 2, resume=False), trials[0], 2)
    assert len(checkpoint.stacks("stacked", recipe, CPU)) == 2
    read = checkpoint.read

    def alone(path, *rest, **options):
        for other in set(files(tmp_path)) - {path}:
            other.unlink()
        return read(path, *rest, **options)

    monkeypatch.setattr(checkpoint, "read", alone)
    assert len(checkpoint.stacks("stacked", recipe, CPU)) == 1
    monkeypatch.setattr(
        checkpoint, "read", lambda path, *rest, **options: path.unlink() or read(path, *rest, **options)
    )
    assert checkpoint.stacks("stacked", recipe, CPU) == []
