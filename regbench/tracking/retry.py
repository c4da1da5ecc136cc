"""Failures of the tracking store: which are worth a retry, how they are described, and for how long to retry."""

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
PATIENCE = 120.0  # seconds of retries before and after training; while training there is no limit
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 10.0  # seconds between two attempts, doubled from the first pause to the longest
TIMEOUT = "60"  # seconds for one request
BUSY = (408, 425, 429)
# SQLite's errors that do not pass
BROKEN = (
    "disk is full",
    "readonly database",
    "unable to open database",
    "no such table",
    "disk I/O error",
    "malformed",
)


def transient(error: BaseException) -> bool:
    """Return whether the same call may succeed later: the server is away, overloaded or failing, the database locked.

    False for what is forbidden, unknown or deleted in the store, and for files that cannot be written.
    """
    if isinstance(error, MlflowException):
        status = error.get_http_status_code()
        return (status >= 500 or status in BUSY) and not any(text in str(error) for text in BROKEN)
    if isinstance(error, requests.RequestException):  # an OSError too
        response = error.response
        return response is None or response.status_code >= 500 or response.status_code in BUSY
    if isinstance(error, OSError):
        return isinstance(error, ConnectionError | TimeoutError)
    # clients of cloud storage have their own errors; a builtin error is a bug in the program
    return type(error).__module__ != "builtins"


def gone(error: MlflowException) -> bool:
    """Return whether the store reports that the run does not exist or is deleted."""
    return error.get_http_status_code() == 404 or "must be in the 'active' state" in str(error)


def refused(error: MlflowException) -> bool:
    """Return whether a working store rejects the content of a request, which a retry does not change."""
    return error.error_code == "INVALID_PARAMETER_VALUE" and not gone(error)


def describe(error: BaseException) -> str:
    """Return what happened and what to do about it, on one line."""
    text = _root_cause(error)
    if isinstance(error, OSError) and error.filename and error.strerror:
        text = f"{error.filename} cannot be written ({error.strerror})"
    if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or "disk is full" in text:
        return f"{text[:300]}: make room on that disk"
    if isinstance(error, OSError) and not transient(error):
        return f"{text[:300]}: make it writable"
    if "database is locked" in text:
        return "the database is locked by another program: wait for it, or end it"
    return text[:300]


def _root_cause(error: BaseException) -> str:
    """Return the relevant part of the long messages that the HTTP libraries nest into each other."""
    text = one_line(error)
    if "Caused by " in text and (address := re.search(r"https?://[^/\s]+", text)):
        cause = text.rpartition("Caused by ")[2]
        return f"{address[0]}: {cause.rpartition('object at ')[2].partition(': ')[2] or cause}".rstrip("'\")")
    return text


@contextmanager
def single_attempt() -> Iterator[None]:
    """Have MLflow send each request once: its own retries go on for minutes, and may create a run twice."""
    values = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0", "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true"}
    # the user may have set a longer time for a slow server
    values["MLFLOW_HTTP_REQUEST_TIMEOUT"] = os.environ.get("MLFLOW_HTTP_REQUEST_TIMEOUT", TIMEOUT)
    with settings.override(values):
        yield


def retry(task: Callable[[], T], report: Callable[[str], None]) -> T:
    """Return the result of an idempotent `task`, tried again while it fails for a passing reason.

    Raises TrackingError for any other failure, or PATIENCE seconds after the first one: the task itself may take minutes.
    """
    pause, end = FIRST_PAUSE, math.inf
    with single_attempt():
        while True:
            try:
                return task()
            except Exception as error:
                end = min(end, time.monotonic() + PATIENCE)
                if not transient(error) or time.monotonic() + pause > end:
                    raise TrackingError(describe(error)) from error
                if pause == FIRST_PAUSE:
                    report(f"the tracking store does not work ({describe(error)}); trying again for {PATIENCE:.0f} s")
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)
