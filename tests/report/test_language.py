"""The report in another language: every message is translated, nothing stays English, and English is as it was."""

import ast
import dataclasses
import re
from collections.abc import Callable
from functools import cache
from gettext import GNUTranslations, NullTranslations
from pathlib import Path

import pandas as pd
import pytest
from markdown_it import MarkdownIt

from regbench.commands import report
from regbench.errors import UserError
from regbench.report import build, figures, fonts, language
from regbench.report.analysis import analyse
from regbench.report.inputs import Material
from regbench.report.interactions import interactions
from regbench.report.language import ENGLISH, JAPANESE, use
from regbench.report.recipes import sides
from regbench.report.render import render, render_overview
from regbench.report.text import duration, unwrap
from tests.report import messages
from tests.report.make_fixture import HERE, japanese, material
from tests.report.sweeps import RECIPE, fresh, grid

JAPANESE_LETTER = re.compile("[\u3041-\u30ff\u4e00-\u9fff]")
PLACEHOLDER = re.compile(r"%\(\w+\)s|%%|\{\w*[^{}]*\}")
# five words of English, which neither names nor units make
ENGLISH_WORDS = re.compile(r"\b[A-Za-z]{2,}(?:[ ,.:;]+[A-Za-z]{2,}\b){4}")


class Strict(NullTranslations):
    """A catalogue that lacks a message is an error."""

    def gettext(self, message: str) -> str:
        raise KeyError(message)

    def ngettext(self, one: str, many: str, number: int) -> str:
        raise KeyError(one)


@pytest.fixture
def in_japanese(monkeypatch):
    """A report in Japanese, in which no message stays as it is, on a machine that has a font for it."""
    found = language.catalogue(JAPANESE)
    assert isinstance(found, GNUTranslations)
    monkeypatch.setattr(found, "_fallback", Strict())
    monkeypatch.setattr(fonts, "FAMILIES", {JAPANESE: ("DejaVu Sans",)})
    with use(JAPANESE):
        yield


def forms(message) -> list[tuple[str, str]]:
    """Return each form of a translation with the English of it: with one form only, that of many things."""
    if isinstance(message.id, str):
        return [(message.id, message.string)]
    return [(message.id[-1] if place == len(message.string) - 1 else message.id[0], text)
            for place, text in enumerate(message.string)]  # fmt: skip


def translations() -> list:
    return [pytest.param(message, id=f"{name}-{str(message.id)[:40]}")
            for name in messages.TRANSLATIONS for message in messages.read(name) if message.id]  # fmt: skip


@pytest.mark.parametrize("name", messages.TRANSLATIONS)
def test_a_catalogue_has_the_messages_of_the_code_and_no_others(name):
    assert messages.updated(name) == messages.path(name).read_bytes(), "run python -m tests.report.messages"


@pytest.mark.parametrize("message", translations())
def test_a_message_is_translated_with_the_same_placeholders_and_columns(message):
    assert not message.fuzzy
    for english, translated in forms(message):
        assert translated.strip()
        assert sorted(PLACEHOLDER.findall(translated)) == sorted(PLACEHOLDER.findall(english))
        assert translated.count(" | ") == english.count(" | ")
        if re.search("[A-Za-z]{2}", PLACEHOLDER.sub("", english)):
            assert translated != english


def test_every_message_is_written_out_where_it_is_looked_up():
    """One that is put together cannot be found by those who translate."""
    calls = [
        call
        for path in messages.CODE.glob("*.py") if path.name != "language.py"
        for call in ast.walk(ast.parse(path.read_text()))
        if isinstance(call, ast.Call) and getattr(call.func, "id", "") in ("gettext", "ngettext", "figure")
    ]  # fmt: skip
    assert len(calls) > 100
    for call in calls:
        count = 2 if call.func.id == "ngettext" else 1
        assert all(isinstance(argument, ast.Constant) for argument in call.args[:count]), ast.unparse(call)


def test_the_golden_report_in_japanese():
    assert japanese() == (HERE / "report.ja.md").read_text(encoding="utf-8")


def test_what_is_not_words_is_the_same_in_both_languages():
    """Numbers, names in code, figures, headings' levels and how columns are set; of a table every cell of numbers."""
    english, other = ((HERE / name).read_text(encoding="utf-8") for name in ("report.md", "report.ja.md"))
    lines, others = english.splitlines(), other.splitlines()
    assert len(lines) == len(others)
    for one, two, after in zip(lines, others, [*lines[1:], ""], strict=True):
        assert re.findall(r"^#+|\]\(.*?\)|^\*(?!\*)|^\|", one) == re.findall(r"^#+|\]\(.*?\)|^\*(?!\*)|^\|", two)
        assert sorted(re.findall(r"`[^`]+`", one)) == sorted(re.findall(r"`[^`]+`", two))
        if one.startswith("|"):
            assert one.replace("\\|", "").count("|") == two.replace("\\|", "").count("|")
        if one.startswith("|") and not after.startswith("| ---"):
            numbers = r"[+-]?\d[\d,.]*(?:e-?\d+)?"
            assert re.findall(numbers, one) == re.findall(numbers, two)
        if set(one) <= set("| -:"):
            assert one == two


