"""Pictures of a sweep in MLflow's own pages, or of a report's page, by headless Chromium; see docs/team-server.md."""

import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from urllib.parse import quote

import click
from mlflow.entities import LoggedModel, Run
from PIL import Image

from regbench.commands import exit_code
from regbench.errors import UserError
from regbench.tracking import schema
from regbench.tracking.store import Store
from regbench.tracking.view import KEY

try:  # an optional dependency: regbench[screenshots]
    from selenium import webdriver
    from selenium.common.exceptions import TimeoutException
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys
    from selenium.webdriver.support.ui import WebDriverWait
except ImportError:
    webdriver = None

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
)
SIZE = (1600, 1000)
# of a report's page: name -> width and height, colour scheme, and what of it is at the top
PARTS = {
    "report-desktop": (1280, 1000, "light", "h1"),
    "report-phone": (390, 844, "light", "h1"),
    "report-dark": (1280, 1000, "dark", ".controls"),
}
CHROMIUM, CHROMEDRIVER = "/usr/bin/chromium", "/usr/bin/chromedriver"
DESCRIPTION = 1100  # width up to the end of a run's description: beside it its tags name the machine
SECONDS = 15  # to wait for the content of a page
COLOURS = 256  # of a stored picture, which is a quarter of the browser's
METRICS = ("sparsity/exact", "test/accuracy")
# the pages' state in the browser's storage: the kind of work, and that the assistant was seen and closed
REMEMBERED = {
    "mlflow.workflowType_v1": '"machine_learning"',
    "mlflow.assistant.fab.autoOpenedOnFirstLoad_v1": "true",
    "mlflow.assistant.panelOpen_v1": "false",
}


@click.command(help=__doc__, context_settings={"show_default": True})
@click.option("--experiment", default="regbench", help="MLflow experiment on the server MLFLOW_TRACKING_URI")
@click.option("--report", default="", help="the path of a report.html, to make pictures of it instead")
@click.option("--out", default="screenshots", help="folder for the pictures")
@click.option("--chromium", default=CHROMIUM, help="the browser")
@click.option("--chromedriver", default=CHROMEDRIVER, help="its driver, of the same version")
def main(experiment: str, report: str, out: str, chromium: str, chromedriver: str) -> None:
    if report and not Path(report).is_file():
        raise UserError(f"report={report!r} is not there: give the path of a report.html")
    store = None if report else Store(experiment)
    if store and not store.uri.startswith("http"):
        raise UserError(f"MLFLOW_TRACKING_URI={store.uri!r} is not a server: give its http address")
    if webdriver is None:
        raise UserError("selenium is not installed: pip install -e '.[screenshots]'")
    for path in (chromium, chromedriver):
        if not Path(path).exists():
            raise UserError(f"there is no {path} (Debian: apt-get install chromium chromium-driver), or name another")
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    with opened(chromium, chromedriver) as browser:
        if store is None:
            _report(browser, Path(report), folder)
        else:
            _pages(browser, store, folder)


def _pages(browser: "webdriver.Chrome", store: Store, folder: Path) -> None:
    """Save pictures of the newest finished sweep in MLflow's pages."""
    sweeps = store.search(f"tags.`{schema.KIND}` = 'sweep' and attributes.status = 'FINISHED'")
    if not sweeps:
        raise UserError(f"the experiment {store.experiment!r} in {store.uri} holds no finished sweep")
    sweep = sweeps[-1]
    trials = store.search(f"{schema.in_sweep(sweep.data.tags[schema.SWEEP])} and attributes.status = 'FINISHED'")
    pages = Pages(browser, store.uri.rstrip("/"), store.experiment_id, folder)
    pages.children(trials)
    pages.sweep(sweep)
    for model in sweep.outputs.model_outputs[-1:]:
        pages.model(store.client.get_logged_model(model.model_id))
    pages.compared("two-trials", _two(trials))
    pages.compared("parallel-coordinates", trials)


def drawn(browser: "webdriver.Chrome") -> bool:
    """Return whether a report's page shows its charts."""
    return browser.execute_script(
        "return [...document.querySelectorAll('.chart')].every((chart) => chart.querySelector('svg, canvas'))"
    )


def _report(browser: "webdriver.Chrome", page: Path, folder: Path) -> None:
    """Save pictures of a report's page: see PARTS."""
    for name, (width, height, scheme, top) in PARTS.items():
        view(browser, width, height, scheme)
        browser.get(page.resolve().as_uri())
        WebDriverWait(browser, SECONDS).until(drawn)
        browser.execute_script("document.querySelector(arguments[0]).scrollIntoView({behavior: 'instant'})", top)
        _save(browser, folder, name)


