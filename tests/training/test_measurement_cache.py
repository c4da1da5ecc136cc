import json
import platform
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch

from regbench import provenance
from regbench.engines import base, select, sequential
from regbench.files import cache_folder
from regbench.training import convolutions, measurement_cache
from regbench.training.measurement_cache import get, put
from regbench.trial import Recipe, Trial
from tests.conftest import striped


def test_a_value_is_known_under_its_own_circumstances_only():
    assert get("speed", batch=100) is None
    put("speed", 0.25, batch=100, device="cpu")
    put("speed", 0.5, batch=64, device="cpu")
    assert get("speed", device="cpu", batch=100) == 0.25
    assert get("speed", batch=100) is None
    assert get("size", batch=100, device="cpu") is None
    put("speed", 0.125, batch=100, device="cpu")
    assert get("speed", batch=100, device="cpu") == 0.125


@pytest.mark.parametrize("damage", ["", "{", "[1]", "\ud800"])
def test_a_damaged_file_is_as_none(damage):
    put("speed", 1.0)
    (stored,) = cache_folder().iterdir()
    stored.write_bytes(damage.encode("utf-8", "surrogatepass"))
    assert get("speed") is None
    put("speed", 2.0)
    assert get("speed") == 2.0


def test_a_folder_that_cannot_be_written_is_done_without(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("REGBENCH_CACHE", str(tmp_path / "file" / "below"))
    put("speed", 1.0)
    assert get("speed") is None


def test_the_oldest_is_forgotten(monkeypatch):
    monkeypatch.setattr(measurement_cache, "MOST", 2)
    for batch in (1, 2, 1, 3):
        put("speed", batch, batch=batch)
    assert [get("speed", batch=batch) for batch in (1, 2, 3)] == [1, None, 3]
    (stored,) = cache_folder().iterdir()
    assert len(json.loads(stored.read_text())) == 2


@pytest.fixture
def gpu(monkeypatch):
    """What is asked of a GPU, as if there were one; `measured` is filled with what is measured."""
    asked = {"name": "H100", "cudnn": 90000, "measured": []}
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: asked["name"])
    monkeypatch.setattr(torch.backends.cudnn, "version", lambda: asked["cudnn"])
    settings = []

    @contextmanager
    def taken(kind, _):
        settings.append(kind)
        yield
        settings.clear()

    def measure(convolution, *_):
        assert settings == ["float32"]  # else other algorithms are timed than those of the training
        asked["measured"].append(convolution)
        return 1.0

    monkeypatch.setattr(convolutions.precision, "settings", taken)
    monkeypatch.setattr(convolutions, "_seconds", measure)
    yield asked
    convolutions._measured.cache_clear()


@pytest.mark.parametrize(("changed", "again"), [({}, 0), ({"name": "A100"}, 1), ({"cudnn": 90100}, 1)])
def test_a_convolution_is_measured_once_for_a_kind_of_gpu(gpu, monkeypatch, changed, again):
    """Whatever the machine is called: in a later process on another one, a stack goes on as it was rounded."""
    recipe, device = Recipe("x", "f", 100, 10), torch.device("cuda:0")
    first = convolutions.fastest_convolution(recipe, 8, device)
    count = len(gpu["measured"])
    assert count > 1
    convolutions._measured.cache_clear()
    monkeypatch.setattr(platform, "node", lambda: "another")
    gpu |= changed
    assert convolutions.fastest_convolution(recipe, 8, device) == first
    assert len(gpu["measured"]) == (1 + again) * count


def test_a_speed_is_that_of_a_processor_or_gpu_and_of_a_version(gpu, monkeypatch):
    trials, data = [Trial(Recipe("x", "f", 100, 10), "l1", 1e-3, 0)], striped()
    numbers = iter(range(1, 100))
    monkeypatch.setattr(sequential, "measure", lambda *_: float(next(numbers)))

    def found():
        return [select.sequential(device).seconds_per_image(trials, data) for device in ("cpu", "cuda:0")]

    assert found() == found() == [1.0, 2.0]
    assert replace(select.sequential("cpu"), threads=4).seconds_per_image(trials, data) == 3.0
    monkeypatch.setattr(platform, "node", lambda: "another")
    assert found() == [1.0, 2.0]
    gpu["name"] = "A100"
    assert found() == [1.0, 4.0]
    monkeypatch.setattr(provenance, "processor", lambda: "Another CPU @ 9 GHz")
    assert found() == [5.0, 4.0]
    monkeypatch.setattr(base, "__version__", "99")
    assert found() == [6.0, 7.0]


def test_the_processor_has_a_name():
    assert provenance.processor()
