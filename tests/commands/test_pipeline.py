"""What a command does before it trains, and with which engine it then trains."""

import subprocess
import sys

import pytest
from PIL import Image

from regbench.commands import exit_code, sweep
from regbench.tracking.store import Store
from tests.conftest import TINY

DRY_RUN = """
import sys
from regbench.commands import exit_code, sweep
try:
    exit_code.run(sweep.main, ["--dataset=digits", "--reg=l1", "--epochs=1", "--dry_run=true"])
finally:
    print("torch" in sys.modules, "mlflow" in sys.modules)
"""


def test_a_dry_run_imports_torch_once_and_then_remembers(environment, elsewhere):
    told = [
        subprocess.run(
            [sys.executable, "-c", DRY_RUN], env=environment, capture_output=True, text=True, check=True, timeout=120
        ).stdout.splitlines()
        for _ in range(2)
    ]
    assert told[0][:-1] == told[1][:-1]  # the estimate too
    assert any(line.startswith("estimated time: ") for line in told[1])
    assert [lines[-1] for lines in told] == ["True False", "False False"]
    assert not list(elsewhere.iterdir())


def test_windows_is_told_in_one_line(monkeypatch, capsys):
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(SystemExit) as stop:
        exit_code.run(sweep.main, [])
    assert stop.value.code == 2
    assert capsys.readouterr().err == (
        "error: regbench runs on Linux and macOS, not on Windows itself; start it in WSL, Windows' own Linux\n"
    )


@pytest.mark.usefixtures("database")
@pytest.mark.parametrize(
    ("options", "engine", "told"),
    [
        ({"jobs": 2}, "sequential", "engine: sequential, 2 trials side by side"),
        ({"engine": "stacked"}, "stacked", "engine: stacked, as many trials at once as fit"),
    ],
)
def test_every_engine_trains_a_whole_sweep(options, engine, told, run_here):
    common = {
        "dataset": "digits",
        "model": TINY,
        "reg": "tests.plugins:Log",
        "lam": "1e-3",
        "seeds": "0-1",
        "epochs": 2,
    }
    code, text = run_here(sweep.main, **common, **options, train_size=200, experiment="e")
    assert code == 0
    assert told in text
    runs = Store("e").search("tags.`regbench.kind` = 'trial'")
    assert [run.info.status for run in runs] == ["FINISHED"] * 4
    assert {run.data.tags["regbench.engine"] for run in runs} == {engine}
    for run in runs:
        history = list(Store("e").histories([run.info.run_id], "train/loss"))
        assert [step for _, step, _ in history] == [1, 2]
    # and the other engine finds them finished
    code, text = run_here(sweep.main, **common, train_size=200, experiment="e")
    assert "4 trials, 4 finished already, 0 to train" in text


@pytest.mark.usefixtures("database")
def test_a_changed_image_is_told_before_finished_trials_are_trained_again(run_here, elsewhere):
    place = elsewhere / "pets"
    for part, count in (("train", 12), ("test", 2)):
        for label in ("cat", "dog"):
            (place / part / label).mkdir(parents=True)
            for i in range(count):
                Image.new("RGB", (32, 32), (20 * i, 99, 255 * (label == "dog"))).save(place / part / label / f"{i}.png")
    options = {"dataset": "folder", "data_dir": place, "model": TINY, "reg": "l1", "lam": "1e-3", "seeds": "0-1"}
    options |= {"epochs": 1, "batch_size": 10, "experiment": "e"}
    (place / "train" / "cat" / "notes.gif").write_bytes(b"")
    code, text = run_here(sweep.main, **options)
    assert code == 0
    assert "the data has changed" not in text
    # what is passed over is told once, before the plan
    note = "data: skipped: 1 of other endings than .jpg"
    assert text.count(note) == 1 and text.index(note) < text.index("trials, 0 finished already")
    image = place / "train" / "cat" / "3.png"
    before = image.read_bytes()
    Image.new("RGB", (32, 32), (1, 2, 3)).save(image)
    more = options | {"seeds": "0-2"}
    _, text = run_here(sweep.main, **more, dry_run="true")
    assert "6 trials, 0 finished already, 6 to train" in text
    told = (
        "the data has changed: 4 of the trials to train are finished with other images under the name pets; these have"
    )
    assert text.count(told) == 1
    assert run_here(sweep.main, **options)[0] == 0
    # both results are kept, each under its own data
    for content in (image.read_bytes(), before):
        image.write_bytes(content)
        _, text = run_here(sweep.main, **options, dry_run="true")
        assert "4 trials, 4 finished already, 0 to train" in text
        assert "the data has changed" not in text
