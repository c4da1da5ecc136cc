"""The team's set-up of docs/team-server.md on loopback: PostgreSQL and `mlflow server`, in temporary folders."""

import importlib.util
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.conftest import PROJECT

PAGE = PROJECT / "docs" / "team-server.md"
# PostgreSQL refuses to run as root
UNPRIVILEGED = ("postgres", "nobody")


def missing() -> str:
    """Return what has to be installed before the servers can start, "" if nothing."""
    if _binaries() is None:
        return "PostgreSQL's initdb is not installed (Debian: apt-get install postgresql)"
    if importlib.util.find_spec("psycopg2") is None:
        return "psycopg2 is not installed (pip install -e '.[server]')"
    return ""


@contextmanager
def postgresql() -> Iterator[str]:
    """Give the address of an empty database "mlflow" of a new cluster, reached by a socket in a private folder."""
    binaries, user = _binaries(), _user()
    folder = Path(tempfile.mkdtemp(prefix="regbench-postgresql-"))  # pytest's own folders are closed to other users
    if user is not None:
        shutil.chown(folder, user)

    def run(program: str, *arguments: object) -> None:
        # a file and no pipe: the server inherits it and would hold a pipe open
        with (folder / "output").open("w+") as output:
            done = subprocess.run(
                [binaries / program, *map(str, arguments)],
                user=user, extra_groups=None if user is None else [], cwd=folder, env={"PATH": os.environ["PATH"]},
                stdout=output, stderr=output, check=False, timeout=60,
            )  # fmt: skip
            output.seek(0)
            assert done.returncode == 0, f"{program}: {output.read()}"

    try:
        run("initdb", "-D", folder / "data", "-U", "postgres", "--auth=trust", "--no-sync")
        # no port, and a socket that only its owner (and root) reaches: nobody else on the machine can come in
        settings = f"-c listen_addresses='' -c unix_socket_directories={folder} -c fsync=off"
        run("pg_ctl", "-D", folder / "data", "-l", folder / "log", "-o", settings, "-w", "start")
        try:
            as_admin = ("-h", folder, "-U", "postgres")
            run("createuser", *as_admin, "mlflow")
            run("createdb", *as_admin, "--owner=mlflow", "--encoding=UTF8", "--template=template0", "mlflow")
            yield f"postgresql+psycopg2://mlflow@/mlflow?host={folder}"
        finally:
            run("pg_ctl", "-D", folder / "data", "-m", "immediate", "-w", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def mlflow_server(database: str, folder: Path) -> Iterator[str]:
    """Give the http address of the page's `mlflow server`, with the `database` and `folder` in place of the page's."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings, arguments = page_command()
    places = {"--backend-store-uri": database, "--artifacts-destination": folder / "artifacts", "--port": port}
    assert places.keys() < arguments.keys()
    options = [str(part) for pair in (arguments | places).items() for part in pair]
    log = folder / "server.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "mlflow", "server", *options],
            cwd=folder, env=os.environ | settings, stdout=output, stderr=output,
        )  # fmt: skip
    try:
        address = f"http://127.0.0.1:{port}"
        _wait(address, process, log)
        yield address
    finally:
        process.terminate()
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def page_command() -> tuple[dict[str, str], dict[str, str]]:
    """Return the environment variables and the options of the `mlflow server` that the page's unit starts."""
    unit = re.search(r"^```ini\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)[1]
    settings = dict(re.findall(r"^Environment=(\w+)=(\S+)", unit, re.MULTILINE))
    command = re.search(r"^ExecStart=(.*?[^\\])\n", unit, re.DOTALL | re.MULTILINE)[1].replace("\\\n", " ")
    _, _, options = command.partition(" server ")
    words = options.split()
    return settings, dict(zip(words[::2], words[1::2], strict=True))


def _binaries() -> Path | None:
    """Return the folder of PostgreSQL's programs: Debian keeps initdb and pg_ctl out of PATH."""
    found = shutil.which("initdb")
    if found:
        return Path(found).resolve().parent
    return max(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: float(path.parent.name), default=None)


def _user() -> str | None:
    """Return the user as whom PostgreSQL has to run, None for the present one."""
    import pwd

    if os.geteuid() != 0:
        return None
    known = {entry.pw_name for entry in pwd.getpwall()}
    return next(name for name in UNPRIVILEGED if name in known)


def _wait(address: str, process: subprocess.Popen, log: Path) -> None:
    end = time.monotonic() + 60
    while time.monotonic() < end and process.poll() is None:
        try:
            with urllib.request.urlopen(f"{address}/health", timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    raise RuntimeError(f"mlflow server did not start: {log.read_text()[-3000:]}")
