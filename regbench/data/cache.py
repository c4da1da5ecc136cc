"""Decoded images on disk, found by content; the cache can be deleted at any time."""

import hashlib
import logging
import os
from pathlib import Path

import numpy as np
from platformdirs import user_cache_path
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from regbench.files import atomic

log = logging.getLogger(__name__)
ARRAYS = ("train_images", "train_labels", "test_images", "test_labels")


def place(key: str) -> Path:
    """Return the file for `key`; the folder is REGBENCH_CACHE, else the user's cache folder."""
    root = os.environ.get("REGBENCH_CACHE")
    return (Path(root) if root else user_cache_path("regbench")) / f"{key}.safetensors"


def read(key: str) -> dict[str, np.ndarray] | None:
    """Return the arrays written under `key`; None if there are none or the file is damaged (it is then removed)."""
    path = place(key)
    try:
        with safe_open(path, framework="numpy") as stored:
            arrays = {name: stored.get_tensor(name) for name in ARRAYS}
            if (stored.metadata() or {}).get("sha256") == _checksum(arrays):
                return arrays
        problem = "its checksum does not match"
    except FileNotFoundError:
        return None
    except (OSError, SafetensorError) as error:
        problem = str(error)
    log.warning("the cached images in %s are damaged (%s) and are built again", path, problem)
    path.unlink(missing_ok=True)
    return None


def write(key: str, arrays: dict[str, np.ndarray]) -> None:
    """Keep `arrays` under `key`; a cache that cannot be written costs time only, so it is a warning."""
    try:
        with atomic(place(key)) as path:
            save_file(arrays, path, metadata={"sha256": _checksum(arrays)})
    except (OSError, SafetensorError) as error:
        log.warning("the decoded images are not cached: %s (set REGBENCH_CACHE to a writable folder)", error)


def _checksum(arrays: dict[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for name in ARRAYS:
        digest.update(f"{name} {arrays[name].dtype} {arrays[name].shape}".encode())
        digest.update(np.ascontiguousarray(arrays[name]).data)
    return digest.hexdigest()
