"""When the tracking store fails: whether it is worth trying again, how to say it, and how long to go on."""

import errno
import math
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import requests
from mlflow.exceptions import MlflowException

from regbench.errors import TrackingError, one_line
from regbench.tracking import settings

T = TypeVar("T")
# how long a store that is away is waited for before and after training; while training there is no limit
PATIENCE = 120.0
# between two attempts: from the first, doubled up to the second
SOON, LATE = 0.5, 10.0
# of one request: a server that answers later counts as away
TIMEOUT = "60"
BUSY = (408, 425, 429)
# what SQLite says of a database that no waiting makes writable
BROKEN = (
    "disk is full",
    "readonly database",
    "unable to open database",
    "no such table",
    "disk I/O error",
    "malformed",
)


def transient(error: BaseException) -> bool:
    """Tell whether the same call may succeed later: the server is away, overloaded or failing, the database locked.

    Not so for what is forbidden, unknown or deleted in the store, and for files that cannot be written.
    """
    if isinstance(error, MlflowException):
        status = error.get_http_status_code()
        return (status >= 500 or status in BUSY) and not any(text in str(error) for text in BROKEN)
    if isinstance(error, requests.RequestException):  # an OSError too
        response = error.response
        return response is None or response.status_code >= 500 or response.status_code in BUSY
    if isinstance(error, OSError):
        return isinstance(error, ConnectionError | TimeoutError)
    # the client of a cloud's storage has errors of its own; one of Python's is a mistake in the program
    return type(error).__module__ != "builtins"


def gone(error: MlflowException) -> bool:
    """Tell whether the store says that there is no such run, or that it is deleted."""
    return error.get_http_status_code() == 404 or "must be in the 'active' state" in str(error)


def refused(error: MlflowException) -> bool:
    """Tell whether the store, which works, will never take what it was told, for what is in it."""
    return error.error_code == "INVALID_PARAMETER_VALUE" and not gone(error)


def told(error: BaseException) -> str:
    """Return what happened and what to do about it, on one line."""
    text = _text(error)
    if isinstance(error, OSError) and error.filename and error.strerror:
        text = f"{error.filename} cannot be written ({error.strerror})"
    if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or "disk is full" in text:
        return f"{text[:300]}: make room on that disk"
    if isinstance(error, OSError) and not transient(error):
        return f"{text[:300]}: make it writable"
    if "database is locked" in text:
        return "the database is locked by another program: wait for it, or end it"
    return text[:300]


def _text(error: BaseException) -> str:
    """Return what is to be read of the long sentences that the libraries nest into each other."""
    text = one_line(error)
    if "Caused by " in text and (address := re.search(r"https?://[^/\s]+", text)):
        cause = text.rpartition("Caused by ")[2]
        return f"{address[0]}: {cause.rpartition('object at ')[2].partition(': ')[2] or cause}".rstrip("'\")")
    return text


@contextmanager
def one_attempt() -> Iterator[None]:
    """Have each call to a tracking server try once: MLflow's own attempts go on for minutes, and may make a run twice."""
    values = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0", "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true"}
    # a user who knows the server to be slow may have said so
    values["MLFLOW_HTTP_REQUEST_TIMEOUT"] = os.environ.get("MLFLOW_HTTP_REQUEST_TIMEOUT", TIMEOUT)
    with settings.during(values):
        yield


def patiently(task: Callable[[], T], say: Callable[[str], None]) -> T:
    """Do what can be done again without harm, and again while it fails for a passing reason.

    Raises TrackingError if it fails for another reason, or PATIENCE seconds after it failed first: it may take minutes.
    """
    pause, end = SOON, math.inf
    with one_attempt():
        while True:
            try:
                return task()
            except Exception as error:
                end = min(end, time.monotonic() + PATIENCE)
                if not transient(error) or time.monotonic() + pause > end:
                    raise TrackingError(told(error)) from error
                if pause == SOON:
                    say(f"the tracking store does not work ({told(error)}); trying again for {PATIENCE:.0f} s")
            time.sleep(pause)
            pause = min(2 * pause, LATE)
