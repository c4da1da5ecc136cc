"""The comparison with other tools: what is counted, what trainings show, and the contenders that are installed, at work."""

import json
from dataclasses import replace

import pandas as pd
import pytest
from matplotlib.figure import Figure

from benchmarks import comparison
from benchmarks.comparison import command, page, runs
from benchmarks.comparison.contenders import CONTENDERS, Question
from benchmarks.comparison.lines import written
from benchmarks.comparison.measuring import lines, measure
from regbench.commands import exit_code, sweep
from regbench.errors import UserError
from tests.conftest import TINY

BY_NAME = {one.name: one for one in CONTENDERS}
SMALLEST = Question((1e-4,), seeds=1, epochs=1)


def trainings(gain: float, seeds: int, chooses: bool = True) -> pd.DataFrame:
    """Trainings of none and of weight_decay at two lams, of which validation prefers the second."""
    rows = []
    for seed in range(seeds):
        base = 0.9 + 0.01 * (seed % 3)
        rows.append(("none", 0.0, seed, 0.9, base))
        rows += [("weight_decay", lam, seed, 0.9 + lam, base + gain * lam) for lam in (0.01, 0.02)]
    return pd.DataFrame(rows, columns=runs.COLUMNS[:5]).assign(chooses=chooses, judges=True)


@pytest.mark.parametrize(
    ("name", "text", "count"),
    [
        (
            "a.py",
            '"""Says.\n\nMore."""\n\nimport os  # why\n\n# nothing\n\n\ndef f():\n    """Says."""\n    return os\n',
            3,
        ),
        ("a.py", 'x = f(\n    """a\n\nb""",\n)\n', 5),
        ("a.py", 'class A:\n    "Says."\n\n    x: int = 1\n', 2),
        ("a.yaml", "# nothing\n\na: 1\nb:\n  # nothing\n  - 2\n", 3),
    ],
)
def test_lines_are_those_that_somebody_writes(elsewhere, name, text, count):
    (elsewhere / name).write_text(text)
    assert written(elsewhere / name) == count


def test_the_lines_of_a_contender_are_its_files_and_commands():
    assert lines(BY_NAME["regbench"]) == 1
    hydra = BY_NAME["Hydra"]
    assert {path.name for path in hydra.files} == {"train.py", "config.yaml", "summary.py"}
    assert lines(hydra) == sum(map(written, hydra.files)) + 4


def test_trainings_show_what_regbenchs_statistics_say_of_them():
    (found,) = runs.shown(trainings(gain=1.0, seeds=8)).values()
    assert found.lam == 0.02 and found.comparison.verdict == "better"
    assert found.comparison.difference.mean == pytest.approx(0.02) and found.comparison.difference.n == 8
    (same,) = runs.shown(trainings(gain=0.0, seeds=8)).values()
    assert same.comparison.verdict == "equivalent"
    (few,) = runs.shown(trainings(gain=1.0, seeds=3)).values()
    assert few.comparison.verdict == "too few seeds"


def test_what_chooses_lam_has_no_say_in_the_verdict():
    rows = trainings(gain=1.0, seeds=12)
    rows["chooses"] = rows["seed"] < 4
    rows["judges"] = ~rows["chooses"]
    rows.loc[rows["judges"], "val"] = 0.0
    rows.loc[rows["chooses"], "test"] = 0.0
    (found,) = runs.shown(rows).values()
    assert found.lam == 0.02 and found.comparison.difference.n == 8
    assert found.comparison.difference.mean == pytest.approx(0.02)


def test_a_grid_takes_all_its_cells_on_every_seed_that_judges():
    question = Question((1.0, 2.0, 3.0, 4.0), seeds=5, epochs=6)
    assert BY_NAME["loop by hand"].needed(question, 10) == 9 * (2 + 10)
    assert BY_NAME["Optuna"].needed(question, 10) == 2 * 8 + 3 * 10
    assert BY_NAME["regbench"].needed(question, 10) == 9 * 2 + 3 * 10


