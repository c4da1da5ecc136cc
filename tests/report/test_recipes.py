"""Recipes side by side: what they are called, the report on all, and whether what a regularizer does depends on them."""

import dataclasses
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from regbench.report import build, figures, output
from regbench.report.analysis import analyse
from regbench.report.inputs import Material
from regbench.report.interactions import interactions
from regbench.report.load import Runs
from regbench.report.recipes import differing, sides
from regbench.report.render import render_overview
from regbench.report.text import bounds
from regbench.statistics.paired import Interval
from regbench.statistics.verdict import Verdict
from tests.report.sweeps import RECIPE, fresh, grid

WAVE = np.array([0.3, -0.2, 0.1, -0.3, 0.2, -0.1, 0.25, -0.25, 0.15, -0.15] * 2)
NAMES = ("0123456789ab", "123456789abc", "23456789abcd", "3456789abcde", "456789abcdef")


def material(runs: Runs, name: str = NAMES[0], **recipe: str) -> Material:
    runs = dataclasses.replace(runs, recipe=RECIPE | recipe, recipe_id=name)
    return Material(
        runs, analyse(runs), pd.DataFrame(columns=["run_id", "method", "lam", "seed", "epoch"]), pd.DataFrame()
    )


def at_rates(*sweeps: Runs) -> list[Material]:
    """Return sweeps of recipes with the learning rates 0.01, 0.02 and so on."""
    return [
        material(runs, name, lr=f"0.0{place}") for place, (runs, name) in enumerate(zip(sweeps, NAMES, strict=False), 1)
    ]


def shown(materials: list[Material]) -> str:
    return render_overview(sides(materials), interactions(materials), [])


def rows(text: str, heading: str) -> list[dict[str, str]]:
    lines = text.partition(f"## {heading}")[2].split("\n\n")[1].splitlines()
    header, _, *cells = ([cell.strip() for cell in line[1:-1].split("|")] for line in lines)
    return [dict(zip(header, row, strict=True)) for row in cells]


def named(*recipes: dict[str, str], ids: tuple[str, ...] = NAMES) -> list[tuple[str, str]]:
    one = material(fresh({"l1": [0.0]}))
    made = [
        dataclasses.replace(one, runs=dataclasses.replace(one.runs, recipe=RECIPE | recipe, recipe_id=name))
        for recipe, name in zip(recipes, ids, strict=False)
    ]
    return [(side.label, side.folder) for side in sides(made)]


def test_a_recipe_is_called_by_what_tells_it_from_the_others():
    assert named({"lr": "0.01"}, {"lr": "0.02"}) == [("lr=0.01", "lr=0.01"), ("lr=0.02", "lr=0.02")]
    augmented = {"augment": "flip_crop", "lr": "0.1", "data": "f"}, {"augment": "none", "lr": "0.1", "data": "f"}
    assert named(*augmented)[0] == ("augment=flip_crop", "augment=flip_crop")
    both = named({"augment": "none", "lr": "0.1"}, {"augment": "flip_crop", "lr": "1e-4"})
    assert both[0] == ("lr=1e-4, augment=flip_crop", "lr=1e-4,augment=flip_crop")  # in the order of the recipe's fields


def test_the_order_is_that_of_the_values_however_they_were_trained():
    names = [label for label, _ in named({"lr": "0.1"}, {"lr": "1e-3"}, {"lr": "0.02"})]
    assert names == ["lr=1e-3", "lr=0.02", "lr=0.1"]
    assert [label for label, _ in named({"model": "b"}, {"model": "a"}, {"model": "2"})] == [
        "model=2",
        "model=a",
        "model=b",
    ]


def test_the_fingerprint_of_the_data_is_in_a_name_only_where_nothing_else_tells():
    assert named({"dataset": "a", "data": "0f"}, {"dataset": "b", "data": "1f"})[0][1] == "dataset=a"
    assert named({"data": "0f"}, {"data": "1f"})[0][1] == "data=0f"


@pytest.mark.parametrize("value", ["a/b", "../x", "a b", "$(x)", "nets:Mine", "x" * 100, "", "é", "a|b", "a."])
def test_what_makes_no_safe_name_of_a_folder_is_called_by_its_id(value):
    found = named({"model": value}, {"model": "plain"})
    assert set(found) == {(f"model={value}", NAMES[0]), ("model=plain", "model=plain")}


