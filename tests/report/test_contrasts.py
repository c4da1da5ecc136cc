"""Regularizers against each other: which pairs of trainings a comparison is of, and what is said of many."""

import dataclasses
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regbench.report import build, tables
from regbench.report.analysis import analyse
from regbench.report.headline import headline
from regbench.report.inputs import Material
from regbench.report.load import Runs
from regbench.report.render import render
from regbench.report.text import percent
from regbench.statistics.verdict import Verdict
from tests.report.sweeps import fresh, grid

WAVE = np.array([0.3, -0.2, 0.1, -0.3, 0.2, -0.1, 0.25, -0.25, 0.15, -0.15] * 2)


def material(runs: Runs) -> Material:
    return Material(
        runs, analyse(runs), pd.DataFrame(columns=["run_id", "method", "lam", "seed", "epoch"]), pd.DataFrame()
    )


def section(runs: Runs) -> str:
    return render(material(runs), []).partition("## Regularizers against each other\n")[2].partition("\n## ")[0]


def test_a_pair_is_of_the_seeds_on_which_both_were_trained():
    """One that was settled early has the fewer; `none` has no part in it."""
    found = analyse(fresh({"l1": 2 + WAVE[:12], "l2": 1 - WAVE}, none=70 + 5 * WAVE)).contrasts
    ((names, (comparison, pairs)),) = found.items()
    assert names == ("l1", "l2")
    assert (comparison.verdict, comparison.looked, pairs.planned) == (Verdict.BETTER, 12, 20)
    assert pairs.own - pairs.other == pytest.approx((1 + 2 * WAVE[:12]) / 100)
    assert pairs.own == pytest.approx((72 + 6 * WAVE[:12]) / 100)


def test_trainings_that_come_after_the_look_are_not_part_of_a_pair():
    found = analyse(fresh({"l1": [2.0] * 12, "l2": [0.0, 1.0] * 7}, planned=20)).contrasts["l1", "l2"]
    assert (found.comparison.looked, len(found.pairs), found.pairs.ended) == (12, 12, 12)
    early = analyse(fresh({"l1": [2.0] * 11, "l2": [0.0, 1.0] * 7}, planned=20)).contrasts["l1", "l2"]
    assert (early.comparison.verdict, early.comparison.looked, len(early.pairs)) == (Verdict.TOO_FEW, 0, 11)


@pytest.mark.parametrize(("status", "count", "verdict"), [("FAILED", 11, "better"), ("RUNNING", 5, "too few seeds")])
def test_what_failed_is_not_counted_and_what_runs_is_waited_for(status, count, verdict):
    """As in comparisons with none, whichever of the two it is."""
    values = [*[2.0] * 5, np.nan, *[2.0] * 6]
    for family in ({"l1": values, "l2": [0.0] * 12}, {"l2": [0.0] * 12, "l1": values}):
        others = [("l1 seed=8", "l1", 1e-4, 8, status, "", "")]
        ((names, found),) = analyse(fresh(family, others=others)).contrasts.items()
        assert len(found.pairs) == count
        assert found.comparison.verdict == (verdict if names[0] == "l1" else verdict.replace("better", "worse"))


def test_a_collapsed_training_counts():
    found = analyse(fresh({"l1": [-62.0, *[0.0] * 11], "l2": [0.0] * 12})).contrasts["l1", "l2"]
    assert found.pairs.own[0] == pytest.approx(0.08)
    assert found.comparison.difference.mean == pytest.approx(-0.62 / 12)


def test_seeds_that_chose_one_of_two_lams_do_not_judge_the_pair():
    runs = fresh({"l1": [9.0] * 2 + [0.0] * 18, "l2": [0.0] * 18 + [9.0] * 2})
    runs = dataclasses.replace(runs, chosen_on={"l1": frozenset({3, 4}), "l2": frozenset({21, 22})})
    found = analyse(runs).contrasts["l1", "l2"]
    assert (found.pairs.planned, found.comparison.difference.mean) == (16, 0.0)


def test_a_grid_alone_is_judged_on_the_seeds_that_did_not_choose():
    none = [70.0] * 12
    runs = grid({"none": {0.0: none}, "l1": {0.1: [72.0] * 12}, "l2": {0.1: [70.0] * 12, 0.2: [60.0] * 12}})
    found = analyse(runs).contrasts["l1", "l2"]
    assert (found.comparison.verdict, len(found.pairs)) == (Verdict.BETTER, 9)


@pytest.mark.parametrize(
    "runs",
    [
        fresh({"l1": [1.0] * 12}),
        grid({"none": {0.0: [70.0] * 4}, "l1": {0.1: [72.0] * 4, 0.2: [70.0] * 4}, "l2": {0.1: [70.0] * 4}}),
        grid({"l1": {0.1: [72.0] * 12}, "l2": {0.1: [70.0] * 12}}),
    ],
    ids=["one method", "no fresh seeds", "no none"],
)
def test_where_there_is_nothing_to_compare_there_is_no_section(runs):
    assert analyse(runs).contrasts == {}
    assert section(runs) == ""


