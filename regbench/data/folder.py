"""A folder of image files in the layout of torchvision's ImageFolder, decoded once."""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from regbench.data import cache
from regbench.data.images import SIDE, Images
from regbench.errors import UserError, one_line

PARTS = ("train", "test")
# those of torchvision's ImageFolder, whose import takes seconds
EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
FIX = "replace or remove the file"


def load(data_dir: Path) -> Images:
    """Return the images of `data_dir`/train/<class>/ and `data_dir`/test/<class>/ as RGB, resized to 32x32.

    The data set's name is the folder's; the order is that of the file names within each class. Decoded images are
    cached by the content of all files, so that a changed file is seen and a moved folder is not decoded again.
    Raises UserError naming the folder or the file that is missing, empty or not an image.
    """
    listing = {part: _list_part(data_dir, part) for part in PARTS}
    classes = {part: tuple(listing[part]) for part in PARTS}
    if classes["train"] != classes["test"]:
        differing = sorted(set(classes["train"]) ^ set(classes["test"]))
        raise UserError(
            f"folder: {data_dir}/train and {data_dir}/test must have the same classes; "
            f"only one of them has: {', '.join(differing)}; add it to the other one, or remove it"
        )
    files = [
        (part, label, file) for part in PARTS for label, found in enumerate(listing[part].values()) for file in found
    ]
    try:
        key = cache.content_key(f"folder {SIDE}", data_dir, [file for _, _, file in files])
    except OSError as error:
        raise UserError(f"folder: {error.filename} cannot be read ({error.strerror}): {FIX}") from error
    name = data_dir.resolve().name
    images = cache.read(key, name)
    if images is None:
        images = Images(
            name, classes["train"], **_decode([(part, label, data_dir / file) for part, label, file in files])
        )
        cache.write(key, images)
    return images


def _list_part(data_dir: Path, part: str) -> dict[str, list[str]]:
    """Return class name -> sorted image paths of one part, relative to `data_dir`."""
    root = data_dir / part
    if not root.is_dir():
        raise UserError(
            f"folder: looked for {root}/<class>/<image> and found no folder {root}: give data_dir=<folder with train/ "
            "and test/, a folder per class in each>, or take dataset=digits, which needs no data"
        )
    try:
        listing = {name: list(_list_class(data_dir, Path(part, name))) for name in _folders(root)}
    except OSError as error:
        raise UserError(
            f"folder: {error.filename} cannot be listed ({error.strerror}): repair that, or give another data_dir"
        ) from error
    if not listing:
        raise UserError(f"folder: {root} has no folder of a class in it; put the images into one folder per class")
    empty = [name for name, files in listing.items() if not files]
    if empty:
        raise UserError(
            f"folder: {root} has no image for class {', '.join(empty)}; put some there, or remove the class from train/ "
            f"and test/; accepted as images: {', '.join(EXTENSIONS)}"
        )
    return listing


def _folders(root: Path) -> list[str]:
    with os.scandir(root) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir())


def _raise(error: OSError) -> None:
    """Have os.walk raise for a folder that cannot be read: it would leave its images out in silence."""
    raise error


def _list_class(data_dir: Path, place: Path) -> Iterator[str]:
    """Give the images of a class, folders within it included, in torchvision's order."""
    for folder, _, names in sorted(os.walk(data_dir / place, onerror=_raise, followlinks=True)):
        below = os.path.relpath(folder, data_dir)
        yield from (os.path.join(below, name) for name in sorted(names) if name.lower().endswith(EXTENSIONS))


def _decode(files: list[tuple[str, int, Path]]) -> dict[str, np.ndarray]:
    arrays: dict[str, np.ndarray] = {}
    for part in PARTS:
        members = [(label, path) for where, label, path in files if where == part]
        images = np.empty((len(members), 3, SIDE, SIDE), dtype=np.uint8)
        for position, (_, path) in enumerate(members):
            images[position] = _decode_one(path)
        arrays[f"{part}_images"] = images
        arrays[f"{part}_labels"] = np.array([label for label, _ in members], dtype=np.int64)
    return arrays


def _decode_one(path: Path) -> np.ndarray:
    """Return one image file as uint8 [3, 32, 32]."""
    try:
        with Image.open(path) as image:
            picture = image.convert("RGB")
            if picture.size != (SIDE, SIDE):
                picture = picture.resize((SIDE, SIDE), Image.Resampling.BILINEAR)
            return np.asarray(picture).transpose(2, 0, 1)
    except UnidentifiedImageError as error:
        raise UserError(f"folder: {path} is not a readable image (of no format that Pillow knows): {FIX}") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(f"folder: {path} is not a readable image ({one_line(error)}): {FIX}") from error
