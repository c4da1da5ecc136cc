"""The report from frames: a golden text, and what it says of partial, failed and strange runs."""

import dataclasses
import math
import re
import subprocess
import sys

import matplotlib
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regbench.errors import UserError
from regbench.report import build, figures, output, tables
from regbench.report import render as render_module
from regbench.report import text as markdown
from regbench.report.analysis import TEST, VALIDATION, analyse
from regbench.report.figures import _front, prune_curves
from regbench.report.render import render
from regbench.statistics.paired import Interval
from regbench.statistics.power import seeds_for
from regbench.statistics.verdict import Verdict
from tests.conftest import PROJECT
from tests.report.make_fixture import HERE, material
from tests.test_matplotlib_defaults import SETTINGS


@pytest.fixture(scope="module")
def fixture():
    return material()


def with_trials(fixture, trials: pd.DataFrame):
    runs = dataclasses.replace(fixture.runs, trials=trials.reset_index(drop=True))
    outputs = {method: w for method, w in fixture.outputs.items() if method in set(trials["method"])}
    return dataclasses.replace(fixture, runs=runs, analysis=analyse(runs), outputs=outputs)


def text(material) -> str:
    return render(material, [])


def test_the_golden_report(fixture, tmp_path):
    """Committed runs give the committed text, all files are there, and a second time, with other settings of
    matplotlib's, gives the same bytes."""
    first, second = tmp_path / "one", tmp_path / "two"
    assert build.write([fixture], first).read_text() == (HERE / "report.md").read_text()
    with matplotlib.rc_context(SETTINGS):
        build.write([fixture], second)
    files = sorted(path.relative_to(first) for path in first.rglob("*") if path.is_file())
    names = {str(path) for path in files}
    assert {f"figures/{name}{suffix}" for name in figures.FIGURES for suffix in (".png", ".svg")} <= names
    assert {f"{name}.csv" for name in ("trials", "cells", "comparisons", "epochs", "layers")} <= names
    for path in files:
        assert (first / path).read_bytes() == (second / path).read_bytes(), path


@pytest.mark.usefixtures("quick")
def test_a_folder_that_is_used_again_holds_the_files_of_the_last_report_only(fixture, tmp_path):
    build.write([fixture], tmp_path)
    (tmp_path / "figures" / "mine.png").write_text("mine")
    (tmp_path / "figures" / "forest.svg").write_text("my own forest")  # changed since: no longer regbench's
    build.write([with_trials(fixture, fixture.runs.trials[fixture.runs.trials["method"] == "none"])], tmp_path)
    names = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert names == {*output.written(tmp_path), output.LIST, "figures/mine.png", "figures/forest.svg"}
    assert "figures/forest.png" not in names


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("name", ["report.md", "trials.csv", "figures/forest.png"])
@pytest.mark.parametrize("kind", ["file", "link", "changed"])
def test_what_regbench_has_not_written_is_not_overwritten(fixture, tmp_path, name, kind):
    place, mine = tmp_path / "out", tmp_path / "mine"
    mine.write_text("mine")
    if kind == "changed":
        build.write([fixture], place)
        (place / name).write_text("mine")
    else:
        (place / name).parent.mkdir(parents=True)
        (place / name).symlink_to(mine) if kind == "link" else (place / name).write_text("mine")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(UserError, match=f"{name} is not as regbench has written it .*: move it away, or give another"):
        build.write([fixture], place)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    (place / name).unlink()
    build.write([fixture], place)


@pytest.mark.usefixtures("quick")
def test_a_report_that_was_cut_off_or_is_older_than_the_list_of_files_is_written_again(fixture, tmp_path, monkeypatch):
    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(build, "render", fail)
        with pytest.raises(KeyboardInterrupt):
            build.write([fixture], tmp_path)
    build.write([fixture], tmp_path)
    (tmp_path / output.LIST).unlink()
    build.write([fixture], tmp_path)