def test_names_that_some_systems_take_for_one_are_told_apart_and_ids_that_are_none_are_not_used():
    assert named({"model": "Net"}, {"model": "net"}) == [("model=Net", NAMES[0]), ("model=net", NAMES[1])]
    assert named({}, {}, ids=("../../x", "report.md")) == [("recipe-1", "recipe-1"), ("recipe-2", "recipe-2")]


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.fixed_dictionaries({"model": st.text(max_size=9), "lr": st.text(max_size=3)}), min_size=2, max_size=5)
)
def test_any_parameters_give_folders_that_are_apart_and_below(recipes):
    folders = [folder for _, folder in named(*recipes)]
    assert len({folder.casefold() for folder in folders}) == len(recipes)
    for folder in folders:
        assert re.fullmatch(r"[\w.,=+-]+", folder, re.ASCII) and Path(folder).name == folder
        assert folder not in (".", "..", output.REPORT, "recipes.csv", "interactions.csv")


def test_a_gain_that_is_larger_with_another_recipe():
    """The four accuracies of a seed count: what the recipe does to `none` is no part of it."""
    low, high = fresh({"l1": 1 + WAVE[:12]}), fresh({"l1": 3 - WAVE[:12]}, none=80 + 9 * WAVE[:12])
    ((name, found),) = interactions(at_rates(low, high)).items()
    assert name == ("l1", 0, 1)
    assert (found.comparison.verdict, found.verdict, found.comparison.looked) == (Verdict.BETTER, "larger", 7)
    assert found.comparison.difference.mean == pytest.approx(np.mean(2 - 2 * WAVE[:7]) / 100)
    ((_, back),) = interactions(at_rates(high, low)).items()
    assert (back.verdict, back.change) == ("smaller", -found.change)


@pytest.mark.parametrize(("second", "verdict"), [
    (1 + WAVE / 9, "the same within 0.5 points"), (1.2 + WAVE / 9, "larger, but within the margin"),
    (1 + 20 * WAVE, "not shown"), (1 + WAVE[:5], "too few seeds"),
])  # fmt: skip
def test_the_words_of_a_verdict(second, verdict):
    ((_, found),) = interactions(at_rates(fresh({"l1": [1.0] * 20}), fresh({"l1": second}, planned=20))).items()
    assert found.verdict == verdict


def test_only_seeds_count_that_are_fresh_and_have_ended_in_both():
    first = dataclasses.replace(fresh({"l1": [9.0] * 2 + [1.0] * 18}), chosen_on={"l1": frozenset({3, 4})})
    second = fresh({"l1": [1.0] * 15}, planned=20)
    ((_, found),) = interactions(at_rates(first, second)).items()
    assert (len(found.accuracies), found.comparison.looked, found.change) == (12, 12, 0.0)
    failed = fresh({"l1": [1.0, np.nan, *[1.0] * 13]}, planned=20, others=[("", "l1", 1e-4, 4, "FAILED", "", "")])
    ((_, found),) = interactions(at_rates(failed, second)).items()
    assert (len(found.accuracies), found.comparison.looked) == (11, 12)


def test_the_looks_are_those_of_the_sweeps_as_far_as_two_of_them_go():
    few, twenty, forty = (fresh({"l1": [1.0] * count}) for count in (8, 20, 40))
    assert few.looks == (8,) and twenty.looks == (12, 20) and forty.looks == (12, 24, 40)
    ((_, found),) = interactions(at_rates(twenty, forty)).items()
    assert found.comparison.difference.level == pytest.approx(1 - 0.05 * 12 / 20)
    ((_, found),) = interactions(at_rates(few, forty)).items()
    assert (found.comparison.looked, found.comparison.difference.level) == (8, pytest.approx(0.95))


