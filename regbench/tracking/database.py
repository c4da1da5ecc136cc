"""An SQLite file as the tracking store: which file an address names, and whether it is MLflow's to use."""

from __future__ import annotations

import os
import re
import shlex
import sqlite3
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TypeVar
from urllib.parse import unquote

from regbench.errors import UserError, one_line

T = TypeVar("T")
SQLITE = "sqlite:///"
# the way out that all errors of the store name
FIX = "set MLFLOW_TRACKING_URI to a writable sqlite:///<file> or a running server's http address"
# tables of every MLflow, from the first version on
TABLES = {"experiments", "runs"}
PAUSE = 1.0  # seconds
SHOWN = 3  # tables of another program's database that are named


def is_sqlite(uri: str) -> bool:
    """Tell whether an address is one of SQLite's, with or without the name of a driver."""
    return re.match(r"sqlite(\+\w+)?:", uri, re.IGNORECASE) is not None


def check_installed() -> None:
    """Raise UserError where MLflow is installed below a folder with % in its name: from there it opens no database."""
    found = find_spec("mlflow")
    if found and "%" in (found.origin or ""):
        raise UserError(
            f"MLflow is installed in {Path(found.origin).parent} and cannot read the % in that: make the environment in "
            "another folder, as in: python3 -m venv ~/.venvs/regbench"
        )


def file(uri: str) -> Path:
    """Return the absolute path of the file that MLflow takes an SQLite address for; raises UserError if it is none.

    `mlflow run` writes the path with percent codes, and SQLAlchemy reads them.
    """
    try:
        if uri.startswith(SQLITE) and not {"%", "?"} & set(uri):
            name, options = uri.removeprefix(SQLITE), None
        else:
            from sqlalchemy.engine import make_url  # takes half a second to import
            from sqlalchemy.exc import ArgumentError

            try:
                read = make_url(uri)
            except ArgumentError as error:
                raise ValueError("it names no file") from error
            name, options = read.database, read.query
        if not name or name == ":memory:" or options:
            raise ValueError("it names no file, or options that are not read")
        return Path(name).resolve()
    except (OSError, ValueError, RuntimeError) as error:
        raise _unusable(uri, error) from error


def address(path: Path) -> str:
    """Return the address that MLflow takes for the file at this absolute path."""
    name = str(path)
    if "?" not in name and unquote(name) == name:
        return f"{SQLITE}{name}"
    from sqlalchemy.engine import URL

    # with the driver's name, since MLflow makes a folder of the text that follows sqlite:///, codes and all
    return URL.create("sqlite+pysqlite", database=name).render_as_string()


def is_empty(path: Path, write: bool = True) -> bool:
    """Return whether MLflow's tables are still to be made in the file, which need not be there yet.

    Raises UserError if it cannot be opened or, for `write`, written, which MLflow would try for minutes, and if it holds
    what is not MLflow's, which MLflow would add its tables to.
    """
    uri = address(path)
    try:
        if not path.exists():
            if not path.parent.is_dir():
                raise FileNotFoundError(f"there is no folder {path.parent}")
            if write:
                with tempfile.TemporaryFile(dir=path.parent):
                    pass
            return True
        found = _settled(lambda: _tables(path, write), lambda tables: not tables or tables >= TABLES)
        # SQLite keeps its journal beside the file
        for place in (path, path.parent) if write else ():
            if not os.access(place, os.W_OK):
                raise PermissionError(f"{place} is not writable")
    except (OSError, ValueError, sqlite3.Error) as error:
        if "locked" in str(error):
            raise UserError(f"the tracking store {uri} is locked by another program: wait for it, or end it") from error
        raise _unusable(uri, error) from error
    refuse_foreign(uri, found)
    return not found


def _tables(path: Path, write: bool = False) -> set[str]:
    return {name for (name,) in _ask(path, "SELECT name FROM sqlite_master WHERE type = 'table'", write)}


def _ask(path: Path, query: str, write: bool = False) -> list[tuple]:
    connection = sqlite3.connect(f"{path.as_uri()}?mode={'rw' if write else 'ro'}", uri=True)
    try:
        return connection.execute(query).fetchall()
    finally:
        connection.close()


def _settled(read: Callable[[], T], good: Callable[[T], bool]) -> T:
    """Return what is read once it is good, or no longer changes: another process may be making MLflow's tables."""
    value = read()
    while not good(value):
        time.sleep(PAUSE)
        before, value = value, read()
        if value == before:
            break
    return value


def check_remote(uri: str) -> None:
    """Do of a database server what `is_empty` does of a file; raises what SQLAlchemy raises too."""
    from sqlalchemy import create_engine, inspect

    engine = create_engine(uri)
    try:
        refuse_foreign(uri, set(inspect(engine).get_table_names()))
    finally:
        engine.dispose()


def check_schema(path: Path) -> None:
    """Raise UserError if the tables in the file are of another version of MLflow, which would alter some of them."""
    import mlflow
    from alembic.script import ScriptDirectory
    from alembic.util import CommandError

    known = ScriptDirectory(str(Path(mlflow.__file__).parent / "store" / "db_migrations"))
    newest = known.get_current_head()
    version = _settled(lambda: _version(path), lambda found: found == newest)
    if version == newest:
        return
    uri = address(path)
    try:
        known.get_revision(version)
    except CommandError:
        raise UserError(
            f"the database {uri} is of a newer MLflow than {mlflow.__version__} (version {version}): {FIX}, "
            "or install that MLflow"
        ) from None
    raise UserError(
        f"the database {uri} is of an older MLflow (version {version}): make a copy of it, then run: mlflow db upgrade "
        f"{shlex.quote(uri)}"
    )


def _version(path: Path) -> str | None:
    if "alembic_version" not in _tables(path):  # from before there were versions
        return None
    found = _ask(path, "SELECT version_num FROM alembic_version")
    return found[0][0] if len(found) == 1 else None


def refuse_foreign(uri: str, tables: set[str]) -> None:
    """Raise UserError for a database with tables of which none are MLflow's."""
    if tables and not tables >= TABLES:
        names = sorted(tables)
        more = ", ..." if len(names) > SHOWN else ""
        raise UserError(
            f"the database {uri} is another program's (its tables: {', '.join(names[:SHOWN])}{more}) and is left as it is: "
            f"{FIX}"
        )


def _unusable(uri: str, error: Exception) -> UserError:
    return UserError(f"the tracking store {uri} cannot be written ({one_line(error)}): {FIX}")
