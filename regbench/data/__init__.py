"""Named data sets -> uint8 images, labels and a fingerprint; stratified splits."""

import importlib
import pkgutil
from pathlib import Path

from regbench.data.images import Images
from regbench.errors import UserError

# a module each, imported when asked for: torchvision and scikit-learn take seconds to import
NAMES = tuple(module.name for module in pkgutil.iter_modules([str(Path(__file__).parent / "sets")]))


def load(name: str, data_dir: Path) -> Images:
    """Return the data set `name`; `data_dir` is where its files are or are downloaded to.

    Raises UserError if the name is unknown, or the data is missing or damaged.
    """
    if name not in NAMES:
        raise UserError(f"dataset={name!r} is unknown; accepted: {', '.join(NAMES)}")
    return importlib.import_module(f"{__package__}.sets.{name}").load(data_dir)
