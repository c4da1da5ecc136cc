"""CIFAR-10 as torchvision downloads and checks it."""

import shutil
import tempfile
from pathlib import Path

import numpy as np

from regbench.data import cache
from regbench.data.images import Images
from regbench.errors import UserError, one_line
from regbench.files import folder

# what the archive holds, as named by torchvision, which takes seconds to import
UNPACKED = "cifar-10-batches-py"
FILES = (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch", "batches.meta")


def load(data_dir: Path) -> Images:
    """Return CIFAR-10 from `data_dir`, downloaded there (170 MB, checked by md5) if it is not there yet.

    Raises UserError if it is neither there nor to be had, or if the archive is damaged.
    Source: Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009.
    """
    images = cache.read(key, "cifar10") if (key := _key(data_dir)) else None
    if images is None:
        images = _load(data_dir)
        if key := _key(data_dir):
            cache.write(key, images)
    return images


def _key(data_dir: Path) -> str | None:
    try:
        return cache.content_key("cifar10", data_dir / UNPACKED, FILES)
    except OSError:
        return None


def _load(data_dir: Path) -> Images:
    from torchvision.datasets import CIFAR10
    from torchvision.datasets.utils import check_integrity

    archive, batches_folder = data_dir / CIFAR10.filename, data_dir / CIFAR10.base_folder
    # they are pickles, which can run code: torchvision loads none whose md5 is not the one that it knows
    batches, meta = (*CIFAR10.train_list, *CIFAR10.test_list), (CIFAR10.meta["filename"], CIFAR10.meta["md5"])
    whole = {name: check_integrity(batches_folder / name, md5) for name, md5 in (*batches, meta)}
    damaged = ", ".join(name for name in whole if not whole[name] and (batches_folder / name).exists())
    unpacked = all(whole[name] for name, _ in batches)
    if not unpacked and archive.exists() and not check_integrity(archive, CIFAR10.tgz_md5):
        raise UserError(
            f"cifar10: {archive} is damaged or cut short (its md5 is not {CIFAR10.tgz_md5}): "
            "delete it and run again to download it anew"
        )
    if unpacked and damaged:  # the names of the classes, for whose sake torchvision does not unpack again
        raise UserError(
            f"cifar10: {batches_folder / damaged} is damaged or cut short: delete {batches_folder} and run again"
        )
    try:
        if not unpacked and not archive.exists():
            _download(data_dir)
        train, test = (CIFAR10(data_dir, train=part, download=not unpacked) for part in (True, False))
    except (OSError, RuntimeError, EOFError) as error:
        raise UserError(
            f"cifar10: looked for {CIFAR10.base_folder}/ and {CIFAR10.filename} in {data_dir}, found "
            f"{f'{damaged} damaged and no archive' if damaged else 'neither'}, and the download from {CIFAR10.url} "
            f"failed ({one_line(error)}): put the archive there yourself, or take dataset=folder data_dir=<a folder of "
            "images>, or dataset=digits, which needs no download"
        ) from error
    return Images("cifar10", tuple(train.classes), *_arrays(train), *_arrays(test))


def _download(data_dir: Path) -> None:
    """Download beside the final folder and move it there whole, so that a broken download leaves nothing behind."""
    from torchvision.datasets import CIFAR10

    with folder(data_dir), tempfile.TemporaryDirectory(dir=data_dir) as partial:
        CIFAR10(partial, download=True)
        for name in (CIFAR10.base_folder, CIFAR10.filename):
            if (data_dir / name).is_dir():
                shutil.rmtree(data_dir / name)
            (Path(partial) / name).replace(data_dir / name)


def _arrays(part) -> tuple[np.ndarray, np.ndarray]:
    return np.ascontiguousarray(part.data.transpose(0, 3, 1, 2)), np.asarray(part.targets, dtype=np.int64)