def test_the_loop_answers_the_question(elsewhere, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    found = measure(BY_NAME["loop by hand"], SMALLEST, elsewhere / "loop")
    cells = [["l1", 1e-4, 0], ["none", 0.0, 0], ["weight_decay", 1e-4, 0]]
    assert found.trainings[["reg", "lam", "seed"]].values.tolist() == cells
    assert found.trainings[["val", "test"]].stack().between(0.2, 1).all()
    said = [line.split(":")[0] for line in found.answer.splitlines()]
    assert said == ["none at lam 0", "l1 at lam 0.0001", "weight_decay at lam 0.0001"]
    assert found.seconds > 0 and found.cpu_seconds > 0
    text = page.readme(SMALLEST, {"loop by hand": found}, "python -m benchmarks.comparison")
    assert f"| loop by hand | {found.lines} | 1 | 3 |" in text and f"    {found.answer.splitlines()[1]}" in text
    numbers = json.loads(page.numbers(SMALLEST, {"loop by hand": found}))["contenders"]["loop by hand"]
    assert numbers["trainings"] == 3 and numbers["shown"]["l1"]["verdict"] == "too few seeds"


def test_of_regbenchs_trainings_the_same_is_shown_as_it_says_itself(database, elsewhere, monkeypatch):
    """In this process and with a small network, which its command can be told to take."""
    save = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda _, *args, **kw: save(Figure(figsize=(1, 1)), *args, **kw))
    contender, question = BY_NAME["regbench"], replace(SMALLEST, lams=(1e-4, 1e-2), seeds=4)
    ((_, _, program, command, *arguments),) = contender.started(question)
    assert (program, command) == ("regbench", "sweep")
    with pytest.raises(SystemExit) as stop:
        exit_code.run(sweep.main, [*arguments, f"--model={TINY}", "--train_size=200", "--jobs=1"])
    assert stop.value.code == 0
    found = contender.trainings(elsewhere)
    assert len(found) == 5 * 2 + 3 * 8 and not (found["chooses"] & found["judges"]).any()
    told = pd.read_csv("report/comparisons.csv").set_index("method")
    for reg, result in runs.shown(found).items():
        own, difference = told.loc[f"{reg} scope=all"], result.comparison.difference
        assert (result.lam, str(result.comparison.verdict)) == (own["lam"], own["verdict"])
        assert [difference.mean, difference.low, difference.high] == pytest.approx(
            list(own[["difference", "low", "high"]])
        )
        assert result.noise.pairing == pytest.approx(own["pairing"])
    assert contender.answer(elsewhere).startswith("Without regularization the test accuracy is")


@pytest.mark.parametrize("name", [one.name for one in CONTENDERS if one.packages])
def test_a_contender_that_is_installed_answers_the_question(name, elsewhere):
    contender = BY_NAME[name]
    if contender.missing:
        pytest.skip(f"{', '.join(contender.missing)} not installed: pip install '.[comparison]'")
    found = measure(contender, SMALLEST, elsewhere / "new")
    assert set(found.trainings["reg"]) == {"none", "l1", "weight_decay"}
    assert found.trainings["test"].between(0.1, 1).all() and found.answer


def test_what_is_not_installed_is_named(run_here, elsewhere, monkeypatch):
    absent = replace(BY_NAME["benchopt"], packages=("no-such-package",))
    others = tuple(absent if one.name == "benchopt" else one for one in CONTENDERS)
    for module in (command, page):
        monkeypatch.setattr(module, "CONTENDERS", others)
    code, told = run_here(comparison.main, only="benchopt", out="found")
    assert code == 0
    assert "benchopt: not installed (no-such-package); pip install -e '.[comparison]'" in told
    assert "since no-such-package is not installed: benchopt" in (elsewhere / "found" / "README.md").read_text()
    assert json.loads((elsewhere / "found" / "measurements.json").read_text())["contenders"] == {}


def test_a_command_that_fails_is_told_with_its_last_line(elsewhere):
    broken = replace(BY_NAME["loop by hand"], commands=("python -c 'raise SystemExit(\"no way\")'",))
    with pytest.raises(UserError, match=r"loop by hand ended with exit code 1 \(no way\)"):
        measure(broken, SMALLEST, elsewhere / "new")


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (
            {"only": "loop,weka"},
            "only='loop,weka': 'weka' is unknown; accepted: loop, benchopt, hydra, optuna, regbench",
        ),
        ({"lam": "1e-4,,x"}, "lam='1e-4,,x': give different numbers above 0"),
        ({"lam": "1e-4,1e-4"}, "lam='1e-4,1e-4': give different numbers above 0"),
        ({"folder": "."}, "folder='.' is there already"),
    ],
)
def test_a_mistake_is_told_before_anything_is_trained(given, told, elsewhere, capsys):
    with pytest.raises(SystemExit) as stop:
        exit_code.run(comparison.main, [f"--{name}={value}" for name, value in given.items()])
    assert stop.value.code == 2 and told in capsys.readouterr().err
    assert not list(elsewhere.iterdir())
