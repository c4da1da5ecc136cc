"""The project's files agree with each other."""

import ast
import re
import tomllib
from pathlib import Path

import click
import pytest
import yaml
from packaging.requirements import Requirement

from regbench.commands import notebook, report, sweep
from tests.conftest import PROJECT

MLPROJECT = yaml.safe_load((PROJECT / "MLproject").read_text())
CONDA = yaml.safe_load((PROJECT / "conda.yaml").read_text())
PYPROJECT = tomllib.loads((PROJECT / "pyproject.toml").read_text())


def defaults(command: click.Command) -> dict[str, str]:
    return {option.opts[0].lstrip("-"): str(option.default).lower() for option in command.params}


@pytest.mark.parametrize(
    ("entry", "command"), [("main", sweep.main), ("notebook", notebook.main), ("report", report.main)]
)
def test_mlproject_has_each_option_with_its_default(entry, command):
    described = MLPROJECT["entry_points"][entry]
    assert {name: one["default"] for name, one in described["parameters"].items()} == defaults(command)
    for name in described["parameters"]:
        assert f"--{name} {{{name}}}" in described["command"]


@pytest.mark.parametrize(("page", "command"), [("guide", sweep.main), ("report", report.main)])
def test_the_pages_table_has_each_option_with_its_default(page, command):
    _, text = (PROJECT / "docs" / f"{page}.md").read_text().split("| parameter | default | meaning |\n|---|---|---|\n")
    found = {}
    for row in text.partition("\n\n")[0].splitlines():
        _, names, values, *_ = re.split(r"\s*\|\s*", row)
        names, values = re.findall(r"`(\w+)`", names), values.replace("`", "").split(", ")
        found |= dict(zip(names, values * (len(names) if len(values) == 1 else 1), strict=True))
    assert found == defaults(command)


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


def test_no_part_knows_of_what_comes_after_it():
    """Of the packages that are beside it or after it in the flow of data, none is imported."""
    forbidden = {
        "data": ("networks", "training", "engines", "measures", "tracking", "report", "api", "commands"),
        "regularizers": (
            "data",
            "networks",
            "training",
            "engines",
            "measures",
            "tracking",
            "report",
            "api",
            "commands",
        ),
        "networks": ("training", "engines", "measures", "tracking", "report", "api", "commands"),
        "training": ("engines", "tracking", "report", "api", "commands"),
        "engines": ("tracking", "report", "api", "commands"),
        "measures": ("engines", "tracking", "report", "api", "commands"),
        "tracking": ("training", "engines", "measures", "report", "api", "commands"),
        "report": ("training", "engines", "measures", "networks", "api", "commands"),
        "transfer": ("training", "engines", "measures", "networks", "report", "api", "commands"),
        "api": ("commands",),
    }
    for name, path in modules().items():
        package = name.split(".")[1] if "." in name else ""
        for other in forbidden.get(package, ()):
            assert not [target for target in imports(path) if target.startswith(f"regbench.{other}")], name
        if package in ("training", "engines", "measures"):
            assert "mlflow" not in {target.split(".")[0] for target in imports(path)}, name
