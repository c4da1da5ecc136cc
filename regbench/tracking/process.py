"""Which process writes a run, and whether it is still alive."""

import getpass
import os
import socket

import psutil


def current() -> str:
    """Return "host:pid:start time" of this process."""
    process = psutil.Process()
    return f"{socket.gethostname()}:{process.pid}:{_started(process)}"


def user() -> str:
    """Return who runs this process, as the tracking server knows them if it asks for a name."""
    try:
        return os.environ.get("MLFLOW_TRACKING_USERNAME") or getpass.getuser()
    except (KeyError, OSError):  # a container's user that has no name
        return str(os.getuid())


def alive(owner: str) -> bool | None:
    """Tell whether the process `owner`, as `current` names it, still runs; None if it is on another machine."""
    host, pid, start = owner.rsplit(":", 2)
    if host != socket.gethostname():
        return None
    try:
        # a process id is used again, a process id with its start time is not
        found = psutil.Process(int(pid))
        # nor does a zombie run any more: where nobody collects it, it stays for ever
        return _started(found) == start and found.status() != psutil.STATUS_ZOMBIE
    except (psutil.Error, ValueError):
        return False


def _started(process: psutil.Process) -> str:
    # Linux keeps the time since boot, so that what psutil makes of it moves when the clock is set
    return f"{process.create_time() - (psutil.boot_time() if psutil.LINUX else 0.0):.2f}"
