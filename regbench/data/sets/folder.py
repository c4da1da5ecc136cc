"""A folder of image files in the layout of torchvision's ImageFolder, decoded once."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from regbench.data import cache
from regbench.data.folder_listing import SHOWN, Listing, few, skips
from regbench.data.image_decoding import VERSION, Unusable, decode
from regbench.data.images import SIDE, Images
from regbench.errors import UserError, printable

PARTS = ("train", "test")
# share of the brightest possible: images of 16 bits that stay below hold fewer, as from cameras and microscopes
DARK = 0.25


def load(data_dir: Path) -> Images:
    """Return the images of `data_dir`/train/<class>/ and `data_dir`/test/<class>/ as RGB, resized to 32x32.

    The data set's name is the folder's; the order is that of the file names within each class. Decoded images are
    cached by the content of all files, so that a changed file is seen and a moved folder is not decoded again.
    Raises UserError naming the folder that is missing or empty, or the files that are not images.
    """
    listings = [Listing(data_dir, part) for part in PARTS]
    _require_same_classes(data_dir, listings)
    files = [file for listing in listings for found in listing.images.values() for file in found]
    name = printable(data_dir.resolve().name)
    try:
        key = cache.content_key(f"folder {SIDE} {VERSION}", data_dir, files)
    except OSError:  # decoding meets the same file, and reports it with all others
        key = None
    images = cache.read(key, name) if key else None
    if images is None:
        pixels, notes = _decode(data_dir, files)
        arrays: dict[str, np.ndarray] = {}
        for listing in listings:
            counts = [len(found) for found in listing.images.values()]
            arrays[f"{listing.part}_images"], pixels = np.split(pixels, [sum(counts)])
            arrays[f"{listing.part}_labels"] = np.repeat(np.arange(len(counts), dtype=np.int64), counts)
        images = Images(name, tuple(listings[0].images), **arrays, notes=notes)
        notes += _leaks(images, files[-len(images.test_labels) :])
        if key:
            cache.write(key, images)
    skipped: dict[str, list[str]] = {}
    for listing in listings:
        for reason, paths in listing.skipped.items():
            skipped.setdefault(reason, []).extend(paths)
    if skipped:
        images.notes.append(f"skipped: {skips(skipped)}")
    return images


def _require_same_classes(data_dir: Path, listings: Sequence[Listing]) -> None:
    train, test = (set(listing.images) for listing in listings)
    if train != test:
        alone = [
            f"only {part}/ has {few([repr(name) for name in sorted(names)])}"
            for part, names in zip(PARTS, (train - test, test - train), strict=True)
            if names
        ]
        raise UserError(
            f"folder: {printable(data_dir)}/train and {printable(data_dir)}/test must have the same classes; "
            f"{', '.join(alone)}; add it to the other one, or remove it"
        )
    if len(train) == 1:
        raise UserError(
            f"folder: {printable(data_dir)}/train has one class only, {few([repr(name) for name in train])}, which leaves "
            "nothing to recognise: give two or more; if the classes are folders within it, move them one level up"
        )


def _leaks(images: Images, files: Sequence[str]) -> list[str]:
    """Return notes on test images, read from `files`, that are trained on too."""
    seen = {_digest(picture) for picture in images.train_images}
    again = [file for file, picture in zip(files, images.test_images, strict=True) if _digest(picture) in seen]
    if not again:
        return []
    return [
        f"{len(again):,} of the {len(files):,} test images are training images too, dot for dot, so that the test accuracy "
        f"flatters: {few(again)}"
    ]


def _digest(picture: np.ndarray) -> bytes:
    return hashlib.sha256(picture.tobytes()).digest()


def _decode(root: Path, files: Sequence[str]) -> tuple[np.ndarray, list[str]]:
    """Return the images of `files`, paths below `root`, as uint8 [N, 3, 32, 32], and notes on them.

    Raises UserError naming all files that are not images.
    """
    pixels = np.empty((len(files), 3, SIDE, SIDE), dtype=np.uint8)
    bad: list[str] = []
    several: list[str] = []
    deep: dict[str, float] = {}  # those of 16 bits -> how bright they get
    for position, file in enumerate(files):
        try:
            picture = decode(root / file)
        except Unusable as problem:
            bad.append(f"{printable(root / file)} {problem}")
            continue
        pixels[position] = picture.pixels
        if picture.frames:
            several.append(file)
        if picture.brightest is not None:
            deep[file] = picture.brightest
    if len(bad) == 1:
        raise UserError(f"folder: {bad[0]}: replace or remove the file")
    if bad:
        more = f"; and {len(bad) - SHOWN:,} more" if len(bad) > SHOWN else ""
        raise UserError(
            f"folder: {len(bad):,} of {len(files):,} files are of no use: {'; '.join(bad[:SHOWN])}{more}: "
            "replace or remove the files"
        )
    notes = []
    if several:
        notes.append(f"only the first frame or page is taken of {len(several):,} images: {few(several)}")
    if deep and max(deep.values()) < DARK:
        notes.append(
            f"dark: none of the {len(deep):,} images of 16 bits gets brighter than {max(deep.values()):.1%} of white, as "
            f"if they held fewer bits; scale them up if so: {few(list(deep))}"
        )
    return pixels, notes