def test_without_fresh_seeds_nothing_is_judged():
    alone = grid({"none": {0.0: [70.0] * 3}, "l1": {0.1: [72.0] * 3, 0.2: [70.0] * 3}})
    text = shown(at_rates(alone, fresh({"l1": [1.0] * 12})))
    assert [row["verdict"] for row in rows(text, "Side by side")] == ["too few seeds", "better"]
    assert "Does the answer" not in text and "depends on it" not in text
    waiting = shown(at_rates(fresh({"l1": []}, planned=12, none=[]), fresh({"l1": [1.0] * 12})))
    (row,) = rows(waiting, "Does the answer depend on `lr`?")
    assert (row["seeds"], row["change, pp"], row["verdict"]) == ("0", "-", "too few seeds")
    assert "depends on it" not in waiting and "No difference to" not in waiting


def test_more_than_three_recipes_are_compared_with_the_first():
    sweeps = [fresh({"l1": [1.0] * 12, "l2": [1.0] * 12})] * 4
    three, four = (interactions(at_rates(*sweeps[:count])) for count in (3, 4))
    assert [pair for method, *pair in three if method == "l1"] == [[0, 1], [0, 2], [1, 2]]
    assert [pair for method, *pair in four if method == "l2"] == [[0, 1], [0, 2], [0, 3]]
    assert "Each recipe is compared with the first." in shown(at_rates(*sweeps))


def test_a_method_of_one_recipe_only_is_in_the_one_table_and_not_in_the_other():
    text = shown(at_rates(fresh({"l1": 1 + WAVE, "l2": WAVE}), fresh({"l2": 3 + WAVE})))
    table = rows(text, "Side by side")
    assert [(row["regularizer"], row["`lr`"]) for row in table] == [
        ("`l1`", "0.01"),
        ("`l2`", "0.01"),
        ("`l2`", "0.02"),
    ]
    (row,) = rows(text, "Does the answer depend on `lr`?")
    assert (row["regularizer"], row["first"], row["second"]) == ("`l2`", "`lr=0.01`", "`lr=0.02`")
    assert "depends on it: that of `l2` is 3.00 points larger with `lr=0.02` than with `lr=0.01` (" in text


def test_nothing_in_common_and_nothing_compared():
    text = shown(at_rates(grid({"none": {0.0: [70.0] * 3}}), fresh({"l2": 3 + WAVE})))
    assert "**Nothing is compared here.**" in text
    assert "## Does the answer" not in text
    assert "and not with another does not mean that the two differ." in text
    text = shown([material(grid({"none": {0.0: [70.0] * 3}}), name) for name in NAMES[:2]])
    assert "differ in nothing that is on record." in text
    assert "## Side by side" not in text


@settings(deadline=None, max_examples=10)
@given(st.lists(st.lists(st.integers(0, 9_999), min_size=12, max_size=12), min_size=4, max_size=4))
def test_what_the_tables_show_adds_up(values):
    """Of any accuracies: the change is that of the differences, inside its interval; both tables show the same."""
    own, none, own_second, none_second = np.array(values) / 100
    sweeps = fresh({"l1": own - none}, none=none), fresh({"l1": own_second - none_second}, none=none_second)
    materials = at_rates(*(dataclasses.replace(one, looks=(12,)) for one in sweeps))
    text = shown(materials)
    (row,) = rows(text, "Does the answer depend on `lr`?")
    first, second = (float(row[name]) for name in ("difference in the first, pp", "in the second, pp"))
    assert float(row["change, pp"]) == pytest.approx(second - first, abs=1e-9)
    low, high = map(float, row["interval"].partition(" (")[0].split(" to "))
    assert low <= float(row["change, pp"]) <= high
    table = rows(text, "Side by side")
    assert [side["difference, pp"] for side in table] == [row["difference in the first, pp"], row["in the second, pp"]]
    for side in table:
        assert float(side["test"][:-1]) - float(side["`none`"][:-1]) == pytest.approx(float(side["difference, pp"]))


def test_an_interval_holds_what_is_shown_inside_it():
    narrow = Interval(0.0, 0.0, 0.0, 12, 0.95)
    assert (bounds(narrow), bounds(narrow, 0.01), bounds(narrow, -0.02)) == (
        "+0.00 to +0.00", "+0.00 to +0.01", "-0.02 to +0.00"
    )  # fmt: skip


def test_the_parameters_in_which_recipes_differ():
    assert differing([{"lr": "1", "a": "x", "epochs": "3"}, {"lr": "2", "epochs": "3"}, {"lr": "1", "epochs": "4"}]) == {
        "epochs": ("3", "4"), "lr": ("1", "2"), "a": ("x", "")
    }  # fmt: skip