class Pages:
    """Opens pages of MLflow, waits until they show the runs, and saves pictures of them."""

    def __init__(self, browser: "webdriver.Chrome", server: str, experiment_id: str, folder: Path) -> None:
        self._browser, self._server, self._experiment_id, self._folder = browser, server, experiment_id, folder
        self._until = WebDriverWait(browser, SECONDS).until
        browser.get(server)
        for name, value in REMEMBERED.items():
            self._remember(name, value)

    def children(self, trials: list[Run]) -> None:
        """List the trials in the view that a sweep saves, with its columns."""
        self._open(f"/experiments/{self._experiment_id}/runs?viewStateShareKey={KEY}")
        self._wait(lambda text: trials[-1].info.run_name in text)
        _save(self._browser, self._folder, "children")

    def model(self, model: LoggedModel) -> None:
        """Show a logged model: what it is from, its metrics and its data set."""
        self._open(f"/experiments/{self._experiment_id}/models/{model.model_id}")
        self._wait(lambda text: model.name in text and model.model_id in text)
        _save(self._browser, self._folder, "model")

    def sweep(self, run: Run) -> None:
        """Show the description of the sweep's own run, with a report's figure."""
        self._open(f"/experiments/{self._experiment_id}/runs/{run.info.run_id}")
        self._wait(lambda text: run.info.run_name in text and "Child runs" in text and "Show more" in text)
        self._browser.find_element(By.XPATH, "//*[text()='Show more']").click()
        loaded = "return Array.from(document.images).every(image => image.complete)"
        self._until(lambda browser: browser.execute_script(loaded))
        _save(self._browser, self._folder, "sweep", DESCRIPTION)

    def compared(self, name: str, runs: list[Run]) -> None:
        """Compare runs: parallel coordinates over the differing settings and METRICS, and the table of values."""
        ids = quote(json.dumps([run.info.run_id for run in runs]))
        self._open(f"/compare-runs?runs={ids}&experiments={quote(json.dumps([self._experiment_id]))}")
        self._wait(lambda text: f"Comparing {len(runs)} Runs" in text and "Metrics:" in text)
        chosen = self._browser.find_elements(By.CSS_SELECTOR, "input[role=combobox]")[1]
        for metric in [*self._chosen(chosen), *METRICS]:  # each is toggled, so those chosen at first are cleared
            self._switch(chosen, metric)
        chosen.send_keys(Keys.ESCAPE)
        self._until(lambda _: set(METRICS) <= self._axes())
        _save(self._browser, self._folder, name)

    def _chosen(self, box: object) -> list[str]:
        return [part for part in (box.get_attribute("aria-description") or "").split(", ") if part]

    def _axes(self) -> set[str]:
        """Return the names of the axes that are drawn."""
        titles = self._browser.find_elements(By.CSS_SELECTOR, ".parcoords .axis-title")
        return {title.get_attribute("data-unformatted") for title in titles}

    def _switch(self, box: object, name: str) -> None:
        """Toggle an option of an open list by the keyboard: the list holds only what is in view."""
        if box.get_attribute("aria-expanded") != "true":
            box.send_keys(Keys.ENTER)
        before = self._chosen(box)
        for _ in range(200):
            label = self._browser.execute_script(
                "const o = document.getElementById(arguments[0]);"
                "return o && (o.getAttribute('aria-label') || o.innerText)",
                box.get_attribute("aria-activedescendant"),
            )
            if label == name:
                box.send_keys(Keys.ENTER)
                self._until(lambda _: self._chosen(box) != before)
                return
            box.send_keys(Keys.ARROW_DOWN)
        raise RuntimeError(f"the page offers no {name}")

    def _remember(self, name: str, value: str) -> None:
        self._browser.execute_script("localStorage.setItem(arguments[0], arguments[1])", name, value)

    def _open(self, path: str) -> None:
        self._browser.get("about:blank")  # a change after the # alone would not reload the page
        self._browser.get(f"{self._server}/#{path}")

    def _wait(self, shown: Callable[[str], bool]) -> None:
        try:
            self._until(lambda browser: shown(browser.find_element(By.TAG_NAME, "body").text))
        except TimeoutException as error:
            _save(self._browser, self._folder, "failed")
            raise UserError(f"{self._browser.current_url} does not show the runs; see failed.png") from error


def _save(browser: "webdriver.Chrome", folder: Path, name: str, width: int | None = None) -> None:
    picture = Image.open(BytesIO(browser.get_screenshot_as_png())).convert("RGB")
    picture = picture.crop((0, 0, width or picture.width, picture.height))
    path = folder / f"{name}.png"
    picture.quantize(COLOURS, dither=Image.Dither.NONE).save(path, optimize=True)
    click.echo(f"{path}: {path.stat().st_size / 1000:.0f} kB")


def view(browser: "webdriver.Chrome", width: int, height: int, scheme: str = "light") -> None:
    """Give what is shown this size, and the colours of a scheme."""
    # --window-size would include the window's frame, and is never below 500 wide
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False},
    )
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


@contextmanager
def opened(chromium: str, chromedriver: str) -> Iterator["webdriver.Chrome"]:
    """Give a browser for the block, which keeps what its console and its requests were for `get_log`."""
    options = webdriver.ChromeOptions()
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    options.binary_location = chromium
    with tempfile.TemporaryDirectory(prefix="regbench-chromium-", ignore_cleanup_errors=True) as profile:
        for flag in (*FLAGS, f"--user-data-dir={profile}"):
            options.add_argument(flag)
        browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(chromedriver))
        try:
            view(browser, *SIZE)
            yield browser
        finally:
            browser.quit()


def _two(trials: list[Run]) -> list[Run]:
    """Return a trial of the baseline and the sparsest other one of the same seed that did not collapse."""
    first, *others = trials
    seed = first.data.params["seed"]
    usable = [run for run in others if run.data.params["seed"] == seed and run.data.tags[schema.STATUS] == "ok"]
    return [first, max(usable, key=lambda run: run.data.metrics["sparsity/exact"])]


if __name__ == "__main__":
    exit_code.run(main)
