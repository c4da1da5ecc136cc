"""How many trials are trained at once, where that is left to regbench."""

import pytest

from regbench.engine import choice
from regbench.engine.choice import Engine, choose
from regbench.sweep import Recipe, Sweep, grid
from tests.conftest import striped


def sweep(epochs: int, seeds: int) -> Sweep:
    return grid(Recipe("x", "f", 110, 10, epochs=epochs), ["none"], None, range(seeds))


@pytest.mark.parametrize(
    ("epochs", "seeds", "engine"),
    [
        (1, 4, Engine(choice.SEQUENTIAL, "cpu", 1, 0)),
        (choice.WORTH_WORKERS // 400 - 1, 4, Engine(choice.SEQUENTIAL, "cpu", 1, 0)),
        (choice.WORTH_WORKERS // 400, 4, Engine(choice.SEQUENTIAL, "cpu", 4, 2)),
        (choice.WORTH_WORKERS, 20, Engine(choice.SEQUENTIAL, "cpu", 8, 1)),
    ],
)
def test_a_sweep_that_is_large_enough_is_trained_by_a_worker_for_each_core(monkeypatch, epochs, seeds, engine):
    monkeypatch.setattr(choice, "cpu_count", lambda only_physical_cores: 8 if only_physical_cores else 16)
    assert choose("auto", None, sweep(epochs, seeds), striped(), "cpu") == engine
    assert choose("auto", 3, sweep(epochs, seeds), striped(), "cpu") == Engine(choice.SEQUENTIAL, "cpu", 3, 2)
