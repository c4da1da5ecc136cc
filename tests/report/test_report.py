"""The report from frames: a golden text, and what it says of partial, failed and strange runs."""

import dataclasses
import subprocess
import sys
from enum import StrEnum
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from regbench.errors import UserError
from regbench.report import build, figures, output, tables, verdict
from regbench.report import render as render_module
from regbench.report import text as markdown
from regbench.report.analysis import analyse
from regbench.report.figures import _front, prune_curves
from regbench.report.render import render
from regbench.report.verdict import Verdict
from tests.conftest import PROJECT
from tests.report.make_fixture import HERE, material
from tests.test_matplotlib_defaults import SETTINGS


@pytest.fixture(scope="module")
def fixture():
    return material()


def with_trials(fixture, trials: pd.DataFrame):
    runs = dataclasses.replace(fixture.runs, trials=trials.reset_index(drop=True))
    weights = {method: w for method, w in fixture.weights.items() if method in set(trials["method"])}
    return dataclasses.replace(fixture, runs=runs, analysis=analyse(runs), weights=weights)


def text(material) -> str:
    return render(material, [])


def test_the_golden_report(fixture, tmp_path):
    """Committed runs give the committed text, all files are there, and a second time, with other settings of
    matplotlib's, gives the same bytes."""
    first, second = tmp_path / "one", tmp_path / "two"
    assert build.write(fixture, first).read_text() == (HERE / "report.md").read_text()
    with matplotlib.rc_context(SETTINGS):
        build.write(fixture, second)
    files = sorted(path.relative_to(first) for path in first.rglob("*") if path.is_file())
    names = {str(path) for path in files}
    assert {f"figures/{name}{suffix}" for name in figures.FIGURES for suffix in (".png", ".svg")} <= names
    assert {f"{name}.csv" for name in ("trials", "cells", "comparisons", "epochs", "layers")} <= names
    for path in files:
        assert (first / path).read_bytes() == (second / path).read_bytes(), path


@pytest.fixture
def quick(monkeypatch):
    """Figures that take no time: of all methods forest, of none alone another."""

    def save(figure: str, folder: Path, name: str) -> None:
        folder.mkdir(exist_ok=True, parents=True)
        for suffix in figures.SUFFIXES:
            (folder / f"{name}{suffix}").write_text(figure)

    monkeypatch.setattr(figures, "save", save)
    monkeypatch.setattr(
        figures, "draw", lambda material: {"forest" if material.analysis.comparisons else "gap_against_lam": "drawn"}
    )


@pytest.mark.usefixtures("quick")
def test_a_folder_that_is_used_again_holds_the_files_of_the_last_report_only(fixture, tmp_path):
    build.write(fixture, tmp_path)
    (tmp_path / "figures" / "mine.png").write_text("mine")
    (tmp_path / "figures" / "forest.svg").write_text("my own forest")  # changed since: no longer regbench's
    build.write(with_trials(fixture, fixture.runs.trials[fixture.runs.trials["method"] == "none"]), tmp_path)
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
        build.write(fixture, place)
        (place / name).write_text("mine")
    else:
        (place / name).parent.mkdir(parents=True)
        (place / name).symlink_to(mine) if kind == "link" else (place / name).write_text("mine")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(UserError, match=f"{name} is not as regbench has written it .*: move it away, or give another"):
        build.write(fixture, place)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    (place / name).unlink()
    build.write(fixture, place)


@pytest.mark.usefixtures("quick")
def test_a_report_that_was_cut_off_or_is_older_than_the_list_of_files_is_written_again(fixture, tmp_path, monkeypatch):
    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(build, "render", fail)
        with pytest.raises(KeyboardInterrupt):
            build.write(fixture, tmp_path)
    build.write(fixture, tmp_path)
    (tmp_path / output.LIST).unlink()
    build.write(fixture, tmp_path)


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
        "l1": Verdict.BETTER, "l2": Verdict.BETTER, "weight_decay": Verdict.EQUIVALENT,
        "my|prox <b>": Verdict.NO_DIFFERENCE,
    }  # fmt: skip


def test_a_verdict_that_the_template_has_no_sentence_for_is_named(fixture, monkeypatch):
    """So that another rule in verdict.py needs no other change."""
    more = {verdict.name: verdict.value for verdict in Verdict} | {"PROBABLY": "probably better"}
    monkeypatch.setattr(verdict, "Verdict", StrEnum("Verdict", more))
    found = fixture.analysis.comparisons
    other = dataclasses.replace(found["l2"], verdict="probably better")
    analysis = dataclasses.replace(fixture.analysis, comparisons=found | {"l2": other})
    shown = text(dataclasses.replace(fixture, analysis=analysis))
    assert "Probably better: `l2` (+0.19 to +0.65)." in shown.split("\n\n")[1]
    assert "| probably better |" in shown


def test_what_is_left_out_is_named(fixture):
    shown = text(fixture)
    assert "l2 lam=1e-2 takes no part in the choice of lam: no usable result for seed 3, 1 diverged" in shown
    assert "1 diverged: `l2 lam=0.01 seed=3`" in shown
    assert "2 collapsed" in shown
    assert "1 FAILED (RuntimeError: out of \\| memory &lt;b&gt;)" in shown
    assert "The numbers of lams differ" in shown


