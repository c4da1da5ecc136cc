"""Accuracies over the share of zeroed weights: of networks pruned after training beside those of pruning regularizers."""

import dataclasses
import json
import re

import numpy as np
import pandas as pd
import pytest

from regbench.regularizers import REGISTRY
from regbench.report import pruning
from regbench.report.analysis import analyse
from regbench.report.figures import FIGURES
from regbench.report.inputs import Material
from regbench.report.interactive import charts
from regbench.report.render import render
from tests import golden
from tests.report.make_fixture import material
from tests.report.test_report import rows, text, with_trials

SHARES = {1e-4: 0.7, 1e-3: 0.9}


def renamed(trials: pd.DataFrame, name: str, sparsity: float) -> pd.DataFrame:
    """Return a regularizer's grid as of one that prunes: of l2's lams, in which so much more than lam is zero."""
    own = trials[(trials["method"] == "l2") & (trials["stage"] == "grid") & trials["lam"].isin(list(SHARES))]
    lams = own["lam"].map(SHARES)
    numbers = own["run_id"] + f"-{name}"
    return own.assign(method=name, regularizer=name, lam=lams, run_id=numbers, **{"sparsity/exact": lams + sparsity})


@pytest.fixture(scope="module")
def found() -> Material:
    fixture = material()
    trials = fixture.runs.trials
    return with_trials(fixture, pd.concat([trials, renamed(trials, "one_shot", 0.001), renamed(trials, "mine", 0.05)]))


def accuracies(found: Material, name: str) -> dict[float, float]:
    own = found.runs.trials[(found.runs.trials["method"] == name) & (found.runs.trials["stage"] == "grid")]
    return own.groupby("lam")["test/accuracy"].mean().to_dict()


def test_a_regularizer_prunes_if_its_lam_is_what_is_zero_in_every_cell(found):
    curves = {curve.method: curve for curve in pruning.curves(found.analysis)}
    assert curves["one_shot"].lam is None
    assert curves["one_shot"].accuracies == pytest.approx(accuracies(found, "one_shot"))
    assert curves["l1"].lam == 1e-5 and list(curves["l1"].accuracies) == [0, 0.5, 0.8, 0.9, 0.95, 0.98, 0.99]
    assert curves.keys() == {*found.analysis.comparisons, "none", "one_shot"}  # `mine` was chosen at no lam


def test_of_the_packaged_ones_those_prune_that_ask_for_zeros():
    """By what they come to in the committed results, each at its largest lam."""
    results = json.loads(golden.PLACE.read_text())["results"]
    told = {}
    for trial, numbers in results.items():
        _, name, lam = re.match(r"(\S+) (\S+)(?: lam=(\S+))?", trial).groups()
        cell = pd.DataFrame({"lam": [float(lam or 0)], "sparsity/exact": numbers["sparsity/exact"]})
        told.setdefault(name, set()).add(pruning.prunes(cell))
    assert told == {name: {cls.has("target_sparsity")} for name, cls in REGISTRY.items()}


def test_what_is_not_known_is_left_out(found):
    assert not pruning.prunes(pd.DataFrame({"lam": [0.5], "sparsity/exact": [np.nan]}))
    trials = found.runs.trials.copy()
    trials.loc[(trials["method"] == "one_shot") & (trials["lam"] == 0.9), "outcome"] = "diverged"
    lost = with_trials(found, trials)
    (curve,) = [curve for curve in pruning.curves(lost.analysis) if curve.method == "one_shot"]
    assert list(curve.accuracies) == [0.7]
    without = trials.drop(columns=[name for name in trials if name.startswith("prune/")])
    assert [curve.method for curve in pruning.curves(with_trials(found, without).analysis)] == ["one_shot"]
    untested = with_trials(found, without.drop(columns="test/accuracy"))
    assert pruning.curves(untested.analysis) == [] and FIGURES["prune_curves"].draw(untested) is None
    assert charts(untested, ["prune_curves"]) == {} and "With fewer weights" not in text(untested)
    nothing = dataclasses.replace(found.runs, trials=trials[:0])
    assert pruning.curves(analyse(nothing)) == []


def test_the_table_has_a_column_for_each_share(found):
    shown = {row["regularizer"]: row for row in rows(text(found), "With fewer weights")}
    assert [name for name in shown["`none`"] if name.endswith(" %")] == [
        f"{share} %" for share in (0, 50, 70, 80, 90, 95, 98, 99)
    ]
    cells = found.analysis.cells
    own, cell = shown["`one_shot`"], cells[(cells["method"] == "l1") & (cells["lam"] == 1e-5)].iloc[0]
    assert cell["prune/0.9"] != found.analysis.cell("l1")["prune/0.9"]  # which is over fresh seeds
    assert (own["lam"], own["zeroed"], own["0 %"]) == ("the share", "then trained", "")
    assert own["70 %"] == f"{100 * accuracies(found, 'one_shot')[0.7]:.2f}%"
    assert (shown["`l1`"]["lam"], shown["`l1`"]["zeroed"]) == ("1e-5", "after training")
    assert float(shown["`l1`"]["90 %"].strip("%")) == pytest.approx(100 * cell["prune/0.9"], abs=0.006)
    assert "Then trained: the regularizer zeroes this share by itself" in text(found)
    assert "Then trained" not in text(material())


def test_the_figure_stands_beside_the_table(found):
    report = render(found, list(FIGURES))
    section = report.partition("## With fewer weights\n\n")[2]
    assert report.count("figures/prune_curves.png") == 1
    assert section.startswith("![Test accuracy against the share of zeroed weights, means over seeds](")


def test_in_the_figure_and_the_chart_they_are_dashed_and_hollow(found):
    axis = FIGURES["prune_curves"].draw(found).axes[0]
    lines = {line.get_label(): line for line in axis.lines}
    own, other = lines["one_shot, then trained"], lines["l1 lam=1e-5"]
    assert (own.get_linestyle(), own.get_markerfacecolor(), other.get_linestyle()) == ("--", "white", "-")
    assert own.get_xdata() == pytest.approx([0.3, 0.1])
    assert own.get_ydata() == pytest.approx([100 * value for value in accuracies(found, "one_shot").values()])
    assert "dashed" in axis.get_xlabel()
    assert "dashed" not in FIGURES["prune_curves"].draw(material()).axes[0].get_xlabel()

    (chart,) = charts(found, ["prune_curves"])["prune_curves"]
    table = chart.tables["table"]
    trained = table[table["trained"] == 1]
    assert set(trained["regularizer"]) == {"one_shot"} and list(trained["lam"]) == ["0.7", "0.9"]
    assert trained["value"].to_numpy() == pytest.approx(own.get_ydata())
    dashes = {
        layer["mark"]["strokeDash"][1]: layer["transform"]
        for layer in chart.spec["layer"]
        if "strokeDash" in layer["mark"]
    }
    assert dashes == {0: [{"filter": "datum.trained == 0"}], 3: [{"filter": "datum.trained == 1"}]}
    assert "Dashed" in chart.caption and "Dashed" not in charts(material(), ["prune_curves"])["prune_curves"][0].caption
