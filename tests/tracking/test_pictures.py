"""The pictures of a trial's weights, and the process that draws them."""

import logging
import os
import signal
import sys
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from safetensors.numpy import load_file

from regbench.tracking import artifacts, pictures
from regbench.tracking.drawer import Drawer

pytestmark = pytest.mark.pictures


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "files with a space"
    path.mkdir()
    weights = {"a.weight": torch.randn(4, 3, 3, 3), "out.weight": torch.randn(10, 300), "out.bias": torch.zeros(10)}
    artifacts.write(path, weights, [{"layer": "a.weight"}, {"layer": "out.weight"}])
    return path


def drawn(folder: Path) -> set[str]:
    return {path.name for path in folder.glob("*.png")}


def test_they_are_drawn_in_another_process_in_turn(folder, tmp_path):
    other = tmp_path / "other"
    folder.rename(other)
    other.rename(folder)
    with closing(Drawer()) as drawer:
        drawer.ask(folder, "l1 lam=1e-4 seed=0")
        drawer.wait(folder, "l1 lam=1e-4 seed=0")
        assert drawn(folder) == {"histograms.png", "out.png"}
        before = (folder / "out.png").stat().st_mtime_ns
        drawer.wait(folder, "l1 lam=1e-4 seed=0")  # they are there
        assert (folder / "out.png").stat().st_mtime_ns == before
        (folder / "histograms.png").unlink()  # as if the process had ended meanwhile
        drawer.wait(folder, "l1 lam=1e-4 seed=0")
        assert drawn(folder) == {"histograms.png", "out.png"}
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]


def test_what_cannot_be_drawn_is_told(folder, caplog):
    (folder / "model.safetensors").write_bytes(b"not weights")
    with closing(Drawer()) as drawer, caplog.at_level(logging.WARNING):
        drawer.wait(folder, "l2 lam=1 seed=3")
    assert "l2 lam=1 seed=3: no pictures: " in caplog.text
    assert not drawn(folder)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_of_all_processes_does_not_end_it_before_the_writer_does(folder, number):
    with closing(Drawer()) as drawer:
        drawer.wait(folder, "first")
        (folder / "histograms.png").unlink()
        os.kill(drawer._process.pid, number)
        drawer.wait(folder, "second")
        assert drawn(folder) == {"histograms.png", "out.png"}


def test_without_its_process_results_have_no_pictures(folder, caplog):
    with closing(Drawer()) as drawer:
        drawer.wait(folder, "first")
        (folder / "histograms.png").unlink()
        os.kill(drawer._process.pid, signal.SIGKILL)
        drawer._process.wait()
        for _ in range(2):
            drawer.ask(folder, "second")
            drawer.wait(folder, "second")
    assert caplog.text.count("pictures of weights are left out") == 1


def test_it_ends_when_nobody_can_ask_any_more(folder):
    drawer = Drawer()
    drawer.wait(folder, "first")
    drawer._process.stdin.close()  # as when the process that asks is killed
    assert drawer._process.wait(timeout=20) == 0
    drawer._process.stdout.close()


def test_the_counts_of_the_histograms_are_kept(folder):
    assert not pictures.draw(folder, "l1")
    weights = load_file(folder / "model.safetensors")
    found = pd.read_csv(folder / "histograms.csv", keep_default_na=False)
    assert list(found) == ["layer", "low", "high", "count"]
    assert list(dict.fromkeys(found["layer"])) == ["a.weight", "out.weight", ""]
    together = found[found["layer"] == ""]
    assert together["count"].sum() == sum(weights[layer].size for layer in ("a.weight", "out.weight"))
    assert len(together) == pictures.BINS_OF_ALL
    for layer, own in found[found["layer"] != ""].groupby("layer"):
        assert own["count"].sum() == weights[layer].size
        assert (own["low"].min(), own["high"].max()) == pytest.approx(
            (weights[layer].min(), weights[layer].max()), rel=1e-5
        )
        assert (own["low"].iloc[1:].to_numpy() == own["high"].iloc[:-1].to_numpy()).all()
        inside = (weights[layer] > own["low"].iloc[50]) & (weights[layer] < own["high"].iloc[50])
        assert abs(inside.sum() - own["count"].iloc[50]) <= 1  # edges are rounded


def test_the_output_layer_is_kept_as_exact_as_a_picture(tmp_path):
    w = torch.tensor([[1.0, -1e6, torch.inf], [1e-3, torch.nan, 0.0]])
    artifacts.write(
        tmp_path, {"a.weight": torch.ones(2, 2), "out.weight": w}, [{"layer": "a.weight"}, {"layer": "out.weight"}]
    )
    pictures.draw(tmp_path, "l1")
    found = load_file(tmp_path / "output.safetensors")
    assert list(found) == ["out.weight"] and found["out.weight"].dtype == np.float16
    np.testing.assert_allclose(found["out.weight"], [[1.0, -65504, 65504], [1e-3, 0.0, 0.0]], rtol=1e-3)


@given(
    st.lists(st.floats(-1, 1, width=32), min_size=5, max_size=60),
    st.integers(1, 5),
    st.integers(2, 30),
)
def test_a_pixel_is_as_dark_as_bars_reach_it(values, columns, rows):
    values = np.array(values)
    edges = np.linspace(-1.05, 1.05, rows + 1)
    found = pictures.coverage(values, columns, edges)
    for column in range(columns):
        part = [v for i, v in enumerate(values) if i * columns // len(values) == column]
        for row in range(rows):
            low, high = edges[row], edges[row + 1]
            # of the pixels in which a bar ends and begins, the whole is covered
            reached = [v for v in part if (v > 0 and v >= low and high > 0) or (v < 0 and v < high and low <= 0)]
            assert found[row, column] == pytest.approx(min(1, len(reached) / max(1, len(part))))


def test_many_bars_are_drawn_as_their_shares_and_few_as_they_are(tmp_path):
    for count in (pictures.WIDTH // 2, 20 * pictures.WIDTH):
        values = np.zeros(count)
        values[: count // 2] = 1.0
        start = time.perf_counter()
        pictures.bars(values[None], "half").savefig(tmp_path / "bars.png", dpi=100)
        assert time.perf_counter() - start < 5
        image = np.asarray(Image.open(tmp_path / "bars.png").convert("L")).astype(int)
        inside = image[60:200, 100:850]
        left, right = inside[:, : inside.shape[1] // 2 - 20], inside[:, inside.shape[1] // 2 + 20 :]
        assert left.max() < 140  # full
        assert right.min() == 255  # empty


def test_an_odd_path_does_no_harm_and_what_else_is_printed_only_loses_pictures(folder, monkeypatch, tmp_path, caplog):
    monkeypatch.setattr(sys, "path", [*sys.path, tmp_path])
    with closing(Drawer()) as drawer:
        drawer.wait(folder, "first")
        assert drawn(folder) == {"histograms.png", "out.png"}
    (tmp_path / "sitecustomize.py").write_text("print('hello')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (folder / "histograms.png").unlink()
    with closing(Drawer()) as drawer:
        drawer.wait(folder, "second")
    assert "pictures of weights are left out: the process that draws them does not answer" in caplog.text
