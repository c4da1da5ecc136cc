import json

import pytest

from regbench.engine import remembered
from regbench.engine.remembered import recall, remember
from regbench.files import cache_folder


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
