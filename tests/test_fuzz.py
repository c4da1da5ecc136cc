"""Any text on the command line, and any names in a tracking store: a valid value or a clear refusal, a whole report.

With REGBENCH_FUZZ=20000 as many examples of each property are tried; of reports a tenth, of figures a hundredth.
"""

import dataclasses
import os
import re
from collections.abc import Callable
from functools import cache

import click
import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from regbench import regularizers
from regbench.api import parsing
from regbench.api.parsing import MAX_SEED, MAX_SEEDS
from regbench.click_fields import images, real, switch, whole
from regbench.errors import UserError
from regbench.report import figures
from regbench.report.analysis import analyse
from regbench.report.render import render
from regbench.trial import format_lam, format_seeds
from tests.report.make_fixture import material

EXAMPLES = int(os.environ.get("REGBENCH_FUZZ", "100"))
FLOAT32 = np.finfo(np.float32)
MANY = settings(deadline=None, max_examples=EXAMPLES)
# what the parsers look at, so that much of it is nearly right
TEXT = st.text(max_size=20) | st.text("0123456789-,.:+_ eEautocdlinfx\u0661\uff11\0", max_size=20) | st.from_regex(
    r"(\d{0,12}-?\d{0,12},? ?){0,4}|([+-]?\d{0,4}\.?\d{0,4}(e[+-]?\d{0,4})?,?){0,4}", fullmatch=True
)  # fmt: skip
NAMES = st.text(max_size=40) | st.text("|`<>[]()*_~#!\\$&{}^%\"'\n\r\t\x00\x1b /.ab\u202e\u2028", max_size=40)
HOSTILE = ("a|b`c", "<script>alert(1)</script>", "$\\frac{", "![x](http://e/x.png)", "_x", "a\n\n# b", "a\n|b", "\\|")


def parsed(kind: click.ParamType | Callable[[str], object], text: str):
    """Return the value of an option, or None where it is refused."""
    try:
        return click.types.convert_type(kind).convert(text, click.Option(["--x"]), None)
    except UserError:
        return None


@MANY
@given(TEXT)
@example("0-999999999999")
@example("0-9999999999,0-9999999999")
def test_seeds_are_different_numbers_that_generators_take(text):
    found = parsed(parsing.seeds, text)
    if found is not None:
        assert 1 <= len(found) == len(set(found)) <= MAX_SEEDS
        assert all(0 <= seed <= MAX_SEED for seed in found)
        assert parsed(parsing.seeds, format_seeds(found)) == tuple(sorted(found))


@MANY
@given(TEXT)
@example("1_0")
@example("1\x85")
@example("1e999")
def test_lams_are_different_numbers_that_float32_holds(text):
    found = parsed(parsing.lams, text)
    if found is None:
        return
    assert "".join(text.split()).isascii()  # white space around a number may be of any script
    assert len(found) == len(set(found))
    try:
        cells = regularizers.cells(["l1"], found, baseline=False)
    except UserError:
        return
    assert cells == [("l1", lam) for lam in found]
    assert all(FLOAT32.tiny <= np.float32(lam) <= FLOAT32.max for lam in found)
    assert parsed(parsing.lams, ",".join(map(format_lam, found))) == found


@MANY
@given(st.sets(st.integers(0, MAX_SEED), min_size=1, max_size=30))
def test_seeds_are_written_in_a_way_that_reads_back(seeds):
    assert parsed(parsing.seeds, format_seeds(list(seeds))) == tuple(sorted(seeds))


@MANY
@given(st.floats(float(FLOAT32.tiny), float(FLOAT32.max)))
@example(1.2e-38)  # the ends, as the message for what is outside gives them
@example(3.4e38)
def test_a_lam_is_written_in_a_way_that_reads_back(lam):
    assert regularizers.cells(["l1"], parsed(parsing.lams, format_lam(lam)), baseline=False) == [("l1", lam)]


@MANY
@given(TEXT | st.lists(st.sampled_from(["none", "l1", "l2", "L1", "", " l1 ", "no_such_module:X"])).map(",".join))
def test_regularizers_are_different_names_that_are_there(text):
    found = parsed(parsing.names, text)
    if found is not None:
        assert 1 <= len(found) == len(set(found))
        assert parsed(parsing.names, ",".join(found)) == found


