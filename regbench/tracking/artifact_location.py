"""The folder of an experiment's files, if it is on this machine, and whether it can be written."""

import shlex
import tempfile
import uuid
from pathlib import Path
from urllib.parse import unquote

from regbench.errors import UserError, one_line

MLRUNS = "mlruns"  # MLflow's folder of files, in the working folder, where a database keeps the rest


def local_folder(location: str) -> Path | None:
    """Return the folder that MLflow reads an artifact location as; None if it is not on this machine's disk."""
    from mlflow.utils.file_utils import local_file_uri_to_path
    from mlflow.utils.uri import get_uri_scheme

    return Path(local_file_uri_to_path(location)) if get_uri_scheme(location) in ("", "file") else None


def check_existing(experiment: str, location: str, used: bool) -> None:
    """Raise UserError if an experiment's files cannot be written to their folder; `used`: it already holds files.

    The folder of a project that was moved is not created again at its old path.
    """
    folder = local_folder(location)
    if folder is None:
        return
    # MLflow decodes %20 and the like in a plain path too, and so may write beside the intended folder
    moved = folder.parent.name == MLRUNS and not any(
        root.is_dir() for root in (folder.parent.parent, Path(location).parent.parent)
    )
    if not folder.exists() and (used or moved):
        raise UserError(
            f"experiment={experiment!r} keeps its files in {folder}, which is not there: if the project was moved, put a "
            f"link to its {MLRUNS} there; if they are gone for good, go on by mkdir -p {shlex.quote(str(folder))}, or take "
            "another experiment with experiment=<name>"
        )
    _check_writable(folder, f"experiment={experiment!r} keeps its files in", "or take another experiment=<name>")


def check_new(experiment: str) -> None:
    """Raise UserError if a new experiment's files cannot be written to the working folder."""
    subject = f"MLflow keeps the files of a new experiment, {experiment!r}, in"
    _check_writable(Path.cwd() / MLRUNS, subject, "or run the command in another folder")


def for_new() -> str | None:
    """Return the location to give a new experiment, None to leave the choice to MLflow.

    MLflow would decode percent codes in the working folder's path, and write the files to another folder.
    """
    folder = Path.cwd() / MLRUNS
    return f"{folder.as_uri()}/{uuid.uuid4().hex}" if unquote(str(folder)) != str(folder) else None


def _check_writable(folder: Path, subject: str, way_out: str) -> None:
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    try:
        str(folder).encode()  # the database stores UTF-8
        if not existing.is_dir():
            raise NotADirectoryError(f"{existing} is not a folder")
        with tempfile.TemporaryFile(dir=existing):
            pass
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", "") or one_line(error)
        raise UserError(
            f"{subject} {folder}, which cannot be written ({reason}): make it writable, {way_out}"
        ) from error
