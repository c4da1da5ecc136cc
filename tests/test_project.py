"""The project's files agree with each other."""

import ast
import re
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

from benchmarks import notebook, report, sweep
from tests.conftest import PROJECT

MLPROJECT = yaml.safe_load((PROJECT / "MLproject").read_text())
CONDA = yaml.safe_load((PROJECT / "conda.yaml").read_text())
PYPROJECT = tomllib.loads((PROJECT / "pyproject.toml").read_text())


@pytest.mark.parametrize(
    ("entry", "command"), [("main", sweep.main), ("notebook", notebook.main), ("report", report.main)]
)
def test_mlproject_has_each_option_with_its_default(entry, command):
    described = MLPROJECT["entry_points"][entry]
    defaults = {name: parameter["default"] for name, parameter in described["parameters"].items()}
    options = {option.opts[0].lstrip("-"): str(option.default).lower() for option in command.params}
    assert defaults == options
    for name in defaults:
        assert f"--{name} {{{name}}}" in described["command"]


def test_conda_pins_a_version_of_every_dependency_that_pyproject_allows():
    (pins,) = [part["pip"] for part in CONDA["dependencies"] if isinstance(part, dict)]
    pinned = dict(pin.split("==") for pin in pins)
    project = PYPROJECT["project"]
    required = [Requirement(text) for text in project["dependencies"] + project["optional-dependencies"]["test"]]
    assert set(pinned) == {requirement.name for requirement in required}
    for requirement in required:
        assert requirement.specifier.contains(pinned[requirement.name]), requirement


def modules() -> dict[str, Path]:
    found = {}
    for path in (PROJECT / "regbench").rglob("*.py"):
        parts = path.relative_to(PROJECT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(path: Path) -> set[str]:
    """Return the modules of this project, and the first part of others, that a file imports anywhere."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module)
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def test_imports_go_one_way():
    graph = {name: {target for target in imports(path) if target in modules()} for name, path in modules().items()}

    def reach(start: str) -> set[str]:
        seen, todo = set(), [start]
        while todo:
            for target in graph[todo.pop()] - seen:
                seen.add(target)
                todo.append(target)
        return seen

    assert not [name for name in graph if name in reach(name)]


def test_the_engine_does_not_know_mlflow_and_the_writer_does_not_know_the_engine():
    for name, path in modules().items():
        used = {target.split(".")[0] for target in imports(path)}
        if name.startswith("regbench.engine"):
            assert "mlflow" not in used
        if name.startswith("regbench.tracking"):
            assert not [target for target in imports(path) if target.startswith("regbench.engine")]


def test_every_file_that_the_readme_names_exists():
    text = (PROJECT / "README.md").read_text()
    named = set(re.findall(r"\]\(([^)#:]+)\)", text))
    named |= set(re.findall(r"`((?:benchmarks|regbench|tests)/[\w./]+)`", text))
    assert named
    assert not [name for name in named if not (PROJECT / name).exists()]
