"""report.html: one file that needs nothing else, in which any text is shown as it is."""

import dataclasses
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb

from regbench.report import build, figures, interactive
from regbench.report.analysis import analyse
from regbench.report.inputs import Material
from regbench.report.interactive import charts
from regbench.report.page import page
from regbench.report.palette import BACKGROUNDS, contrast, palettes
from regbench.report.render import render
from regbench.report.vega import columnar
from regbench.trial import BASELINE
from tests.report.make_fixture import material
from tests.report.sweeps import fresh, grid
from tests.report.test_recipes import at_rates

HOSTILE = '<script>fetch("//x")</script><img src=x onerror="alert(1)">&"\'</script><!--<script>'
PICTURE = b"a picture"


class Page(HTMLParser):
    """What a browser finds in a page: tags with their attributes, scripts apart, and the text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.scripts: list[str] = []
        self.text = ""
        self._inside = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside = tag if tag in ("script", "style", "title") else ""
        self.scripts += [""] if tag == "script" else []

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "script":
            self.scripts[-1] += data
        elif not self._inside:
            self.text += data

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.tags if name == tag]

    @property
    def content(self) -> dict:
        return json.loads(self.scripts[0])


def histograms(found: Material) -> pd.DataFrame:
    """Return what runs with a table of counts would give: two layers, a bin of one of which is empty."""
    trials = found.runs.trials.drop_duplicates(["method", "lam"])
    rows = [(layer, low / 10, low / 10 + 0.1, count, trial.method, trial.lam, trial.seed)
            for trial in trials.itertuples() for layer in ("conv1.weight", "l3.weight")
            for low, count in ((place - 6, 7 * place) for place in range(12))]  # fmt: skip
    return pd.DataFrame(rows, columns=["layer", "low", "high", "count", "method", "lam", "seed"])


def hostile(found: Material) -> Material:
    """Return the material with a regularizer whose name would be HTML."""

    def renamed(table: pd.DataFrame) -> pd.DataFrame:
        return table.assign(method=table["method"].replace("my|prox <b>", HOSTILE))

    choice = {HOSTILE if name == "my|prox <b>" else name: lam for name, lam in found.runs.choice.items()}
    runs = dataclasses.replace(found.runs, trials=renamed(found.runs.trials), choice=choice)
    tables = {name: renamed(getattr(found, name)) for name in ("epochs", "layers", "histograms")}
    return dataclasses.replace(found, runs=runs, analysis=analyse(runs), **tables)


@pytest.fixture(scope="module")
def fixture() -> Material:
    found = material()
    return dataclasses.replace(found, histograms=histograms(found))


def html(found: Material) -> str:
    shown = {f"figures/{name}.png": several for name, several in charts(found).items()}
    return page(render(found, list(figures.FIGURES)), shown, lambda _: PICTURE)


@pytest.fixture(scope="module")
def shown(fixture) -> Page:
    return Page(html(fixture))


def addresses(found: Page) -> list[str]:
    """Return every address that a browser would ask for, or go to."""
    given = [value for _, attributes in found.tags for name, value in attributes.items()
             if name in ("src", "href", "srcset", "data", "poster", "action", "formaction", "background")]  # fmt: skip
    return [address for address in given if not address.startswith(("#", "data:image/png;base64,"))]


def test_it_asks_for_nothing_else(fixture, shown):
    assert addresses(shown) == []
    assert not shown.all("link") and not shown.all("iframe") and not shown.all("object")
    (style,) = re.findall("<style>(.*?)</style>", html(fixture), re.DOTALL)
    assert "url(" not in style and "@import" not in style
    (policy,) = [tag["content"] for tag in shown.all("meta") if tag.get("http-equiv") == "Content-Security-Policy"]
    assert policy.startswith("default-src 'none';")
    own = shown.scripts[-1]
    for word in ("fetch(", "XMLHttpRequest", "import(", "WebSocket", "localStorage", "innerHTML"):
        assert word not in own


def test_it_has_the_whole_report(fixture, shown):
    """Every sentence and every cell of the Markdown is there, by what a Markdown reader shows of it."""
    text = " ".join(shown.text.split())
    for line in render(fixture, []).splitlines():
        for part in line.strip("|").split(" | ") if line.startswith("|") else [line]:
            plain = re.sub(r"[*`#\\]|&lt;b&gt;", "", part).strip("- :|")
            if plain and "**" not in line and "\\" not in part and "`" not in part:
                assert plain in text, plain
    assert "Without regularization the test accuracy is 65.01%" in text


def test_the_figures_are_charts_where_that_helps_and_pictures_otherwise(fixture, shown):
    assert [len(charts(fixture)[name]) for name in ("forest", "accuracy_against_lam", "learning_curves")] == [2, 1, 1]
    assert {"gap_against_lam", "weight_histograms"} < charts(fixture).keys()
    pictures = len(figures.FIGURES) - len(charts(fixture))
    assert len(shown.all("img")) == pictures and all(image["alt"] for image in shown.all("img"))
    places = [tag for tag in shown.all("div") if "data-chart" in tag]
    assert [int(tag["data-chart"]) for tag in places] == list(range(len(shown.content["charts"])))
    assert len(shown.all("figure")) == len(places) + pictures
    assert all(tag["aria-label"] for tag in places)


def test_runs_of_an_earlier_version_have_the_picture_of_weights(fixture):
    older = dataclasses.replace(fixture, histograms=pd.DataFrame())
    assert "weight_histograms" not in charts(older)
    assert len(Page(html(older)).all("img")) == len(figures.FIGURES) - len(charts(older))


def test_tables_say_what_heads_what(shown):
    assert len(shown.all("table")) == len(shown.all("caption")) == 7
    heads = shown.all("th")
    assert {tag["scope"] for tag in heads} == {"col", "row"}
    rows = len(shown.all("tr")) - len(shown.all("thead"))
    assert sum(tag["scope"] == "row" for tag in heads) == rows
    assert shown.all("html")[0]["lang"] == "en"
    ids = [attributes["id"] for _, attributes in shown.tags if "id" in attributes]
    assert len(set(ids)) == len(ids)
    assert {link["href"][1:] for link in shown.all("a")} <= set(ids)


@pytest.mark.parametrize("where", ["method", "recipe", "reason", "note", "layer"])
def test_any_text_of_a_run_is_shown_as_it_is(fixture, where):
    if where == "method":
        found = hostile(fixture)
    elif where == "recipe":
        runs = dataclasses.replace(fixture.runs, recipe=fixture.runs.recipe | {"dataset": HOSTILE, "model": HOSTILE})
        found = dataclasses.replace(fixture, runs=runs)
    elif where == "reason":
        runs = dataclasses.replace(fixture.runs, others=fixture.runs.others.assign(reason=HOSTILE, name=HOSTILE))
        found = dataclasses.replace(fixture, runs=runs)
    elif where == "note":
        found = dataclasses.replace(fixture, analysis=dataclasses.replace(fixture.analysis, notes=(HOSTILE,)))
    else:
        found = dataclasses.replace(fixture, histograms=fixture.histograms.assign(layer=HOSTILE),
                                    layers=fixture.layers.assign(layer=HOSTILE))  # fmt: skip
    made = Page(html(found))
    assert [tag for tag, _ in made.tags if tag != "img"].count("script") == 3
    assert not [attributes for _, attributes in made.tags if any(name.startswith("on") for name in attributes)]
    assert addresses(made) == []
    assert made.content["charts"]
    assert " ".join(HOSTILE.split()) in " ".join(made.text.split()) + json.dumps(made.content).replace('\\"', '"')
    if where != "layer":
        assert " ".join(HOSTILE.split()) in " ".join(made.text.split())


def test_a_link_that_a_text_would_make_is_none():
    made = Page(page("# A\n\n[x](javascript:alert(1)) <b>bold</b> <https://example.org>\n", {}, lambda _: PICTURE))
    assert not [tag for tag in made.all("a") if not tag["href"].startswith(("#", "https://example.org"))]
    assert not made.all("b")


def test_the_same_runs_give_the_same_bytes(fixture):
    assert html(fixture) == html(fixture)


@pytest.mark.usefixtures("quick")
def test_it_is_written_beside_the_report_and_of_several_recipes_for_each(fixture, tmp_path):
    build.write([fixture], tmp_path / "one")
    assert Page((tmp_path / "one" / "report.html").read_text()).content["charts"]
    sides = at_rates(fresh({"l1": [0.5] * 12}), fresh({"l1": [0.1] * 12}))
    build.write(sides, tmp_path / "two")
    overview = Page((tmp_path / "two" / "report.html").read_text())
    assert addresses(overview) == ["lr=0.01/report.html", "lr=0.02/report.html"]
    assert all((tmp_path / "two" / address).exists() for address in addresses(overview))
    assert len(overview.content["charts"]) == 4  # of each the verdicts and the seeds
    assert "report.md" not in (tmp_path / "two" / "report.html").read_text()


def test_a_thousand_trials_take_less_than_five_megabytes():
    random = np.random.default_rng(0)
    runs = fresh({f"method{number}": random.normal(0.3, 0.4, 40) for number in range(9)})
    own = runs.trials[(runs.trials["lam"] == 1e-3)]
    more = [own.assign(lam=1e-3 * (2 + step), run_id=own["run_id"] + f"-{step}") for step in range(21)]
    trials = pd.concat([runs.trials, *more], ignore_index=True)[:1000]
    assert len(trials) == 1000
    runs = dataclasses.replace(runs, trials=trials)
    epochs = pd.DataFrame({
        "run_id": np.repeat(trials["run_id"], 30), "method": np.repeat(trials["method"], 30),
        "lam": np.repeat(trials["lam"], 30), "seed": np.repeat(trials["seed"], 30),
        "epoch": np.tile(np.arange(1, 31), 1000),
        **{name: random.random(30_000) for name in ("train/loss", "val/loss", "train/accuracy", "val/accuracy")},
    }).reset_index(drop=True)  # fmt: skip
    cells = trials.drop_duplicates(["method", "lam"])
    layers = [f"layer{number}.weight" for number in range(12)]
    counts = cells[["method", "lam", "seed"]].merge(pd.DataFrame({"layer": np.repeat(layers, 101)}), how="cross")
    numbers = random.random((3, len(counts)))
    counts = counts.assign(low=numbers[0], high=numbers[1], count=(1e6 * numbers[2]).astype(int))
    found = Material(runs, analyse(runs), epochs, pd.DataFrame(), histograms=counts)
    made = html(found)
    assert len(made.encode()) < 5_000_000
    drawn = [max(map(len, one["tables"]["table"]["columns"].values())) for one in Page(made).content["charts"]]
    assert 30_000 in drawn


def test_numbers_are_embedded_with_four_digits_and_texts_once():
    table = pd.DataFrame({"a": [1 / 3, 1e-5, np.nan, 12345.6], "n": [1, 2, 3, 4], "t": ["x", "y", "x", "x"]})
    assert columnar(table) == {
        "columns": {"a": [0.3333, 1e-5, None, 12350], "n": [1, 2, 3, 4], "t": [0, 1, 0, 0]},
        "levels": {"t": ["x", "y"]},
    }


def test_marks_are_told_from_both_backgrounds_and_texts_read_on_them():
    """WCAG 2.2 AA: 3 to 1 for what is drawn, 4.5 to 1 for text; the backgrounds are those of the style sheet."""
    for name, ground in BACKGROUNDS.items():
        assert all(contrast(to_rgb(one), to_rgb(ground)) >= 3 for one in palettes(10)[name])
        assert len(set(palettes(9)[name])) == 10
    style = Path(interactive.__file__).with_name("page.css").read_text()
    blocks = re.findall(r":root \{\n(.*?)\}", style, re.DOTALL)
    assert len(blocks) == 2
    for block, ground in zip(blocks, BACKGROUNDS.values(), strict=True):
        named = dict(re.findall(r"--(\w+): (#\w{6});", block))
        assert named["ground"] == ground
        for text in ("ink", "muted", "accent"):
            for under in ("ground", "stripe"):
                assert contrast(to_rgb(named[text]), to_rgb(named[under])) >= 4.5, (text, under)
        assert contrast(to_rgb(named["line"]), to_rgb(ground)) >= 3


def test_a_chart_is_of_the_numbers_of_the_table(fixture):
    forest, paired = charts(fixture)["forest"]
    found = fixture.analysis.comparisons
    assert list(forest.tables["table"]["regularizer"]) == list(found)
    assert list(forest.tables["table"]["difference"]) == [100 * one.difference.mean for one in found.values()]
    for method, pairs in fixture.analysis.pairs.items():
        own = paired.tables["table"][paired.tables["table"]["regularizer"] == method]
        assert own["own"].to_numpy() == pytest.approx(100 * pairs.own)
        assert own["none"].to_numpy() == pytest.approx(100 * pairs.other)


def test_at_the_sliders_first_place_are_the_chosen_lams_and_none_is_at_all(fixture):
    (curves,) = charts(fixture)["learning_curves"]
    slider, _ = curves.controls
    table = curves.tables["table"]
    assert slider.texts[1:] == [str(lam) for lam in ("1e-5", "1e-4", "1e-3", "1e-2", "0.1", "0.3")]
    assert set(table.loc[table["position"] == 0, "regularizer"]) == {BASELINE}
    first = table[table["chosen"] == 1]
    for method, seeds in fixture.analysis.shown.items():
        assert sorted(set(first.loc[first["regularizer"] == method, "seed"])) == sorted(seeds)
    at = table[table["position"] == slider.texts.index("1e-2")]
    assert set(at["lam"]) == {"1e-2"} and set(at["regularizer"]) == {"l2"}


def test_a_grid_alone_and_one_lam_have_charts_too():
    for runs in (grid({"none": {0.0: [70, 71]}, "l1": {1e-3: [72, 71]}}), grid({"none": {0.0: [70, 71]}})):
        found = Material(runs, analyse(runs), pd.DataFrame(columns=["method", "lam", "seed", "epoch"]), pd.DataFrame())
        assert "learning_curves" not in charts(found)
        assert Page(html(found)).all("main")


def test_of_too_many_layers_those_with_most_weights_are_shown(fixture, monkeypatch):
    cells = len(fixture.histograms[["method", "lam"]].drop_duplicates())
    monkeypatch.setattr(interactive, "HISTOGRAMS", cells)
    heavier = fixture.histograms.assign(
        count=fixture.histograms["count"] + (fixture.histograms["layer"] == "conv1.weight")
    )
    (chart,) = charts(dataclasses.replace(fixture, histograms=heavier))["weight_histograms"]
    assert set(chart.tables["table"]["layer"]) == {"conv1.weight"}
    assert "those with most weights" in chart.caption
