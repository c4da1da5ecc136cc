import json
import platform
from dataclasses import replace

import pytest
import torch

from regbench import environment
from regbench.engine import choice, remembered, stacked
from regbench.engine.choice import Engine
from regbench.engine.remembered import recall, remember
from regbench.files import cache_folder
from regbench.sweep import Recipe, Trial
from tests.conftest import striped


def test_a_value_is_known_under_its_own_circumstances_only():
    assert recall("speed", batch=100) is None
    remember("speed", 0.25, batch=100, device="cpu")
    remember("speed", 0.5, batch=64, device="cpu")
    assert recall("speed", device="cpu", batch=100) == 0.25
    assert recall("speed", batch=100) is None
    assert recall("size", batch=100, device="cpu") is None
    remember("speed", 0.125, batch=100, device="cpu")
    assert recall("speed", batch=100, device="cpu") == 0.125


@pytest.mark.parametrize("damage", ["", "{", "[1]", "\ud800"])
def test_a_damaged_file_is_as_none(damage):
    remember("speed", 1.0)
    (stored,) = cache_folder().iterdir()
    stored.write_bytes(damage.encode("utf-8", "surrogatepass"))
    assert recall("speed") is None
    remember("speed", 2.0)
    assert recall("speed") == 2.0


def test_a_folder_that_cannot_be_written_is_done_without(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("REGBENCH_CACHE", str(tmp_path / "file" / "below"))
    remember("speed", 1.0)
    assert recall("speed") is None


def test_the_oldest_is_forgotten(monkeypatch):
    monkeypatch.setattr(remembered, "MOST", 2)
    for batch in (1, 2, 1, 3):
        remember("speed", batch, batch=batch)
    assert [recall("speed", batch=batch) for batch in (1, 2, 3)] == [1, None, 3]
    (stored,) = cache_folder().iterdir()
    assert len(json.loads(stored.read_text())) == 2


@pytest.fixture
def gpu(monkeypatch):
    """What is asked of a GPU, as if there were one; `measured` is filled with what is measured."""
    asked = {"name": "H100", "cudnn": 90000, "measured": []}
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: asked["name"])
    monkeypatch.setattr(torch.backends.cudnn, "version", lambda: asked["cudnn"])
    monkeypatch.setattr(stacked, "_seconds", lambda convolution, *_: asked["measured"].append(convolution) or 1.0)
    yield asked
    stacked._measured.cache_clear()


@pytest.mark.parametrize(("changed", "again"), [({}, 0), ({"name": "A100"}, 1), ({"cudnn": 90100}, 1)])
def test_a_convolution_is_measured_once_for_a_kind_of_gpu(gpu, monkeypatch, changed, again):
    """Whatever the machine is called: in a later process on another one, a stack goes on as it was rounded."""
    recipe, device = Recipe("x", "f", 100, 10), torch.device("cuda:0")
    first = stacked.fastest_convolution(recipe, 8, device)
    count = len(gpu["measured"])
    assert count > 1
    stacked._measured.cache_clear()
    monkeypatch.setattr(platform, "node", lambda: "another")
    gpu |= changed
    assert stacked.fastest_convolution(recipe, 8, device) == first
    assert len(gpu["measured"]) == (1 + again) * count


def test_a_speed_is_that_of_a_processor_or_gpu_and_of_a_version(gpu, monkeypatch):
    trials, data = [Trial(Recipe("x", "f", 100, 10), "l1", 1e-3, 0)], striped()
    numbers = iter(range(1, 100))
    monkeypatch.setattr(Engine, "_measure", lambda *_: float(next(numbers)))
    on_cpu, on_gpu = Engine(choice.SEQUENTIAL, "cpu"), Engine(choice.SEQUENTIAL, "cuda:0")

    def found():
        return [engine.seconds_per_image(trials, data) for engine in (on_cpu, on_gpu)]

    assert found() == found() == [1.0, 2.0]
    assert replace(on_cpu, threads=4).seconds_per_image(trials, data) == 3.0
    monkeypatch.setattr(platform, "node", lambda: "another")
    assert found() == [1.0, 2.0]
    gpu["name"] = "A100"
    assert found() == [1.0, 4.0]
    monkeypatch.setattr(environment, "processor", lambda: "Another CPU @ 9 GHz")
    assert found() == [5.0, 4.0]
    monkeypatch.setattr(choice, "__version__", "99")
    assert found() == [6.0, 7.0]


def test_the_processor_has_a_name():
    assert environment.processor()
