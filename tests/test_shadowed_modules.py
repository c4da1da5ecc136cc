"""A user's file that has the name of a library's module."""

import importlib

import pytest

from regbench import shadowed_modules

REGULARIZER = """from regbench.regularizers import L1


class Mine(L1):
    pass
"""


@pytest.mark.parametrize("name", ["random", "torch", "json"])
def test_a_file_that_is_imported_in_a_librarys_place_is_named_in_one_line(name, command, elsewhere):
    (elsewhere / f"{name}.py").write_text(REGULARIZER)
    done = command("sweep", reg=f"{name}:Mine", lam="1e-3", seeds="0", dataset="digits", dry_run="true")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    assert f"{name}.py" in done.stderr


def test_other_errors_are_nobodys_fault(tmp_path, monkeypatch):
    (tmp_path / "nobodys.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    nobodys = importlib.import_module("nobodys")

    for error in (
        AttributeError("no", name="x", obj=nobodys),
        AttributeError("no", name="x", obj=pytest),
        AttributeError("no", name="x", obj=object()),
        ImportError("no", name="nobodys"),
        ModuleNotFoundError("no", name="nowhere"),
        ValueError("no"),
    ):
        assert shadowed_modules.culprit(error) == ""
    other = tmp_path / "other"
    other.mkdir()
    (other / "nobodys.py").write_text("x = 1\n")
    monkeypatch.syspath_prepend(other)
    monkeypatch.syspath_prepend(tmp_path)
    assert shadowed_modules.culprit(AttributeError("no", name="x", obj=nobodys)) == str(tmp_path / "nobodys.py")
