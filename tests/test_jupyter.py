"""A notebook's bar counts every epoch, whatever becomes of a trial; that it is shown there is in test_notebooks.py."""

from regbench import jupyter
from regbench.regularizers import cells
from regbench.trial import Recipe, grid


def test_the_bar_is_full_in_the_end(capfd):
    sweep = grid(Recipe("d", "f" * 64, 100, 10, epochs=4), cells(["l1"], [1e-4]), [0])
    first, second = sweep.trials
    with jupyter.Progress(sweep, sweep.trials) as progress:
        progress.start(first)
        progress.start(second)
        progress.epoch(first, 1, {"train/accuracy": 0.5, "val/accuracy": 0.25})
        assert progress._bar.n == 1
        progress.epoch(second, 1, {"train/accuracy": 0.5})
        progress.end(second, "failed: it broke")  # after one epoch of four
        assert progress._bar.n == 5
        for epoch in (2, 3, 4):
            progress.epoch(first, epoch, {"train/accuracy": 0.5, "val/accuracy": 0.25})
        progress.end(first, "test accuracy 0.3")
        assert progress._bar.n == progress._bar.total == 8
    told = capfd.readouterr().err
    assert "(1/2) none seed=0" in told and "8/8" in told and "test accuracy 0.3" in told


def test_a_terminal_is_no_notebook():
    assert not jupyter.is_running()
