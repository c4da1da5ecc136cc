"""What a plan says of its time, and what is printed while trials run."""

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


def lines(monkeypatch, seconds_an_epoch: float, verbose: bool) -> list[str]:
    """Return what is printed into a file of two trials of two epochs, by a clock of its own."""
    now = [0.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: now[0])
    sweep = grid(Recipe("d", "f" * 64, 1_000, 100, epochs=2), [("l1", 1e-4)], [0, 1])
    screen = Console(file=io.StringIO(), width=200)
    with console.Progress(sweep, sweep.trials, screen, verbose) as progress:
        for trial in sweep.trials:
            progress.start(trial)
            for epoch in (1, 2):
                now[0] += seconds_an_epoch
                progress.epoch(trial, epoch, {"train/loss": 2.0, "train/objective": 2.5, "train/accuracy": 0.25})
            progress.end(trial, "test accuracy 0.3000")
    return screen.file.getvalue().splitlines()


def test_into_a_file_goes_a_line_for_each_trial(monkeypatch):
    ends = ["(1/2) l1 lam=1e-4 seed=0 test accuracy 0.3000", "(2/2) l1 lam=1e-4 seed=1 test accuracy 0.3000"]
    assert lines(monkeypatch, 5.0, verbose=False) == ends
    each = lines(monkeypatch, 5.0, verbose=True)
    assert [line for line in each if "test accuracy" in line] == ends
    assert each[0] == (
        "(1/2) l1 lam=1e-4 seed=0 epoch 1/2: loss 2.5000, accuracy 0.2500, cross-entropy 2.0000, 5.0 s, 0:00:15 left"
    )
    assert len(each) == 6


def test_into_a_file_goes_a_line_a_minute_where_trials_take_long(monkeypatch):
    assert len(lines(monkeypatch, 61.0, verbose=False)) == 6
    assert len(lines(monkeypatch, 31.0, verbose=False)) == 4
