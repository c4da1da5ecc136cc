"""Named data sets -> uint8 images, labels and a fingerprint; stratified splits."""

import importlib
from pathlib import Path

from regbench.data.images import Images
from regbench.errors import UserError

# a module each, imported when asked for: torchvision and scikit-learn take seconds to import
NAMES = ("cifar10", "folder", "fashion_mnist", "digits")


def check_name(name: str) -> None:
    """Raise UserError unless there is a data set of this name."""
    if name not in NAMES:
        raise UserError(f"dataset={name!r} is unknown; accepted: {', '.join(NAMES)}")


def load(name: str, data_dir: Path) -> Images:
    """Return the data set `name`; `data_dir` is where its files are or are downloaded to.

    Raises UserError if the name is unknown, or the data is missing or damaged.
    """
    check_name(name)
    return importlib.import_module(f"regbench.data.{name}").load(data_dir)
