"""What a plan says of its time."""

import io
from types import SimpleNamespace

import pytest
from rich.console import Console

from regbench import console
from regbench.plan import Plan
from regbench.training import bf16
from regbench.trial import Recipe, grid

DATA = SimpleNamespace(test_labels=range(100))


def told(seconds: float, slowdown: float = 0.5, module: str = "sequential", kind: str = "float32") -> str:
    """Return what is printed where an image takes so many seconds, and in bf16 `slowdown` times as many."""
    recipe = Recipe("d", "f" * 64, 1_000, 100, epochs=10, precision=kind)
    sweep = grid(recipe, [("none", 0.0), ("l1", 1e-4)], [0, 1])
    pace = {"float32": seconds, "bf16": seconds * slowdown}
    engine = SimpleNamespace(device="cpu", module=module, seconds_per_image=lambda ts, _: pace[ts[0].recipe.precision])
    screen = Console(file=io.StringIO(), width=200)
    console.print_estimate(screen, Plan(sweep, sweep.trials, sweep.trials), DATA, engine)
    return screen.file.getvalue()


def test_a_long_sweep_is_told_what_bf16_would_take(monkeypatch):
    monkeypatch.setattr(bf16, "slowdown", lambda: 0.4)
    assert "estimated time: 0:06:35" in told(0.01) and "with precision=bf16 0:03:17 in all" in told(0.01)
    assert "bf16" not in told(0.001)  # a short one
    assert "bf16" not in told(0.01, slowdown=0.95)
    assert "bf16" not in told(0.01, module="ray")  # whose machines are others
    assert "with" not in told(0.02, kind="bf16")


@pytest.mark.parametrize("slowdown", [2.0, 100.0])
def test_where_a_cpu_emulates_bf16_it_is_not_even_tried(monkeypatch, slowdown):
    monkeypatch.setattr(bf16, "slowdown", lambda: slowdown)
    assert "bf16" not in told(0.01)
