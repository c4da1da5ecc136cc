"""How many trials are trained at once, where that is left to regbench."""

import pytest

from regbench.engines import select
from regbench.engines.base import LOCAL
from regbench.regularizers import cells
from regbench.trial import Recipe, Sweep, grid
from tests.conftest import striped


def sweep(epochs: int, seeds: int) -> Sweep:
    return grid(Recipe("x", "f", 110, 10, epochs=epochs), cells(["none"], None), range(seeds))


@pytest.mark.parametrize(
    ("epochs", "seeds", "engine"),
    [
        (1, 4, select.sequential("cpu")),
        (select.WORTH_WORKERS // 400 - 1, 4, select.sequential("cpu")),
        (select.WORTH_WORKERS // 400, 4, select.processes(4, 2)),
        (select.WORTH_WORKERS, 20, select.processes(8, 1)),
    ],
)
def test_a_sweep_that_is_large_enough_is_trained_by_a_worker_for_each_core(monkeypatch, epochs, seeds, engine):
    monkeypatch.setattr(select, "cpu_count", lambda only_physical_cores: 8 if only_physical_cores else 16)
    assert select.select("auto", None, sweep(epochs, seeds), striped(), "cpu", LOCAL) == engine
    assert select.select("auto", 3, sweep(epochs, seeds), striped(), "cpu", LOCAL) == select.processes(3, 2)