def english_left(text: str) -> list[str]:
    """Return what looks like English in a report, outside code, links and what comes from the store."""
    plain = re.sub(r"`[^`]*`|\]\([^)]*\)|mlflow run .*", "", text)
    return [found[0] for line in plain.splitlines() for found in ENGLISH_WORDS.finditer(line)]


def of(runs) -> Material:
    return Material(
        runs, analyse(runs), pd.DataFrame(columns=["run_id", "method", "lam", "seed", "epoch"]), pd.DataFrame()
    )


@cache
def english() -> Material:
    return material()


def whole(**changes: object) -> Material:
    """Return the fixture, with notes in the language of the block."""
    return dataclasses.replace(english(), analysis=analyse(english().runs), **changes)


def shapes() -> dict[str, Callable[[], Material]]:
    """Return the materials of reports that say different things."""
    runs, trials = english().runs, english().runs.trials

    def changed(**changes: object) -> Material:
        return of(dataclasses.replace(runs, **changes))

    def only(chosen: pd.Series, **changes: object) -> Material:
        return changed(trials=trials[chosen].reset_index(drop=True), **changes)

    some = {"none": {0.0: [70] * 9}, "l1": {1e-4: [71] * 9}}
    more = some | {"l2": {1e-4: [71] * 9, 1e-3: [70] * 9}}
    return {
        "whole": whole,
        "lost files": lambda: whole(layers=pd.DataFrame(), missing=("there", "here")),
        "a lost file": lambda: whole(missing=("there",)),
        "grid alone": lambda: only(trials["stage"] == "grid", confirm=(), looks=(), choice={}),
        "no none": lambda: only(trials["method"] != "none"),
        "nothing": lambda: only(trials["method"] == ""),
        "no choice": lambda: changed(choice={}),
        "others": lambda: changed(foreign=3, unreported=2, outdated=4),
        "another": lambda: changed(unreported=1),
        "one seed": lambda: of(grid({name: {lam: [70] for lam in lams} for name, lams in more.items()})),
        "one lam": lambda: of(grid(some)),
        "split": lambda: of(grid(more)),
        "trivial": lambda: of(fresh({"l1": [0.1 + 0.01 * (i % 3) for i in range(20)], "l2": [-0.1] * 20})),
        "long family": lambda: of(fresh({f"m{i}": [float(i % 3)] * 20 for i in range(8)})),
        "few": lambda: of(fresh({"l1": [1.0, 1.2], "l2": [0.5, 0.4]}, planned=2)),
    }


@pytest.mark.usefixtures("in_japanese")
@pytest.mark.parametrize("shape", shapes())
def test_no_sentence_stays_english(shape):
    shown = render(shapes()[shape](), list(figures.FIGURES))
    assert JAPANESE_LETTER.search(shown)
    assert not english_left(shown)
    page = MarkdownIt().enable("table").render(shown)
    assert "**" not in re.sub(r"<code>.*?</code>", "", page)  # what is bold is so beside Japanese letters too


@pytest.mark.usefixtures("in_japanese")
@pytest.mark.parametrize("count", [2, 4])
def test_no_sentence_of_the_report_on_several_recipes_stays_english(count):
    family = {"l1": [1.0] * 12, "l2": [0.1 * (i % 3) for i in range(12)]}
    materials = []
    for place in range(count):
        runs = fresh({name: [value + 3 * place for value in values] for name, values in family.items()})
        runs = dataclasses.replace(runs, recipe=RECIPE | {"lr": f"0.0{place + 1}"}, recipe_id=f"{place:012}")
        materials.append(Material(runs, analyse(runs), pd.DataFrame(), pd.DataFrame()))
    made = sides(materials)
    shown = render_overview(made, interactions(materials), [side.folder for side in made])
    assert "`lr` によって変わるか" in shown
    assert not english_left(shown)
    assert "**" not in MarkdownIt().enable("table").render(shown)
    alone = render_overview(made, {}, [])
    assert not english_left(alone)


def test_the_heuristic_finds_an_english_sentence():
    assert english_left("図: No difference is shown for it\n`mlflow run a b c d e f`") == ["No difference is shown for"]


def test_a_block_is_in_its_language_and_what_comes_after_it_in_that_of_before():
    with use(JAPANESE):
        assert duration(90) == "1.5 分"
        with use(ENGLISH):
            assert duration(90) == "1.5 min"
        with pytest.raises(ZeroDivisionError), use(ENGLISH):
            raise ZeroDivisionError
        assert duration(90) == "1.5 分"
    assert duration(90) == "1.5 min"


