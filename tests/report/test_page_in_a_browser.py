"""report.html in a real browser, without a network; skipped where there is none."""

import csv
import dataclasses
import json
from collections.abc import Iterator
from html import escape
from pathlib import Path

import pytest

from docs import screenshots
from regbench.report.palette import palettes
from tests.report.make_fixture import material
from tests.report.test_page import HOSTILE, histograms, hostile, html

selenium = pytest.importorskip("selenium")
pytestmark = pytest.mark.skipif(
    not all(Path(path).exists() for path in (screenshots.CHROMIUM, screenshots.CHROMEDRIVER)), reason="no Chromium"
)
SECONDS = 20
TABLE = "document.querySelectorAll('table')[0]"
# what a page may do with the clipboard
REFUSED = (
    "Object.defineProperty(navigator, 'clipboard', {value: {writeText: () => Promise.reject()}, configurable: true})"
)
GIVEN = (
    "Object.defineProperty(navigator, 'clipboard', {value: {writeText: (text) => {window.kept = text; "
    "return Promise.resolve()}}, configurable: true})"
)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of the fixture, of which one regularizer has a name that would be HTML."""
    found = material()
    found = hostile(dataclasses.replace(found, histograms=histograms(found)))
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(html(found), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def browser(path: Path) -> Iterator["selenium.webdriver.Chrome"]:
    with screenshots.opened(screenshots.CHROMIUM, screenshots.CHROMEDRIVER) as browser:
        browser.execute_cdp_cmd("Network.enable", {})
        offline = {"offline": True, "latency": 0, "downloadThroughput": 0, "uploadThroughput": 0}
        browser.execute_cdp_cmd("Network.emulateNetworkConditions", offline)
        yield browser


@pytest.fixture
def page(browser, path):
    """The page as it is when it has been opened, in a window of a desktop."""
    screenshots.view(browser, 1280, 1000)
    browser.get(path.as_uri())
    until(browser, screenshots.drawn)
    return browser


def until(browser, condition) -> object:
    from selenium.webdriver.support.ui import WebDriverWait

    return WebDriverWait(browser, SECONDS, poll_frequency=0.05).until(condition)


def run(browser, script: str) -> object:
    return browser.execute_script(f"return {script}")


def column(browser, name: str) -> list[str]:
    cells = run(browser, f"[...{TABLE}.rows].map((row) => [...row.cells].map((cell) => cell.textContent.trim()))")
    return [row[cells[0].index(name)] for row in cells[1:]]


def header(browser, name: str):
    return next(one for one in run(browser, f"[...{TABLE}.querySelectorAll('th button')]") if one.text == name)


def test_it_asks_for_nothing_and_complains_of_nothing(page, path):
    asked = [json.loads(entry["message"])["message"] for entry in page.get_log("performance")]
    own = [one["params"] for one in asked if one["method"] == "Network.requestWillBeSent"]
    addresses = [one["request"]["url"] for one in own if one["documentURL"] == path.as_uri()]
    assert path.as_uri() in addresses
    assert not [address for address in addresses if not address.startswith(("data:", "blob:", path.as_uri()))]
    ids = {one["requestId"] for one in own if one["documentURL"] == path.as_uri()}
    failed = [one["params"] for one in asked if one["method"] == "Network.loadingFailed"]
    assert not [one for one in failed if one["requestId"] in ids]
    assert page.get_log("browser") == []
    assert run(page, "document.querySelectorAll('main script, main img[onerror]').length") == 0


@pytest.mark.parametrize("width", [1280, 360])
def test_all_fits_into_the_window(page, width):
    screenshots.view(page, width, 800)
    until(page, lambda one: run(one, "Math.max(...[...document.querySelectorAll('.chart svg, .chart canvas')]"
                                     ".map((chart) => chart.getBoundingClientRect().right))") <= width)  # fmt: skip
    assert run(page, "document.documentElement.scrollWidth") <= width
    assert run(
        page, "[...document.querySelectorAll('.chart svg, .chart canvas')].every((one) => one.clientWidth > 250)"
    )


def test_hovering_tells_the_numbers(page):
    from selenium.webdriver.common.action_chains import ActionChains

    point = run(page, "document.querySelectorAll('.chart')[0].querySelectorAll('.mark-symbol path')[0]")
    ActionChains(page).move_to_element(point).perform()
    told = until(page, lambda one: run(one, "document.querySelector('#vg-tooltip-element.visible')?.textContent"))
    for part in ("regularizerl1", "lam1e-5", "difference, pp1.57", "verdictbetter"):
        assert part in told.replace(": ", "").replace("\n", ""), told


def test_a_slider_shows_another_lam_by_the_keyboard(page):
    from selenium.webdriver.common.keys import Keys

    sliders = run(page, "[...document.querySelectorAll('input[type=range]')]")
    assert len(sliders) == 2
    drawing = "return arguments[0].closest('figure').querySelector('canvas').toDataURL()"
    for slider in sliders:
        before = page.execute_script(drawing, slider)
        slider.send_keys(Keys.ARROW_RIGHT)
        assert slider.get_attribute("aria-valuetext") == "1e-5"
        until(page, lambda one, of=slider, was=before: one.execute_script(drawing, of) != was)


def test_tables_are_sorted_by_a_click_and_by_the_keyboard(page):
    from selenium.webdriver.common.keys import Keys

    before = column(page, "regularizer")
    header(page, "difference, pp").click()
    rising = [float(shown) for shown in column(page, "difference, pp") if shown]
    assert rising == sorted(rising) and len(rising) == 7
    assert column(page, "difference, pp")[-1] == ""  # the last
    assert column(page, "regularizer") != before
    header(page, "difference, pp").send_keys(Keys.ENTER)
    assert [float(shown) for shown in column(page, "difference, pp") if shown] == rising[::-1]
    assert column(page, "difference, pp")[-1] == ""
    marked = f"[...{TABLE}.querySelectorAll('[aria-sort]')].map((one) => one.getAttribute('aria-sort'))"
    assert run(page, marked) == ["descending"]
    header(page, "regularizer").click()
    assert column(page, "regularizer") == sorted(column(page, "regularizer"), key=str.casefold)
    header(page, "lam").click()
    assert column(page, "lam")[:3] == ["1e-5 (lowest)", "1e-5 (lowest)", "1e-4 (lowest)"]


def press(browser, label: str) -> None:
    next(one for one in run(browser, "[...document.querySelectorAll('.tools button')]") if one.text == label).click()


def test_a_table_is_copied(page):
    page.execute_script(GIVEN)
    press(page, "Copy as CSV")
    rows = list(csv.reader(until(page, lambda one: run(one, "window.kept")).splitlines()))
    assert rows[0][:4] == ["regularizer", "lam", "seeds", "test"]
    assert [row[0] for row in rows[1:]] == column(page, "regularizer")
    assert " ".join(HOSTILE.split()) in [row[0] for row in rows]
    assert until(page, lambda one: run(one, "document.getElementById('told').textContent")) == "Copied."
    page.execute_script("window.kept = ''")
    press(page, "Copy as LaTeX")
    lines = until(page, lambda one: run(one, "window.kept")).splitlines()
    assert lines[0] == "\\begin{tabular}{lrrrrrrrlrrrrrr}" and lines[-1] == "\\end{tabular}"
    assert any(line.startswith("\\texttt{l1} & 1e-5 (lowest) & 12 & \\textbf{66.56\\%} & ") for line in lines)
    assert any("\\textless{}script\\textgreater{}fetch(" in line and "\\&" in line for line in lines)


def test_where_the_clipboard_is_closed_the_text_is_shown_and_selected(page):
    page.execute_script(REFUSED)
    press(page, "Copy as CSV")
    selected = until(page, lambda one: run(one, "document.querySelector('dialog textarea')"))
    assert selected.get_attribute("value").startswith('"regularizer","lam"')
    assert page.execute_script(
        "const area = arguments[0]; return area === document.activeElement && area.selectionStart === 0 "
        "&& area.selectionEnd === area.value.length", selected
    )  # fmt: skip
    run(page, "document.querySelector('dialog button').click()")
    until(page, lambda one: not run(one, "document.querySelector('dialog')"))


def test_the_charts_follow_the_colour_scheme(page):
    colour = "document.querySelectorAll('.chart')[0].querySelector('.mark-symbol path').getAttribute('fill')"
    assert run(page, colour) == palettes(7)["light"][1]
    run(page, "document.querySelector('input[type=range]').focus()")
    page.switch_to.active_element.send_keys("\ue014")  # an arrow
    screenshots.view(page, 1280, 1000, "dark")
    until(page, lambda one: run(one, colour) == palettes(7)["dark"][1])
    place = "document.querySelector('input[type=range]').closest('figure').querySelector('.chart')"
    until(page, lambda one: run(one, f"{place}.view?.signal('position')") == 1)  # as the reader has set it


def test_it_works_in_a_frame_that_may_only_run_scripts(page, path):
    """As MLflow's page of an artifact has it: without an origin, the clipboard, or an address of its own."""
    frame = path.with_name("frame.html")
    frame.write_text(
        f"<textarea hidden>{escape(path.read_text(encoding='utf-8'))}</textarea>"
        "<iframe sandbox='allow-scripts' width=1200 height=900></iframe><script>document.querySelector('iframe').src = "
        "URL.createObjectURL(new Blob([document.querySelector('textarea').value], {type: 'text/html'}))</script>",
        encoding="utf-8",
    )
    page.get(frame.as_uri())
    page.switch_to.frame(0)
    until(page, lambda one: run(one, "document.querySelectorAll('.chart').length") and screenshots.drawn(one))
    links = run(page, "[...document.querySelectorAll('nav a')]")
    links[2].click()
    place = "document.querySelectorAll('h2')[2]"
    until(page, lambda one: abs(run(one, f"{place}.getBoundingClientRect().top")) < 50)
    assert run(page, f"document.activeElement === {place}")
    header(page, "difference, pp").click()
    rising = [float(shown) for shown in column(page, "difference, pp") if shown]
    assert rising == sorted(rising)
    press(page, "Copy as CSV")
    assert until(page, lambda one: run(one, "document.querySelector('dialog textarea')?.value")).startswith(
        '"regularizer"'
    )
    page.switch_to.default_content()