def test_the_order_of_runs_does_not_change_what_is_said(fixture):
    """But for the order of methods, which is that in which they were first trained."""
    trials = fixture.runs.trials
    order = {name: place for place, name in enumerate(dict.fromkeys(trials["method"]))}
    shuffled = trials.sample(frac=1, random_state=0)
    shuffled = shuffled.iloc[shuffled["method"].map(order).argsort(kind="stable")]
    assert text(with_trials(fixture, shuffled)) == text(fixture)


def test_the_verdicts_of_the_fixture(fixture):
    verdicts = {method: found.verdict for method, found in fixture.analysis.comparisons.items()}
    assert verdicts == {
        "l1": Verdict.BETTER, "l2": Verdict.EQUIVALENT, "weight_decay": Verdict.EQUIVALENT,
        "my|prox <b>": Verdict.WORSE, "dropout": Verdict.NO_DIFFERENCE, "elastic_net": Verdict.TOO_FEW,
    }  # fmt: skip


def test_what_is_left_out_is_named(fixture):
    shown = text(fixture)
    assert "l2 lam=1e-2 takes no part in the choice of lam: no usable result for seed 2, 1 diverged." in shown
    assert "l2 lam=1e-4 was chosen before trials arrived that would choose lam=1e-3; the choice stands." in shown
    assert "group\\_lasso is not compared: no lam of it was chosen." in shown
    assert (
        "dropout: 1 of 20 fresh trainings collapsed or diverged (seed 9); it counts with the accuracy reached." in shown
    )
    assert "4 diverged: `group_lasso lam=0.1 seed=0`" in shown
    assert "2 collapsed" in shown
    assert "1 FAILED (RuntimeError: out of \\| memory &lt;b&gt;)" in shown


def rows(shown: str, heading: str) -> list[dict[str, str]]:
    """Return the rows of the table under a heading, by the names of its columns."""
    lines = shown.partition(f"## {heading}")[2].split("\n\n")[1].splitlines()
    header, _, *cells = ([cell.strip() for cell in line[1:-1].replace("\\|", "!").split("|")] for line in lines)
    return [dict(zip(header, row, strict=True)) for row in cells]


def test_what_the_table_shows_adds_up(fixture):
    """Test minus none is the difference, which is inside its interval, of so many seeds as the comparison is of."""
    found = list(fixture.analysis.comparisons.values())
    _, early, *shown = rows(text(fixture), "Each regularizer at its chosen lam")
    assert len(shown) == len(found) == 6
    assert early["difference, pp"] == f"{float(early['test'].strip('%')) - float(early['`none`'].strip('%')):+.2f}"
    for row, comparison in zip(shown, found, strict=True):
        test, none = (float(row[name].strip("*%")) for name in ("test", "`none`"))
        assert f"{test - none:+.2f}" == row["difference, pp"]
        low, high = (float(bound) for bound in row["interval"].partition(" (")[0].split(" to "))
        assert low <= float(row["difference, pp"]) <= high
        assert int(row["seeds"]) == comparison.difference.n


def test_bold_is_the_best_and_what_is_not_shown_to_be_worse(fixture):
    comparison = fixture.analysis.comparisons["l1"]

    def best(**intervals: tuple[float, float, float]) -> set[str]:
        return tables.best({
            name: dataclasses.replace(comparison, difference=Interval(mean, low, high, 8, 0.95))
            for name, (mean, low, high) in intervals.items()
        })  # fmt: skip

    assert best(a=(0.02, 0.01, 0.03), b=(0.01, -0.02, 0.04), c=(0.009, 0.008, 0.01)) == {"a", "b"}
    assert best(a=(0.02, -0.01, 0.05), b=(-0.01, -0.02, 0.0)) == {"a", "b", "none"}
    assert best(a=(-0.02, -0.05, 0.0), b=(-0.01, -0.02, -0.005)) == {"none", "a"}
    assert best(a=(0.02, -math.inf, math.inf), b=(math.nan, -math.inf, math.inf)) == {"none", "a"}
    assert best() == {"none"}


