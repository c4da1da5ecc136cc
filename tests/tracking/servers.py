"""A real tracking server in a process of its own, and a proxy before it that misbehaves on request."""

import os
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import psutil


class Server:
    """`mlflow server` on loopback, with its database and artifacts in `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self.port}"

    def start(self) -> "Server":
        command = [sys.executable, "-m", "mlflow", "server", "--host=127.0.0.1", f"--port={self.port}", "--workers=1"]
        command += ["--backend-store-uri=sqlite:///mlflow.db", "--artifacts-destination=./artifacts"]
        with (self._folder / "server.log").open("a") as log:
            self._process = subprocess.Popen(
                command,
                cwd=self._folder,
                env=os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "OMP_NUM_THREADS": "1"},
                stdout=log,
                stderr=log,
            )
        end = time.monotonic() + 90
        while True:
            try:
                urllib.request.urlopen(f"{self.uri}/health", timeout=5).close()
                return self
            except OSError:
                assert self._process.poll() is None and time.monotonic() < end
                time.sleep(0.1)

    def kill(self) -> None:
        """SIGKILL, also for the process that it has started."""
        ours = [*psutil.Process(self._process.pid).children(recursive=True), self._process]
        for process in ours:
            process.kill()
        for process in ours:
            process.wait(timeout=30)


class Proxy:
    """Hands requests on to a server; `fail` decides which of them go wrong, and how.

    It gets a method and a path and returns "" (nothing wrong), "500" (the server does not get the request) or "lost"
    (the server gets it, the caller an error 500). `delay`: seconds before each answer.
    """

    def __init__(self, target: str) -> None:
        self.fail = lambda method, path: ""
        self.delay = 0.0
        self.failed = 0
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_any(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                fault = proxy.fail(self.command, self.path)
                status, content, kind = 500, b"out of order", "text/plain"
                if fault != "500":
                    headers = {name: self.headers[name] for name in ("Content-Type",) if name in self.headers}
                    request = urllib.request.Request(target + self.path, body or None, headers, method=self.command)
                    try:
                        with urllib.request.urlopen(request, timeout=60) as answer:
                            found = answer.status, answer.read(), answer.headers.get("Content-Type", "text/plain")
                    except urllib.error.HTTPError as error:
                        found = error.code, error.read(), error.headers.get("Content-Type", "text/plain")
                    if not fault:
                        status, content, kind = found
                proxy.failed += bool(fault)
                time.sleep(proxy.delay)
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = handle_any

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.uri = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
