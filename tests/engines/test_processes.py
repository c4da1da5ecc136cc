import dataclasses
import os
import signal
import time
from contextlib import closing

import psutil
import pytest
import torch

from regbench.engines import processes, sequential
from regbench.regularizers import cells
from regbench.training.device_data import DeviceData
from regbench.training.events import Epoch, Failed, Started, Trained
from regbench.trial import Recipe, Trial, grid
from tests.networks import Tiny

TINY = "tests.networks:Tiny"  # not from tests.conftest, whose imports each worker that needs this file would wait for


class Dies(Tiny):
    """Has its process killed in the second epoch of the trials whose seed is 3."""

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__(num_classes)
        self.doomed = torch.initial_seed() == 3
        self.register_buffer("was_evaluated", torch.tensor(False))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training and self.doomed and self.was_evaluated:
            os.kill(os.getpid(), signal.SIGKILL)
        self.was_evaluated |= not self.training
        return super().forward(x)


@pytest.fixture
def recipe(images) -> Recipe:
    return Recipe(images.name, images.fingerprint, 120, 40, TINY, epochs=2, batch_size=32, lr=0.05)


def by_trial(events) -> dict[Trial, list]:
    told: dict[Trial, list] = {}
    for event in events:
        told.setdefault(event.trial, []).append(event)
    return told


def kinds(events) -> list[type]:
    return [type(event) for event in events]


def without_times(epoch: Epoch) -> dict[str, float]:
    return {name: value for name, value in epoch.metrics.items() if not name.startswith("time/")}


def assert_same(one: Trained, other: Trained) -> None:
    assert one.parameters == other.parameters
    assert one.pruned == other.pruned
    assert one.pruned or one.diverged
    assert list(one.weights) == list(other.weights)
    assert all(torch.equal(one.weights[name], other.weights[name]) for name in one.weights)
    for name in ("train_logits", "train_labels", "test_logits", "test_labels"):
        assert torch.equal(getattr(one, name), getattr(other, name)), name


def test_every_trial_is_what_it_is_alone_and_one_that_raises_stops_no_other(recipe, images):
    noisy = dataclasses.replace(recipe, model="tests.networks:Noisy")
    bad = Trial(dataclasses.replace(recipe, model="tests.networks:RaisesInTraining"), "none", 0.0, 0)
    late = Trial(dataclasses.replace(recipe, batch_size=3), "tests.plugins:RaisesLate", 1e-3, 0)
    trials = [
        bad,
        late,
        *grid(recipe, cells(["l1", "l2"], [1e-3]), [0, 1]).trials,
        *grid(noisy, cells(["l2"], [1e-3]), [0, 1]).trials,
    ]
    events = list(processes.train(trials, images, jobs=2))
    assert sorted(map(trials.index, (event.trial for event in events if isinstance(event, Started)))) == list(
        range(len(trials))
    )
    told, alone = by_trial(events), by_trial(sequential.train(trials, DeviceData(images, torch.device("cpu"))))
    assert kinds(told[bad]) == [Started, Failed]
    assert told[bad][1].reason == "RuntimeError: no training today"
    assert kinds(told[late]) == [Started, Epoch, Failed]
    assert told[late][2].reason.endswith("ValueError: no more of this")
    for trial in trials[2:]:
        assert kinds(told[trial]) == [Started, Epoch, Epoch, Trained]
        for one, other in zip(told[trial][1:3], alone[trial][1:3], strict=True):
            assert (one.epoch, without_times(one)) == (other.epoch, without_times(other))
        assert_same(told[trial][-1], alone[trial][-1])


def test_a_worker_that_is_killed_takes_only_its_own_trial_along(recipe, images):
    """It dies in its second epoch, twice: while another trains and then alone; the first epoch is told once."""
    recipe = dataclasses.replace(recipe, model="tests.engines.test_processes:Dies")
    trials = [Trial(recipe, "none", 0.0, seed) for seed in (1, 3, 4)]
    told = by_trial(processes.train(trials, images, jobs=2))
    for trial in trials:
        if trial.seed == 3:
            assert kinds(told[trial]) == [Started, Epoch, Failed]
            assert told[trial][-1].reason == "the worker process died: killed, crashed or out of memory"
        else:
            assert kinds(told[trial]) == [Started, Epoch, Epoch, Trained]


def test_epochs_are_told_live_and_closing_ends_the_workers(recipe, images):
    trials = grid(dataclasses.replace(recipe, epochs=100_000), cells(["l2"], [1e-3]), [0]).trials
    before = set(psutil.Process().children(recursive=True))
    with closing(processes.train(trials, images, jobs=2)) as events:
        assert isinstance(next(events), Started)
        assert any(isinstance(next(events), Epoch) for _ in range(2))
        began = set(psutil.Process().children(recursive=True)) - before
        assert began
        start = time.monotonic()
    assert time.monotonic() - start < 5
    # what is left is multiprocessing's, one in a program, and ends with it
    left = [process for process in began if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]
    assert all("resource_tracker" in " ".join(process.cmdline()) for process in left)
