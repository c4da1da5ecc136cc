"""The notebooks in docs/ are what docs/make_notebooks.py makes, and run from top to bottom."""

import nbformat
import pytest
from jupyter_client.manager import start_new_kernel
from nbclient import NotebookClient

from docs import make_notebooks
from regbench.tracking import schema
from regbench.tracking.store import Store
from tests.conftest import PROJECT


@pytest.mark.parametrize("language", make_notebooks.NAMES)
def test_the_notebook_is_made_by_the_script(language):
    stored = nbformat.read(PROJECT / "docs" / make_notebooks.NAMES[language], as_version=4)
    assert stored == make_notebooks.notebook(language)
    nbformat.validate(stored)
    assert all(not cell.get("outputs") for cell in stored.cells)


@pytest.mark.parametrize("language", make_notebooks.NAMES)
def test_the_badge_opens_it_where_the_project_is_published(language, monkeypatch):
    readme = make_notebooks.READMES[language].read_text()
    assert make_notebooks.badge(language) in readme and make_notebooks.with_badge(readme, language) == readme
    monkeypatch.setattr(make_notebooks, "REPOSITORY", "https://github.com/lab/regbench")
    published = make_notebooks.with_badge(readme, language)
    place = f"colab.research.google.com/github/lab/regbench/blob/main/docs/{make_notebooks.NAMES[language]})"
    assert published.count(place) == 1


@pytest.mark.parametrize("language", make_notebooks.NAMES)
def test_it_runs_from_top_to_bottom(language, database, environment, elsewhere):
    found = make_notebooks.notebook(language)
    client = NotebookClient(found, timeout=120, resources={"metadata": {"path": str(elsewhere)}})
    client.execute(env=environment | {"REGBENCH_NOTEBOOK_FAST": "1"})
    outputs = [output for cell in found.cells for output in cell.get("outputs", ())]
    texts = "".join(output.get("text", "") for output in outputs)
    assert texts.count("1 finished already, 2 to train") == 1  # `none` of the last sweep
    assert "Warning" not in texts and "4/4" in texts  # the bar
    pages = [output["data"].get("text/html", "") for output in outputs if "data" in output]
    (report,) = [page for page in pages if "data:image/png" in page]
    assert "<table>" in report
    pictures = [output for output in outputs if "image/png" in output.get("data", {})]
    assert len(pictures) == 2  # the bars, and the picture that is classified
    assert not [output for output in outputs if output["output_type"] == "error"]


LONG = """
import regbench
options = {"dataset": "digits", "model": "tests.networks:Dense", "reg": "l1", "lam": 1e-3, "confirm": 0, "train_size": 200,
           "batch_size": 50}
print(len(regbench.sweep(**options, seeds=[0, 1], epochs=1, jobs=2).trials), "trials")
print("now for long")
regbench.sweep(**options, seeds=[0, 1], epochs=100_000, jobs=2)
"""


def test_a_kernel_trains_side_by_side_and_is_interrupted_as_by_ctrl_c(database, environment, elsewhere):
    told: list[str] = []
    manager, client = start_new_kernel(env=environment, cwd=str(elsewhere))

    def hear(message: dict) -> None:
        told.append(message["content"].get("text", ""))
        if "now for long" in "".join(told) and "epoch " in told[-1]:
            manager.interrupt_kernel()

    try:
        reply = client.execute_interactive(LONG, timeout=120, output_hook=hear)["content"]
        assert "2 trials side by side" in "".join(told) and "4 trials\n" in "".join(told)
        assert (reply["status"], reply["ename"]) == ("error", "KeyboardInterrupt")
        reply = client.execute_interactive("print(1 + 1)", timeout=60, output_hook=hear)["content"]
        assert reply["status"] == "ok"
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    statuses = [run.info.status for run in Store().search(schema.where(schema.KIND, "trial"))]
    assert statuses.count("FINISHED") == 4 and set(statuses) == {"FINISHED", "KILLED"}
