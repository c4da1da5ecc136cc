"""Small measurements, kept from command to command in a file that can be deleted at any time.

The file may be that of several machines. What decides a measurement is in its circumstances: the device's model, and not
the machine's name, which is another in every container.
"""

import json
import logging
import os
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

from regbench import provenance
from regbench.files import atomic, cache_folder

log = logging.getLogger(__name__)
# the oldest go first, so that the file stays small
MOST = 1000


def get(kind: str, **circumstances: object) -> object | None:
    """Return the value of `kind` that was last kept under the same circumstances, or None."""
    return _read().get(_key(kind, circumstances))


def put(kind: str, value: object, **circumstances: object) -> None:
    """Keep `value` (anything but None that JSON holds); where it cannot be written, it is measured again next time."""
    key, known = _key(kind, circumstances), _read()
    known.pop(key, None)
    known[key] = value
    try:
        with atomic(_path()) as path:
            path.write_text(json.dumps(dict(list(known.items())[-MOST:]), indent=1))
    except OSError as error:
        log.debug("%s is not kept: %s", kind, error)


def of_processor(kind: str, measure: Callable[[], float]) -> float:
    """Return a number that depends on this machine's processor and on torch, measured once for both."""
    circumstances = {
        "model": provenance.processor(),
        "torch": version("torch"),
        # models of one name have others, as in clouds, and oneDNN can be told to leave some alone
        "instructions": sorted(provenance.instructions()),
        "most": os.environ.get("ONEDNN_MAX_CPU_ISA", ""),
    }
    known = get(kind, **circumstances)
    if isinstance(known, float):
        return known
    found = measure()
    put(kind, found, **circumstances)
    return found


def _path() -> Path:
    return cache_folder() / "measurements.json"


def _read() -> dict[str, object]:
    try:
        known = json.loads(_path().read_text())
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def _key(kind: str, circumstances: dict[str, object]) -> str:
    return json.dumps([kind, circumstances], sort_keys=True)
