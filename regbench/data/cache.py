"""Decoded data sets on disk, found by content; the cache can be deleted at any time."""

import errno
import hashlib
import json
import logging
import os
import stat
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from regbench.data.images import Images
from regbench.errors import UserError, one_line
from regbench.files import atomic, cache_folder

log = logging.getLogger(__name__)
ARRAYS = ("train_images", "train_labels", "test_images", "test_labels")
# files per task: handing out tens of thousands of small ones singly takes longer than reading them
TASK = 1000


def path_of(key: str) -> Path:
    """Return the file for `key`."""
    return cache_folder() / f"{key}.safetensors"


def content_key(kind: str, root: Path, files: Sequence[str]) -> str:
    """Return a key for `files`, paths below `root`: 64 hex digits that depend on their names, order and content.

    `kind` is how they are decoded. Raises OSError naming the file that cannot be read.
    """
    digest = hashlib.sha256(kind.encode())
    tasks = [files[first : first + TASK] for first in range(0, len(files), TASK)]
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        hashes = chain.from_iterable(threads.map(lambda task: [_hash(root, file) for file in task], tasks))
        for file, content in zip(files, hashes, strict=True):
            digest.update(os.fsencode(file) + b"\0" + content)
    return digest.hexdigest()


def read(key: str, name: str) -> Images | None:
    """Return the data set written under `key`, as `name`; None if there is none or it is damaged (it is then removed).

    Its fingerprint serves as the checksum, so that the images are hashed once.
    """
    path = path_of(key)
    try:
        with safe_open(path, framework="numpy") as stored:
            about = json.loads(stored.metadata()["about"])
            arrays = {array: stored.get_tensor(array) for array in ARRAYS}
        images = Images(name, tuple(about["classes"]), **arrays, notes=about.get("notes", []))
        if images.fingerprint == about["fingerprint"]:
            return images
        problem = "its checksum does not match"
    except FileNotFoundError:
        return None
    except (OSError, SafetensorError, UserError, ValueError, TypeError, LookupError) as error:
        problem = one_line(error)
    log.warning("the cached images in %s are damaged (%s) and are built again", path, problem)
    path.unlink(missing_ok=True)
    return None


def write(key: str, images: Images) -> None:
    """Keep `images` under `key`; a cache that cannot be written costs time only, so it is a warning."""
    # as one text: safetensors writes several in any order
    about = json.dumps({"classes": images.classes, "notes": images.notes, "fingerprint": images.fingerprint})
    try:
        with atomic(path_of(key)) as path:
            save_file({name: getattr(images, name) for name in ARRAYS}, path, metadata={"about": about})
    except (OSError, SafetensorError) as error:
        log.warning("the decoded images are not cached: %s (set REGBENCH_CACHE to a writable folder)", error)


def _hash(root: Path, file: str) -> bytes:
    # text paths and no buffering: a folder may have tens of thousands of small files
    path = os.path.join(root, file)
    if not stat.S_ISREG(os.stat(path).st_mode):  # a pipe would be waited for
        raise OSError(errno.EINVAL, "not a regular file", path)
    with open(path, "rb", buffering=0) as opened:
        return hashlib.sha256(opened.read()).digest()