def test_the_noise_is_each_regularizers_own(fixture):
    """The one that collapses once has a spread of its own; the others' are as if it were not there."""
    shown = {row["regularizer"]: row for row in rows(text(fixture), "How large the noise is")}
    assert float(shown["`dropout`"]["spread, pp"]) > 10
    without = with_trials(fixture, fixture.runs.trials[fixture.runs.trials["method"] != "dropout"])
    alone = {row["regularizer"]: row for row in rows(text(without), "How large the noise is")}
    for name in ("`l1`", "`l2`", "`elastic_net`"):
        for column in ("spread, pp", "correlation", "pairing"):
            assert shown[name][column] == alone[name][column]
    pairs = fixture.analysis.pairs["l1"]
    assert shown["`l1`"]["spread, pp"] == f"{100 * np.std(pairs.own - pairs.other, ddof=1):.2f}"
    seeds = seeds_for(0.005, np.std(pairs.own - pairs.other, ddof=1), 6)
    assert shown["`l1`"]["0.5 pp"] == f"{seeds} ({seeds * 63 / 60:.0f} min)"


def test_measures_and_files_are_those_of_the_fresh_seeds(fixture):
    analysis = fixture.analysis
    assert analysis.shown["l1"] == tuple(range(3, 15))
    assert set(analysis.at_chosen(fixture.epochs, "l1")["seed"]) == set(range(3, 15))
    assert analysis.cell("elastic_net")["n"] == 14


def test_five_seeds_of_a_grid_give_no_verdict(fixture):
    trials = fixture.runs.trials
    runs = dataclasses.replace(
        fixture.runs, trials=trials[trials["stage"] == "grid"].reset_index(drop=True), confirm=(), looks=(), choice={}
    )
    shown = text(dataclasses.replace(fixture, runs=runs, analysis=analyse(runs)))
    assert "3 seeds cannot both choose lam and judge the choice" in shown
    assert "helped" not in shown
    assert "nan" not in shown


@settings(deadline=None, max_examples=20)
@given(st.data())
def test_any_part_of_a_sweep_gives_a_report(fixture, data):
    """As a filter, an interruption or another program's runs may leave it; what is not known is never shown as nan."""
    trials, runs = fixture.runs.trials, fixture.runs
    keep = np.random.default_rng(data.draw(st.integers(0, 99))).random(len(trials))
    trials = trials[keep < data.draw(st.sampled_from([0.05, 0.3, 0.7, 1.0]))]
    trials = trials[~trials["method"].isin(data.draw(st.sets(st.sampled_from(["none", "l1", "l2"]))))]
    trials = trials[trials["stage"].isin(data.draw(st.sampled_from([["grid"], ["confirm"], ["grid", "confirm"]])))]
    trials = trials.drop(columns=data.draw(st.sets(st.sampled_from([VALIDATION, TEST, "time/trial"]))))
    if data.draw(st.booleans()):
        runs, trials = dataclasses.replace(runs, confirm=(), looks=(), choice={}), trials.assign(stage="grid")
    choice = {method: lam for method, lam in runs.choice.items() if data.draw(st.booleans())}
    shown = text(with_trials(dataclasses.replace(fixture, runs=dataclasses.replace(runs, choice=choice)), trials))
    assert not re.search(r"\b(nan|inf|None)\b", shown)


def test_only_none(fixture, tmp_path):
    only = with_trials(fixture, fixture.runs.trials[fixture.runs.trials["method"] == "none"])
    assert only.analysis.comparisons == {}
    assert "**Nothing is compared here.**" in build.write([only], tmp_path).read_text()


def test_runs_from_before_a_measure_existed_give_a_report_without_it(fixture, tmp_path):
    new = ("theoretical_speedup", "sparsity_at_1pp", "prune/")
    trials = fixture.runs.trials
    old = with_trials(fixture, trials.drop(columns=[name for name in trials if name.startswith(new)]))
    names = ("sparsity/rel_1e-2", "sparsity/filters", "sparsity/neurons", "gini", "n_eff")
    old = dataclasses.replace(old, layers=old.layers.drop(columns=list(names)))
    shown = build.write([old], tmp_path).read_text()
    assert "nan" not in shown
    assert "prune_curves" not in shown
    assert not (tmp_path / "figures" / "prune_curves.png").exists()
    assert "| 0.00% | 1.00 | - | - | +20.00 | 30.0 |" in shown
    assert "| `none` | `conv1.weight` | 432 | 0.00% | 3.00% | 8.00% | - | - | - | - | 0.250 |" in shown


