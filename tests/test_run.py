"""What a run holds in memory while its trials end faster than they are written."""

import gc
import io
import time
import weakref

import numpy as np
import pytest
import torch
from rich.console import Console

from regbench import plan as planning
from regbench.regularizers import cells
from regbench.run import run_plan
from regbench.tracking import artifacts, writer
from regbench.tracking.store import Store
from regbench.training.events import Started, Trained
from regbench.trial import Recipe, grid
from tests.conftest import TINY


class Hasty:
    """An engine that trains in no time and counts how many results somebody still holds."""

    name, device_name = "hasty", "cpu"

    def __init__(self) -> None:
        self.given: list[weakref.ref] = []
        self.most = 0

    def train(self, trials, data, resume=True):
        labels = torch.tensor([0, 1])
        for trial in trials:
            yield Started(trial)
            array = np.ones((2, 256), dtype=np.float32)  # lives as long as any tensor that shares its memory
            self.given.append(weakref.ref(array))
            weights = {"out.weight": torch.from_numpy(array), "body.0.weight": torch.ones(4, 3, 3, 3)}
            del array
            gc.collect()
            self.most = max(self.most, sum(ref() is not None for ref in self.given))
            yield Trained(trial, weights, tuple(weights), torch.eye(2), labels, torch.eye(2), labels, seconds=0.1)


@pytest.mark.usefixtures("database")
def test_few_results_are_held_however_many_trials_there_are(images, monkeypatch):
    written = []

    def slow(folder, *_):
        time.sleep(0.02)
        written.append(folder)

    monkeypatch.setattr(artifacts, "write", slow)
    gc.collect()
    gc.freeze()  # what is there is not looked through each time
    sweep = grid(Recipe(images.name, images.fingerprint, 120, 40, TINY), cells(["l1"], [1e-3]), range(20))
    store, engine = Store("e"), Hasty()
    plan = planning.make(sweep, store, rerun=False)
    results = run_plan(plan, images, store, engine, Console(file=io.StringIO()), "hasty")
    assert len(results) == len(written) == len(engine.given) == 40
    # those that wait, the one that is written, the one that waits to wait, and the newest
    assert writer.MAX_WAITING <= engine.most <= writer.MAX_WAITING + 3