def test_a_partial_sweep_is_compared_on_whole_seeds(fixture):
    trials = fixture.runs.trials
    cut = trials[(trials["seed"] < 7) | trials["method"].isin(["none"])]
    analysis = with_trials(fixture, cut).analysis
    assert analysis.seeds == tuple(range(7))
    assert any("Seeds left out" in note and note.endswith(": 7.") for note in analysis.notes)


def test_five_seeds_are_exploratory(fixture):
    shown = text(with_trials(fixture, fixture.runs.trials[fixture.runs.trials["seed"] < 5]))
    assert "**Exploratory.**" in shown
    assert "5 seeds are too few for a verdict on" in shown
    assert "helped" not in shown


def test_one_seed(fixture):
    shown = text(with_trials(fixture, fixture.runs.trials[fixture.runs.trials["seed"] == 0]))
    assert "1 seed is too few for a verdict on" in shown
    assert "nan" not in shown


def test_one_regularizer_and_one_lam(fixture):
    trials = fixture.runs.trials
    analysis = with_trials(fixture, trials[(trials["method"] == "none") | (trials["lam"] == 1e-4)]).analysis
    assert analysis.comparisons["l1"].selection.edge == "only"


def test_only_none(fixture, tmp_path):
    only = with_trials(fixture, fixture.runs.trials[fixture.runs.trials["method"] == "none"])
    assert only.analysis.comparisons == {}
    assert "**Nothing is compared here.**" in build.write(only, tmp_path).read_text()


def test_runs_from_before_a_measure_existed_give_a_report_without_it(fixture, tmp_path):
    new = ("theoretical_speedup", "sparsity_at_1pp", "prune/")
    trials = fixture.runs.trials
    old = with_trials(fixture, trials.drop(columns=[name for name in trials if name.startswith(new)]))
    names = ("sparsity/rel_1e-2", "sparsity/filters", "sparsity/neurons", "gini", "n_eff")
    old = dataclasses.replace(old, layers=old.layers.drop(columns=list(names)))
    shown = build.write(old, tmp_path).read_text()
    assert "nan" not in shown
    assert "prune_curves" not in shown
    assert not (tmp_path / "figures" / "prune_curves.png").exists()
    assert "| 0.00% | 1.00 | - | - | +20.00 | 30.0 |" in shown
    assert "| `none` | `conv1.weight` | 432 | 0.00% | 3.00% | 8.00% | - | - | - | - | 0.250 |" in shown


def test_prune_curves_are_those_of_the_chosen_lams_that_have_one(fixture):
    assert {method for method in fixture.analysis.methods if fixture.analysis.chosen(method) is not None} == {
        text.get_text().partition(" lam=")[0] for text in prune_curves(fixture).axes[0].get_legend().get_texts()
    }
    trials = fixture.runs.trials.copy()
    trials.loc[trials["method"] == "l1", [name for name in trials if name.startswith("prune/")]] = np.nan
    axis = prune_curves(with_trials(fixture, trials)).axes[0]
    assert not any("l1" in text.get_text() for text in axis.get_legend().get_texts())
    line = next(line for line in axis.lines if line.get_label() == "none")
    cell = trials[trials["method"] == "none"]
    assert line.get_ydata()[1] == pytest.approx(100 * cell["prune/0.5"].mean())
    assert line.get_xdata()[1] == 0.5


def test_no_none(fixture):
    shown = text(with_trials(fixture, fixture.runs.trials[fixture.runs.trials["method"] != "none"]))
    assert "**Nothing is compared here.** There are no trials of none, so nothing is compared." in shown


def test_no_finished_trial(fixture, tmp_path):
    nothing = with_trials(fixture, fixture.runs.trials[:0])
    nothing = dataclasses.replace(nothing, epochs=nothing.epochs[:0], layers=nothing.layers[:0])
    assert "No trial has finished." in build.write(nothing, tmp_path).read_text()


def test_without_validation_several_lams_are_not_compared_and_one_is(fixture):
    trials = fixture.runs.trials.drop(columns="val/accuracy")
    several = with_trials(fixture, trials).analysis
    assert several.comparisons == {}
    assert any("it has no validation accuracy" in note for note in several.notes)
    single = with_trials(fixture, trials[(trials["method"] == "none") | (trials["lam"] == 1e-4)])
    assert "l1" in single.analysis.comparisons
    assert "nan" not in text(single)


def test_the_chance_to_see_a_gain_goes_with_the_spread_seen(fixture):
    """Twice the spread: the same chances belong to gains twice as large."""
    trials = fixture.runs.trials
    trials = trials[trials["method"].isin(["none", "l1"]) & trials["lam"].isin([0.0, 1e-5])].copy()
    before = with_trials(fixture, trials).analysis.paired_sd
    base = trials[trials["method"] == "none"].set_index("seed")["test/accuracy"]
    shifted = trials["test/accuracy"] - trials["seed"].map(base)
    trials["test/accuracy"] = trials["seed"].map(base) + shifted.mean() * 2 + 2 * (shifted - shifted.mean())
    trials.loc[trials["method"] == "none", "test/accuracy"] = base.to_numpy()
    after = with_trials(fixture, trials)
    assert after.analysis.paired_sd == pytest.approx(2 * before)
    assert f"standard deviation of {200 * before:.2f} pp" in text(after)


def test_lam_is_chosen_on_validation_and_not_on_test(fixture):
    trials = fixture.runs.trials.copy()
    trials.loc[(trials["method"] == "l1") & (trials["lam"] == 1e-4), "test/accuracy"] = 0.99
    assert with_trials(fixture, trials).analysis.chosen("l1") == 1e-5


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