def test_prune_curves_are_those_of_the_chosen_lams_that_have_one(fixture):
    assert {method for method in fixture.analysis.methods if fixture.analysis.lam(method) is not None} == {
        text.get_text().partition(" lam=")[0] for text in prune_curves(fixture).legends[0].get_texts()
    }
    trials = fixture.runs.trials.copy()
    trials.loc[trials["method"] == "l1", [name for name in trials if name.startswith("prune/")]] = np.nan
    axis = prune_curves(with_trials(fixture, trials)).axes[0]
    assert not any("l1" in text.get_text() for text in axis.figure.legends[0].get_texts())
    line = next(line for line in axis.lines if line.get_label() == "none")
    cell = trials[(trials["method"] == "none") & (trials["stage"] == "confirm")]
    assert line.get_ydata()[1] == pytest.approx(100 * cell["prune/0.5"].mean())
    assert line.get_xdata()[1] == 0.5


def test_no_none(fixture):
    shown = text(with_trials(fixture, fixture.runs.trials[fixture.runs.trials["method"] != "none"]))
    assert "**Nothing is compared here.** There are no trials of none, so nothing is compared." in shown


def test_no_finished_trial(fixture, tmp_path):
    nothing = with_trials(fixture, fixture.runs.trials[:0])
    nothing = dataclasses.replace(nothing, epochs=nothing.epochs[:0], layers=nothing.layers[:0])
    assert "No trial has finished." in build.write([nothing], tmp_path).read_text()


@given(st.text(max_size=40))
def test_any_name_comes_out_escaped(name):
    shown = markdown.escape(name)
    assert "\n" not in shown
    for special in "<>":
        assert special not in shown
    for special in "|`*_[]":
        assert shown.count(special) == shown.count("\\" + special)


@given(st.text(max_size=40))
def test_any_name_in_a_table_keeps_the_table(name):
    (line,) = tables.table(("what",), [(markdown.code(name),)]).splitlines()[2:]
    assert line.replace("\\|", "").count("|") == 2


def test_a_figure_is_registered_by_its_decorator(fixture, monkeypatch):
    """Another one is drawn, and in the report; one that has nothing to draw is in neither."""
    monkeypatch.setattr(figures, "FIGURES", {})
    monkeypatch.setattr(render_module, "FIGURES", figures.FIGURES)

    @figures.figure("Mine of `none`")
    def mine(material):
        return figures.Figure()

    @figures.figure("Nothing")
    def nothing(material):
        return None

    @figures.figure("Of files that are gone", files="layers")
    def gone(material):
        raise AssertionError

    lost = dataclasses.replace(fixture, layers=pd.DataFrame(), missing=("there",))
    assert list(figures.draw(lost)) == ["mine"]
    shown = render(lost, ["mine"])
    assert "![Mine of none](figures/mine.png)\n\n*Mine of `none`.*" in shown
    assert "left out for it: gone." in shown


def test_escaped_names_in_the_whole_report(fixture):
    shown = text(fixture)
    assert "<b>" not in shown
    assert "an \\`experiment\\` \\| of \\[mine\\](../../x)" in shown


def test_the_report_imports_no_torch():
    code = "import sys, regbench.report.build, regbench.commands.report; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=PROJECT, timeout=120, check=False).returncode == 0


def test_the_front_is_what_nothing_beats_in_both():
    cells = pd.DataFrame({"compression_ratio": [1.0, 1.0, 2.0, 4.0, 8.0], "test": [0.7, 0.6, 0.72, 0.5, 0.65]})
    assert _front(cells)[["compression_ratio", "test"]].to_numpy().tolist() == [[2.0, 0.72], [8.0, 0.65]]
