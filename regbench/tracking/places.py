"""Where an experiment keeps its files, if that is a folder of this machine, and whether they can be put there."""

from __future__ import annotations

import shlex
import tempfile
import uuid
from pathlib import Path
from urllib.parse import unquote

from regbench.errors import UserError, one_line

MLRUNS = "mlruns"  # MLflow's folder of files, in the working folder, where a database keeps the rest


def local(location: str) -> Path | None:
    """Return the folder that MLflow takes an artifact location for; None if it is not on this machine's disk."""
    from mlflow.utils.file_utils import local_file_uri_to_path
    from mlflow.utils.uri import get_uri_scheme

    return Path(local_file_uri_to_path(location)) if get_uri_scheme(location) in ("", "file") else None


def check(experiment: str, location: str, used: bool) -> None:
    """Raise UserError if an experiment's files cannot be put where it keeps them; `used`: it holds files already.

    A folder that was moved is not made again at its old place.
    """
    place = local(location)
    if place is None:
        return
    # MLflow reads codes such as %20 in a plain path, and so may keep files beside the folder that is meant
    moved = place.parent.name == MLRUNS and not any(
        root.is_dir() for root in (place.parent.parent, Path(location).parent.parent)
    )
    if not place.exists() and (used or moved):
        raise UserError(
            f"experiment={experiment!r} keeps its files in {place}, which is not there: if the project was moved, put a "
            f"link to its {MLRUNS} there; if they are gone for good, go on by mkdir -p {shlex.quote(str(place))}, or take "
            "another experiment with experiment=<name>"
        )
    _check_writable(place, f"experiment={experiment!r} keeps its files in", "or take another experiment=<name>")


def check_new(experiment: str) -> None:
    """Raise UserError if a new experiment's files cannot be put into the working folder."""
    where = f"MLflow keeps the files of a new experiment, {experiment!r}, in"
    _check_writable(Path.cwd() / MLRUNS, where, "or run the command in another folder")


def new() -> str | None:
    """Return the location to name for a new experiment, None to leave it to MLflow.

    MLflow takes the working folder's path for one with percent codes, and would put files into another.
    """
    folder = Path.cwd() / MLRUNS
    return f"{folder.as_uri()}/{uuid.uuid4().hex}" if unquote(str(folder)) != str(folder) else None


def _check_writable(place: Path, where: str, way_out: str) -> None:
    found = next(folder for folder in (place, *place.parents) if folder.exists())
    try:
        str(place).encode()  # as the database takes it
        if not found.is_dir():
            raise NotADirectoryError(f"{found} is no folder")
        with tempfile.TemporaryFile(dir=found):
            pass
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", "") or one_line(error)
        raise UserError(f"{where} {place}, which cannot be written ({reason}): make it writable, {way_out}") from error
