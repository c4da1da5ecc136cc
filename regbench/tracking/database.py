"""Databases as the tracking store: the file of an SQLite address, and whether a database is MLflow's."""

import os
import re
import shlex
import sqlite3
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path
from typing import TypeVar
from urllib.parse import unquote

from regbench.errors import UserError, one_line

T = TypeVar("T")
SQLITE = "sqlite:///"
# the remedy that all errors of the store name
FIX = "set MLFLOW_TRACKING_URI to a writable sqlite:///<file> or a running server's http address"
TABLES = {"experiments", "runs"}  # tables of every MLflow, from the first version on
PAUSE = 1.0  # seconds
SHOWN = 3  # names of another program's tables in a message


def is_sqlite(uri: str) -> bool:
    """Return whether an address is SQLite's, with or without the name of a driver."""
    return re.match(r"sqlite(\+\w+)?:", uri, re.IGNORECASE) is not None


def check_installed() -> None:
    """Raise UserError if MLflow's own path contains a %, which keeps it from opening databases."""
    found = find_spec("mlflow")
    if found and "%" in (found.origin or ""):
        raise UserError(
            f"MLflow is installed in {Path(found.origin).parent} and cannot read the % in that: make the environment in "
            "another folder, as in: python3 -m venv ~/.venvs/regbench"
        )


def file(uri: str) -> Path:
    """Return the absolute path of the file that an SQLite address means to MLflow; raises UserError if it names none.

    `mlflow run` writes the path with percent codes, which SQLAlchemy decodes.
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
    """Return the address that means the file at this absolute path to MLflow."""
    name = str(path)
    if "?" not in name and unquote(name) == name:
        return f"{SQLITE}{name}"
    from sqlalchemy.engine import URL

    # with the driver's name: MLflow creates a folder from what follows sqlite:///, without decoding it
    return URL.create("sqlite+pysqlite", database=name).render_as_string()


def is_empty(path: Path, write: bool = True) -> bool:
    """Return whether MLflow's tables are still to be created in the file, which need not exist.

    Raises UserError if it cannot be opened or, for `write`, written, where MLflow would try for minutes; and if it is
    another program's database, to which MLflow would add its tables.
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
        found = _read_settled(lambda: _tables(path, write), lambda tables: not tables or tables >= TABLES)
        # SQLite keeps its journal beside the file
        for needed in (path, path.parent) if write else ():
            if not os.access(needed, os.W_OK):
                raise PermissionError(f"{needed} is not writable")
    except (OSError, ValueError, sqlite3.Error) as error:
        if "locked" in str(error):
            raise UserError(f"the tracking store {uri} is locked by another program: wait for it, or end it") from error
        raise _unusable(uri, error) from error
    refuse_foreign(uri, found)
    return not found


def _tables(path: Path, write: bool = False) -> set[str]:
    return {name for (name,) in _query(path, "SELECT name FROM sqlite_master WHERE type = 'table'", write)}


def _query(path: Path, query: str, write: bool = False) -> list[tuple]:
    with closing(sqlite3.connect(f"{path.as_uri()}?mode={'rw' if write else 'ro'}", uri=True)) as connection:
        return connection.execute(query).fetchall()


def _read_settled(read: Callable[[], T], expected: Callable[[T], bool]) -> T:
    """Return what is read once it is as expected, or constant: another process may be creating MLflow's tables."""
    value = read()
    while not expected(value):
        time.sleep(PAUSE)
        before, value = value, read()
        if value == before:
            break
    return value


def check_remote(uri: str) -> None:
    """Raise UserError if the database on a server is another program's; raises what SQLAlchemy raises too."""
    from sqlalchemy import create_engine, inspect

    engine = create_engine(uri)
    try:
        refuse_foreign(uri, set(inspect(engine).get_table_names()))
    finally:
        engine.dispose()


def check_schema(path: Path) -> None:
    """Raise UserError if the tables in the file are another version's of MLflow, which would alter some of them."""
    import mlflow
    from alembic.script import ScriptDirectory
    from alembic.util import CommandError

    known = ScriptDirectory(str(Path(mlflow.__file__).parent / "store" / "db_migrations"))
    newest = known.get_current_head()
    version = _read_settled(lambda: _version(path), lambda found: found == newest)
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
    if "alembic_version" not in _tables(path):  # before MLflow recorded versions
        return None
    found = _query(path, "SELECT version_num FROM alembic_version")
    return found[0][0] if len(found) == 1 else None


def refuse_foreign(uri: str, tables: set[str]) -> None:
    """Raise UserError for a database with tables, but not MLflow's."""
    if tables and not tables >= TABLES:
        names = sorted(tables)
        more = ", ..." if len(names) > SHOWN else ""
        raise UserError(
            f"the database {uri} is another program's (its tables: {', '.join(names[:SHOWN])}{more}) and is left as it is: "
            f"{FIX}"
        )


def _unusable(uri: str, error: Exception) -> UserError:
    return UserError(f"the tracking store {uri} cannot be written ({one_line(error)}): {FIX}")
