"""A folder of image files in the layout of torchvision's ImageFolder, decoded once."""

import hashlib
import os
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from regbench.data import cache
from regbench.data.images import SIDE, Images
from regbench.errors import UserError, one_line

PARTS = ("train", "test")
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
            f"only one of them has: {', '.join(differing)}"
        )
    files = [
        (part, label, path) for part in PARTS for label, paths in enumerate(listing[part].values()) for path in paths
    ]
    key = _content_key(data_dir, files)
    arrays = cache.read(key)
    if arrays is None:
        arrays = _decode(files)
        cache.write(key, arrays)
    return Images(data_dir.resolve().name, classes["train"], **arrays)


def _list_part(data_dir: Path, part: str) -> dict[str, list[Path]]:
    """Return class name -> sorted image paths of one part."""
    from torchvision.datasets.folder import IMG_EXTENSIONS, find_classes, make_dataset

    root = data_dir / part
    if not root.is_dir():
        raise UserError(
            f"folder: looked for {root}/<class>/<image> and found no folder {root}: give data_dir=<folder with train/ "
            "and test/, a folder per class in each>, or take dataset=digits, which needs no data"
        )
    try:
        classes, index = find_classes(str(root))
        listing = {name: [] for name in classes}
        for path, label in make_dataset(str(root), index, extensions=IMG_EXTENSIONS):
            listing[classes[label]].append(Path(path))
    except OSError as error:
        raise UserError(f"folder: {root}: {one_line(error)}") from error
    return listing


def _content_key(data_dir: Path, files: list[tuple[str, int, Path]]) -> str:
    digest = hashlib.sha256(f"folder {SIDE}".encode())
    for _, _, path in files:
        content = hashlib.sha256(_read(path)).digest()
        digest.update(os.fsencode(path.relative_to(data_dir)) + b"\0" + content)
    return digest.hexdigest()


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"folder: {path} cannot be read ({one_line(error)})") from error


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
        with Image.open(BytesIO(_read(path))) as image:
            picture = image.convert("RGB")
            if picture.size != (SIDE, SIDE):
                picture = picture.resize((SIDE, SIDE), Image.Resampling.BILINEAR)
            return np.asarray(picture).transpose(2, 0, 1)
    except UnidentifiedImageError as error:
        raise UserError(f"folder: {path} is not a readable image (of no format that Pillow knows): {FIX}") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(f"folder: {path} is not a readable image ({one_line(error)}): {FIX}") from error
