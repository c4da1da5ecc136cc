"""What makes two trainings the same, beside their settings: the version of regbench's results, and a user's own code."""

import ast
import hashlib
import json
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Mapping
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec, resolve_name
from pathlib import Path
from typing import Any

from regbench import importing, regularizers

# to be raised with every change that gives a trial other weights or other measures, in any engine or precision: finished
# trials are then trained again. tests/test_golden.py fails where that is forgotten.
RESULT_VERSION = 2
# folders of installed packages, which lie within the standard library's
INSTALLED = {"site-packages", "dist-packages"}


def digest(value: object) -> str:
    """Return the sha256 of what JSON holds, hex, whatever the order of keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def trial_key(trial: Mapping[str, Any]) -> str:
    """Return the sha256, hex, of a trial's fields, the version of regbench's results, and the user's own files.

    Raises UserError if the user's code cannot be imported.
    """
    code = files(trial["regularizer"], trial["recipe"]["model"])
    return digest({**trial, "results": RESULT_VERSION, "files": code})


@importing.cached
def files(regularizer: str, model: str) -> dict[str, str]:
    """Return module name -> hash of the user's own code: empty for a packaged regularizer and network.

    It is the files of the regularizer and of the network, of their bases, and every file that one of these imports, in
    any function of it, from outside of site-packages and the standard library. Comments, docstrings and layout do not
    count, nor where a file is.
    """
    start: set[str] = set()
    for name in filter(regularizers.is_plugin, regularizers.split(regularizer)):
        start |= _modules(regularizers.find(name), name)
    if ":" in model:
        start |= _modules(importing.by_path("model", model, "accepted: an import path pkg.module:Class"), model)
    return sources(start)


def _modules(cls: type, spec: str) -> set[str]:
    """Return the modules in which a user's class and its bases are written, and the one that hands it on."""
    named = {spec.partition(":")[0]} if ":" in spec else set()
    # where a package was installed its bases count, but not torch's
    return {name for name in named | {base.__module__ for base in cls.__mro__} if not is_library(name)}


def is_library(module: str) -> bool:
    """Return whether a module is regbench's own, torch's, or the standard library's."""
    top = module.partition(".")[0]
    spec = _spec(top)
    return top in ("regbench", "torch", "builtins") or (spec is not None and _in_standard_library(spec))


def sources(start: Iterable[str]) -> dict[str, str]:
    """Return module name -> hash of its code, for the modules `start` and the user's own that they import."""
    start = set(start)
    waiting, seen, found = sorted(start), set(), {}
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        spec = _spec(name)
        if spec is None or (name not in start and _is_installed(spec)):
            continue
        content = _content(spec)
        try:
            tree = ast.parse(content)
        except (SyntaxError, ValueError):  # compiled, or for another Python
            found[name] = hashlib.sha256(content).hexdigest()
            continue
        found[name] = digest(_bare(tree))
        for imported in _imports(tree, spec.parent or ""):
            parts = imported.split(".")
            waiting += (".".join(parts[:count]) for count in range(1, len(parts) + 1))
    return found


def _spec(name: str) -> ModuleSpec | None:
    """Return where a module is, None if there is none; nothing is imported for it."""
    parent = name.rpartition(".")[0]
    try:
        if name in sys.modules or not parent:
            return find_spec(name)
        package = _spec(parent)
        folders = package.submodule_search_locations if package else None
        return PathFinder.find_spec(name, folders) if folders else None
    except (ImportError, ValueError, AttributeError):  # the import statement would fail, or the module has no file
        return None


def _is_installed(spec: ModuleSpec) -> bool:
    """Return whether a module is regbench's own, the standard library's or an installed one, and not a user's file."""
    packaged = spec.name.partition(".")[0] == "regbench" or not INSTALLED.isdisjoint(Path(spec.origin or "").parts)
    return packaged or _in_standard_library(spec)


def _in_standard_library(spec: ModuleSpec) -> bool:
    # a folder without __init__.py has no origin
    path, roots = Path(spec.origin or ""), {Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib")}
    within = any(path.is_relative_to(root) or path.is_relative_to(root.resolve()) for root in roots)
    return spec.origin in ("built-in", "frozen") or (within and INSTALLED.isdisjoint(path.parts))


def _content(spec: ModuleSpec) -> bytes:
    """Return a module's file as it is, also from within a zip file; empty where there is none."""
    try:
        return spec.loader.get_data(spec.origin)
    except (AttributeError, TypeError, OSError):
        return b""


def _imports(tree: ast.AST, package: str) -> Iterator[str]:
    """Yield the names of what a module's import statements may import, of a module in `package`."""
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                yield from (alias.name for alias in names)
            case ast.ImportFrom(module=module, names=names, level=level):
                try:
                    base = resolve_name("." * level + (module or ""), package)
                except ImportError:  # beyond the outermost package
                    continue
                yield base
                # what is imported from a package may be a module of it
                yield from (f"{base}.{alias.name}" for alias in names)
            case ast.Call(
                func=ast.Name(id="__import__" | "import_module") | ast.Attribute(attr="import_module"),
                args=[ast.Constant(value=str(name)), *_],
            ) if not name.startswith("."):
                yield name


def _bare(node: object) -> object:
    """Return a syntax tree as lists and strings, without docstrings and positions, alike in every version of Python."""
    if isinstance(node, list):
        return [_bare(item) for item in node]
    if not isinstance(node, ast.AST):
        return ascii(node)
    fields = dict(ast.iter_fields(node))
    documented = isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
    if documented and ast.get_docstring(node, clean=False) is not None:
        fields["body"] = node.body[1:] or [ast.Pass()]
    fields.pop("kind", None)  # the u before a string, which not every version records for all of its parts
    # fields that only newer versions have are empty in code that older ones can read
    filled = {name: _bare(value) for name, value in fields.items() if value is not None and value != []}
    return [type(node).__name__, filled]