def test_japanese_sentences_follow_each_other_without_a_space_but_for_what_follows_bold():
    assert unwrap("一。\n二。\n**三。**\n四。\n") == "一。二。**三。** 四。\n"


@pytest.fixture
def saved(monkeypatch):
    """The figures that were drawn, which take no time to be saved."""
    drawn = {}

    def save(figure, folder: Path, name: str) -> None:
        drawn[name] = figure
        folder.mkdir(exist_ok=True, parents=True)
        for suffix in figures.SUFFIXES:
            (folder / f"{name}{suffix}").write_text("a figure")

    monkeypatch.setattr(figures, "save", save)
    return drawn


def labels(drawn: dict[str, object]) -> str:
    texts = [text for figure in drawn.values() for axis in figure.axes for text in (axis.xaxis.label, axis.yaxis.label)]
    legends = [text for figure in drawn.values() for legend in figure.legends for text in legend.get_texts()]
    return "\n".join(text.get_text() for text in [*texts, *legends])


def test_figures_are_labelled_in_japanese_where_there_is_a_font(in_japanese, saved, tmp_path):
    shown = build.write([whole()], tmp_path).read_text(encoding="utf-8")
    assert "apt-get" not in shown
    assert set(saved) == set(figures.FIGURES)
    assert {"エポック", "重み", "検証で選択"} <= set(labels(saved).splitlines())
    assert not english_left(labels(saved))
    assert saved["forest"].axes[0].xaxis.label.get_fontfamily() == ["DejaVu Sans", "DejaVu Sans"]
    assert "差は示されず" in saved["forest"].axes[0].get_yticklabels()[4].get_text()


@pytest.mark.usefixtures("in_japanese")
def test_figures_stay_english_without_a_font_and_the_report_says_what_to_install(saved, tmp_path, monkeypatch):
    monkeypatch.setattr(fonts, "FAMILIES", {JAPANESE: ("No such font",)})
    shown = build.write([whole()], tmp_path).read_text(encoding="utf-8")
    (said,) = (line for line in shown.splitlines() if line.startswith("* 日本語フォントが見つからないため"))
    assert "`apt-get install fonts-noto-cjk`" in said
    assert {"epoch", "mean test accuracy, %"} <= set(labels(saved).splitlines())
    assert not JAPANESE_LETTER.search(labels(saved))
    assert "*選ばれた lam での `none` との差*" in shown  # captions are part of the text


def test_the_best_font_that_is_installed_is_taken(monkeypatch):
    monkeypatch.setattr(fonts.font_manager, "get_font_names", lambda: ["DejaVu Sans", "MS Gothic", "IPAexGothic"])
    assert fonts.family(JAPANESE) == "IPAexGothic" and fonts.can_write(JAPANESE)
    assert fonts.family(ENGLISH) is None and fonts.can_write(ENGLISH)


def test_a_font_that_was_installed_after_matplotlib_has_looked_is_found(monkeypatch):
    """It keeps a list of fonts for good."""
    path = fonts.font_manager.findfont("DejaVu Sans Mono")
    manager = fonts.font_manager.fontManager
    monkeypatch.setattr(manager, "ttflist", [one for one in manager.ttflist if "Mono" not in one.name])
    monkeypatch.setattr(fonts, "FAMILIES", {JAPANESE: ("DejaVu Sans Mono",)})
    monkeypatch.setattr(fonts.font_manager, "findSystemFonts", lambda: [path, "/no/such/font.ttf"])
    fonts._all_names.cache_clear()
    try:
        assert fonts.family(JAPANESE) == "DejaVu Sans Mono"
    finally:
        fonts._all_names.cache_clear()


def test_tables_for_programs_are_the_same_in_every_language(tmp_path, monkeypatch):
    monkeypatch.setattr(figures, "draw", lambda _: {})
    for name in language.LANGUAGES:
        with use(name):
            one = whole()
            other = dataclasses.replace(one.runs, recipe=one.runs.recipe | {"lr": "0.02"}, recipe_id="1" * 12)
            build.write([one, dataclasses.replace(one, runs=other)], tmp_path / name)
    tables = sorted(path.relative_to(tmp_path / ENGLISH) for path in (tmp_path / ENGLISH).rglob("*.csv"))
    assert {"interactions.csv", "recipes.csv"} < {path.name for path in tables}
    for path in tables:
        assert (tmp_path / ENGLISH / path).read_bytes() == (tmp_path / JAPANESE / path).read_bytes(), path


def test_another_language_is_refused_before_anything_is_read(elsewhere):
    with pytest.raises(UserError, match="lang='de' is unknown; accepted: en, ja"):
        report.main.main(["--lang=de"], standalone_mode=False)
    assert not list(elsewhere.iterdir())
