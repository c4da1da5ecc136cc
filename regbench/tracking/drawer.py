"""Pictures drawn in a process of its own: training would wait for Python while they are drawn, a GPU most of all."""

import json
import logging
import subprocess
import sys
from collections import deque
from pathlib import Path

from regbench.tracking.schema import HISTOGRAMS

# of the process: with this one's path, in which the package was found, and without its interruptions from the first line on
CODE = """import signal, sys
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, signal.SIG_IGN)
sys.path[:] = {}
from regbench.tracking import pictures
pictures.serve()"""
log = logging.getLogger(__name__)


class Drawer:
    """Draws the pictures of runs' folders one after the other, while this process does other things.

    If its process cannot be started, or ends, pictures are left out: they are not a result.
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen | None = None
        self._asked: deque[Path] = deque()  # in the order of the answers
        self._lost = False

    def ask(self, folder: Path, title: str) -> None:
        """Have the pictures of `folder` drawn, after those that were asked for before."""
        if self._lost:
            return
        try:
            if self._process is None:
                self._process = subprocess.Popen(
                    [sys.executable, "-c", CODE.format([*map(str, sys.path)])],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
            self._asked.append(folder)
            self._process.stdin.write(json.dumps([str(folder), title]) + "\n")
            self._process.stdin.flush()
        except OSError as error:
            self._lose(error.strerror)

    def wait(self, folder: Path, title: str) -> None:
        """Return when the pictures of `folder` are drawn; they are asked for if they were not."""
        if folder not in list(self._asked) and not (folder / HISTOGRAMS).exists():
            self.ask(folder, title)
        # copies, since results are asked for in another thread meanwhile
        while folder in list(self._asked) and not self._lost:
            try:
                complaints = json.loads(self._process.stdout.readline())
            except ValueError:  # it has ended, or something else prints there
                self._lose("the process that draws them does not answer")
                return
            self._asked.popleft()
            for complaint in complaints:
                log.warning(complaint)

    def close(self) -> None:
        """End the process, without what is still to be drawn."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()

    def _lose(self, reason: str) -> None:
        if not self._lost:
            log.warning("pictures of weights are left out: %s", reason)
        self._lost = True
