"""What a command needs of its surroundings: repaired, or refused in one line, before libraries fail over it."""

import errno
import io
import os
import re
import sys
import tempfile
import warnings
from pathlib import Path

from regbench.errors import UserError

# malformed values end joblib, which scikit-learn imports too, in a traceback, and torch in one of C++
WHOLE = (r"\s*[+-]?\d{1,9}\s*", "a whole number")
PAIRS = (r"(\w+:[^,:]+(,\w+:[^,:]+)*)?", "pairs of option:value separated by commas")
VARIABLES = {
    "LOKY_MAX_CPU_COUNT": WHOLE,
    "JOBLIB_MULTIPROCESSING": WHOLE,
    "PYTORCH_ALLOC_CONF": PAIRS,
    "PYTORCH_CUDA_ALLOC_CONF": PAIRS,
}


def settle() -> None:
    """Prepare streams, warnings and environment variables of this process, which is ours; raises UserError as `check`."""
    _repair_streams()
    _repair_warnings()
    check()
    # our figures need no screen, and matplotlib cannot be imported with the name of a backend that it does not know
    os.environ.pop("MPLBACKEND", None)


def check() -> None:
    """Raise UserError for surroundings in which nothing works, and that cannot be repaired."""
    if sys.platform == "win32":  # no signal masks in threads, no folders that can be synced: nothing is tested there
        raise UserError("regbench runs on Linux and macOS, not on Windows itself; start it in WSL, Windows' own Linux")
    try:
        here = os.getcwd()
    except OSError as error:
        raise UserError(
            f"the folder in which you are is gone ({error.strerror}): change to one that is there, as in: cd ~"
        ) from error
    _repair_home(here)
    try:
        tempfile.gettempdir()
    except OSError as error:
        raise UserError(
            f"there is no folder for temporary files ({error.strerror}): set TMPDIR to one that can be written"
        ) from error
    for name, (form, words) in VARIABLES.items():
        text = os.environ.get(name)
        if text is not None and not re.fullmatch(form, text, re.ASCII):
            raise UserError(f"{name}={text!r} is not what libraries take; accepted: {words}; or unset {name}")


def _repair_streams() -> None:
    """Replace closed streams, and have standard output escape characters that its encoding lacks."""
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "r" if name == "stdin" else "w", encoding="utf-8"))  # noqa: SIM115
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    # a terminal of unknown size reports 0, as in containers, and rich would print nothing at all
    for name in ("COLUMNS", "LINES"):
        if re.fullmatch(r"\s*0*\s*", os.environ.get(name, "")):
            os.environ.pop(name, None)


def _repair_warnings() -> None:
    # if turned into errors (PYTHONWARNINGS, -W), those of other people's libraries would end the program
    others = [option for option in sys.warnoptions if not "error".startswith(option.split(":")[0].strip() or "-")]
    if len(others) < len(sys.warnoptions):
        warnings.simplefilter("default")
        sys.warnoptions[:] = others  # workers are started with them
        os.environ.pop("PYTHONWARNINGS", None)
    # torchvision warns of a missing image extension that nothing here uses
    warnings.filterwarnings("ignore", message="Failed to load image Python extension")


def _repair_home(here: str) -> None:
    """Set HOME to the current folder for a user without a home, as in a container: libraries look for it."""
    if not os.environ.get("HOME"):
        os.environ.pop("HOME", None)
        try:
            Path.home()
        except RuntimeError:
            os.environ["HOME"] = here


def output_failed(error: OSError) -> bool:
    """Return whether it is standard output that cannot be written; if so, nothing more is written to it."""
    if error.errno not in (errno.ENOSPC, errno.EIO, errno.EPIPE, errno.EBADF, errno.EDQUOT, errno.EFBIG):
        return False
    try:
        sys.stdout.write("\n")  # what failed may be forgotten already
        sys.stdout.flush()
    except OSError:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
        return True
    return False