@pytest.fixture
def materials() -> list[Material]:
    return at_rates(fresh({"l1": 1 + WAVE, "l2": WAVE}), fresh({"l1": 3 + WAVE, "l2": 2 * WAVE}))


def test_the_files_are_the_same_bytes_each_time_and_those_of_an_earlier_report_go(materials, tmp_path, monkeypatch):
    monkeypatch.setattr(figures, "FIGURES", {"forest": figures.FIGURES["forest"]})
    first, second = tmp_path / "one", tmp_path / "two"
    for folder in (first, second):
        build.write(materials, folder)
    names = {path.relative_to(first).as_posix() for path in first.rglob("*") if path.is_file()}
    assert names == {*output.written(first), output.LIST}
    assert {"report.md", "recipes.csv", "interactions.csv", "lr=0.01/pairs.csv", "lr=0.02/figures/forest.svg"} <= names
    for name in names:
        assert (first / name).read_bytes() == (second / name).read_bytes(), name
    table = pd.read_csv(first / "recipes.csv", dtype={"lr": str})
    assert table[["recipe", "folder", "lr", "method"]].to_numpy().tolist() == [
        [NAMES[place], f"lr=0.0{place + 1}", f"0.0{place + 1}", method] for place in (0, 1) for method in ("l1", "l2")
    ]
    assert pd.read_csv(first / "interactions.csv")["verdict"].tolist() == ["larger", "the same within 0.5 points"]
    (first / "lr=0.01" / "mine.txt").write_text("mine")
    build.write(materials[:1], first)
    left = {path.relative_to(first).as_posix() for path in first.rglob("*") if path.is_file()}
    assert left == {*output.written(first), output.LIST, "lr=0.01/mine.txt"}
    assert not (first / "lr=0.02").exists()
    (first / output.LIST).unlink()  # as one of an earlier version: it is known by its text, also that on several
    build.write(materials, first)
    (first / output.LIST).unlink()
    build.write(materials, first)


HOSTILE = [
    "<b>x</b>",
    "a|b",
    "[x](http://e)",
    "`a` | *b*",
    "# x",
    "![i](j)",
    "1. x\n- y",
    "~~a~~",
    "<!--",
    "\\",
    "$x$",
    "a_b_ c",
]


@pytest.mark.parametrize("value", HOSTILE)
def test_names_change_no_block_and_bring_no_html_or_link(value):
    def tokens(name: str) -> list:
        runs = fresh({name: 1 + WAVE}), fresh({name: 3 + WAVE})
        made = [material(one, own, model=f"{name}{own}", dataset=name) for one, own in zip(runs, NAMES, strict=False)]
        text = render_overview(sides(made), interactions(made), NAMES)
        found = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).parse(text)
        return [inner for token in found for inner in (token, *(token.children or ()))]

    hostile, plain = tokens(value), tokens("plain name")
    blocks = [[token.type for token in found if token.block] for found in (hostile, plain)]
    assert blocks[0] == blocks[1]
    assert not {"html_block", "html_inline", "s_open"} & {token.type for token in hostile}
    links = [[token.attrs.get("href") or token.attrs.get("src") for token in found if token.type in ("link_open", "image")]
             for found in (hostile, plain)]  # fmt: skip
    assert links[0] == links[1] and len(links[0]) == 4


def test_recipes_that_differ_in_nothing_on_record_are_told_apart_by_their_ids():
    one, other, third = (material(fresh({"l1": gain + WAVE}), name, lr=lr)
                         for gain, name, lr in zip((1, 2, 3), NAMES, ("0.1", "0.1", "0.2"), strict=False))  # fmt: skip
    assert [side.label for side in sides([one, other, third])] == [NAMES[0], NAMES[1], "lr=0.2"]
    text = shown([one, other])
    assert "differ in nothing that is on record." in text
    assert [row["`recipe`"] for row in rows(text, "Side by side")] == list(NAMES[:2])
    shared = rows(shown([one, other, third]), "Side by side")
    assert [(row["`lr`"], row["`recipe`"]) for row in shared] == [("0.1", NAMES[0]), ("0.1", NAMES[1]), ("0.2", "")]