def test_the_table_adds_up_and_says_what_a_verdict_is_of():
    shown = section(fresh({"l1": 2.003 + WAVE[:12], "l2": 1 - WAVE}, none=70 + 5 * WAVE))
    assert "| `l1` | `l2` | 12 | 72.05% | 71.03% | +1.02 | +0.68 to +1.36 (97 %) | 0.001 | better |" in shown
    assert "Verdict: on the first of the two." in shown
    assert "beside the 5 % of the comparisons with `none`" in shown
    assert "Too few seeds" not in shown
    assert "| too few seeds |\n\n" in section(fresh({"l1": [2.0] * 12, "l2": 1.8 + 3 * WAVE}, planned=20))


def family(count: int) -> dict[str, list[float]]:
    """Methods of which the first is worse by far, and the others differ from each other by nothing that can be shown."""
    noise = np.random.default_rng(0).normal(0, 3, (count, 12)).round(2)
    return {f"m{index}": (row - (30 if index == 0 else 0)).tolist() for index, row in enumerate(noise)}


def test_of_many_pairs_those_that_are_settled_are_listed_and_all_are_in_the_file(tmp_path):
    six, seven = fresh(family(6)), fresh(family(7))
    assert len(tables.contrasts(analyse(six)).splitlines()) == 2 + 15
    assert "of 15" not in section(six)
    listed = tables.contrasts(analyse(seven)).splitlines()[2:]
    assert [row.split(" | ")[:2] for row in listed] == [["| `m0`", f"`m{index}`"] for index in range(1, 7)]
    assert "6 pairs of 21: those that are told apart, or equivalent. All are in `pairs.csv`." in section(seven)
    build.write([material(seven)], tmp_path)
    table = pd.read_csv(tmp_path / "pairs.csv")
    assert list(zip(table["method"], table["other"], strict=True)) == list(combinations(family(7), 2))
    assert table["verdict"].value_counts().to_dict() == {"no difference shown": 15, "worse": 6}
    quiet = fresh({name: values for name, values in family(8).items() if name != "m0"})
    assert tables.contrasts(analyse(quiet)) == ""
    assert "0 pairs of 21" in section(quiet)


def test_the_headline_names_the_largest_differences_the_better_one_first():
    gains = {"a": 0.0, "b": 4.0, "c": 1.0, "d": 9.0}
    runs = fresh({name: gain + WAVE[:12] * (1 + index) for index, (name, gain) in enumerate(gains.items())}, planned=12)
    shown = headline(runs, analyse(runs))
    start = shown.index("Against each other: ")
    names = [("d", "a", 9.0), ("d", "c", 8.0), ("d", "b", 5.0)]
    for part, (better, worse, gain) in zip(shown[start:].split("; "), names, strict=False):
        assert f"`{better}` is better than `{worse}` by {gain:.1f}" in part
    assert shown[start:].count("is better") == 3
    assert shown.endswith("; 3 more pairs are told apart.")


def test_a_difference_within_the_margin_is_not_in_the_headline():
    runs = fresh({"a": 0.1 + WAVE[:12] / 10, "b": WAVE[:12] / 10})
    found = analyse(runs).contrasts["a", "b"].comparison
    assert (found.verdict, found.trivial) == (Verdict.BETTER, True)
    assert "Against each other" not in headline(runs, analyse(runs))
    assert "better, but within the margin" in section(runs)


@settings(deadline=None, max_examples=12)
@given(st.lists(st.lists(st.integers(-300, 300), min_size=12, max_size=12), min_size=2, max_size=3))
def test_a_sentence_and_its_table_say_the_same_of_any_differences(values):
    """The winner's gain is positive and inside its interval; the means of the pairs differ by the difference."""
    runs = fresh({f"m{index}": [value / 100 for value in row] for index, row in enumerate(values)})
    analysis, lines = analyse(runs), section(runs).splitlines()
    for (first, second), (comparison, pairs) in analysis.contrasts.items():
        own, other = pairs.means
        assert comparison.difference.mean == pytest.approx(own - other, abs=1e-12)
        row = next(line for line in lines if line.startswith(f"| `{first}` | `{second}`"))
        assert f"| {percent(own)} | {percent(other)} |" in row
    for sentence in headline(runs, analysis).partition("Against each other: ")[2].split("; "):
        if "is better" in sentence:
            gain, low, high = (float(sentence.partition(start)[2].split()[0].strip("+)."))
                               for start in (" by ", "interval ", " to "))  # fmt: skip
            assert 0 <= low <= gain <= high