@MANY
@given(TEXT)
@example("9" * 5000)
@example("nan")
def test_numbers_and_devices_are_in_their_range(text):
    size = parsed(images(all=None), text)
    assert size is None or 0 <= size <= 10**12
    jobs = parsed(whole(1, 1000), text)
    assert jobs is None or 1 <= jobs <= 1000
    number = parsed(real(click.FloatRange(0, 1, max_open=True), "below 1"), text)
    assert number is None or (0 <= number < 1 and text.strip().isascii())
    assert parsed(switch(), text) in (None, True, False)
    device = parsed(parsing.device, text)
    assert device in (None, "auto", "cpu", "cuda") or re.fullmatch(r"cuda:\d+", device)
    folder = parsed(parsing.folder("x"), text)
    assert folder is None or "\0" not in str(folder)


golden = cache(material)


def renamed(one: str, two: str, free: str):
    """Return the fixture with other names for two methods, for its runs, reasons, layers, recipe and experiment."""
    names = {"l1": one, "my|prox <b>": two}
    runs = golden().runs
    trials, layers = (table.assign(method=table["method"].replace(names)) for table in (runs.trials, golden().layers))
    layers["layer"] = layers["layer"].replace({"l3.weight": free})
    runs = dataclasses.replace(
        runs,
        experiment=free,
        trials=trials.assign(name=free, device=free, engine=free),
        others=runs.others.assign(name=free, reason=free, status=free),
        choice={names.get(method, method): lam for method, lam in runs.choice.items()},
        recipe={"dataset": free, "model": free},
        environment={"env.x": (free,)},
    )
    analysis = dataclasses.replace(analyse(runs), notes=(f"{one} lam=1", f"{free} and {two}"))
    return dataclasses.replace(golden(), runs=runs, analysis=analysis, layers=layers)


def tokens(text: str) -> list:
    """Return a Markdown text as tokens, tables and raw HTML included, in one list."""
    found = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).parse(text)
    return [inner for token in found for inner in (token, *(token.children or ()))]


def shape(found: list) -> list[str]:
    """Return the kinds of blocks, but for how names are set within them."""
    return [token.type for token in found if token.block and token.type != "inline"]


def written(*names: str) -> list:
    """Return the tokens of the fixture's report with these names."""
    named = renamed(*names)
    return tokens(render(named, list(figures.FIGURES)))


@cache
def usual() -> list:
    return written("a", "b", "c")


@settings(deadline=None, max_examples=max(30, EXAMPLES // 10))
@given(NAMES, NAMES, NAMES)
@example(*HOSTILE[:3])
@example(*HOSTILE[3:6])
@example(HOSTILE[6], HOSTILE[7], "1.")
@example("- -", "1) x", "---")
def test_names_change_no_block_of_the_report_and_bring_no_html_or_link(one, two, free):
    if one == two or {one, two} & set(golden().analysis.methods):
        return
    hostile, plain = written(one, two, free), usual()
    assert shape(hostile) == shape(plain)
    kinds = [token.type for token in hostile]
    assert not {"html_block", "html_inline", "link_open", "s_open"} & set(kinds)
    images = [token.attrs["src"] for token in hostile if token.type == "image"]
    assert images == [token.attrs["src"] for token in plain if token.type == "image"]


@settings(deadline=None, max_examples=max(3, EXAMPLES // 100))
@given(NAMES, NAMES)
@example("$\\frac{", "_x")
@example("$a$", "\\$b$\x00")
def test_figures_are_drawn_whatever_the_names(tmp_path_factory, one, two):
    if one == two or {one, two} & set(golden().analysis.methods):
        return
    named = renamed(one, two, one)
    folder = tmp_path_factory.mktemp("figures")
    for name in ("forest", "prune_curves", "layer_sparsity"):
        figures.save(figures.FIGURES[name].draw(named), folder, name)
    assert len(list(folder.iterdir())) == 6
    assert "\x00" not in (folder / "prune_curves.svg").read_text()
