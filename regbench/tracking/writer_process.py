"""Which process writes a run, and whether it is still alive."""

import getpass
import os
import socket

import psutil


def current() -> str:
    """Return "host:pid:start time" of this process."""
    process = psutil.Process()
    return f"{socket.gethostname()}:{process.pid}:{_start_time(process)}"


def user() -> str:
    """Return who runs this process: the tracking server's name for the user, or else the account's."""
    try:
        return os.environ.get("MLFLOW_TRACKING_USERNAME") or getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return str(os.getuid())


def alive(owner: str) -> bool | None:
    """Return whether the process `owner`, as `current` names it, still runs; None if it is on another machine."""
    host, pid, start = owner.rsplit(":", 2)
    if host != socket.gethostname():
        return None
    try:
        # process ids are reused, but not with the same start time
        found = psutil.Process(int(pid))
        # a zombie does not run, and remains for ever if its parent does not wait for it
        return _start_time(found) == start and found.status() != psutil.STATUS_ZOMBIE
    except (psutil.Error, ValueError):
        return False


def _start_time(process: psutil.Process) -> str:
    # Linux counts from the boot, so that psutil's absolute time changes with the clock
    return f"{process.create_time() - (psutil.boot_time() if psutil.LINUX else 0.0):.2f}"
