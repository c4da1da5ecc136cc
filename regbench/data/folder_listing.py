"""Which files below a folder are taken as images, in torchvision's order, and what is passed over."""

import os
import re
import unicodedata
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path

from regbench.errors import UserError, printable

# as in torchvision's ImageFolder, which takes seconds to import
EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
# what operating systems put beside users' files, in lower case; and all names that begin with a dot
SYSTEM = re.compile(r"\..*|__macosx|@eadir|#recycle|\$recycle\.bin|system volume information|lost\+found|thumbs\.db")
SHOWN = 3


class Listing:
    """The images of one part: `images` is class name -> paths relative to `root`; `skipped` is reason -> such paths.

    Classes are the folders of `root`/`part`, their names in one normal form (see `class_name`), in order.
    Raises UserError for a folder that is missing, cannot be listed, or holds no class or a class without images.
    """

    def __init__(self, root: Path, part: str) -> None:
        self.root, self.part = root, part
        self.skipped: dict[str, list[str]] = {}
        self.images: dict[str, list[str]] = {}
        try:
            self._list(root / part)
        except OSError as error:
            raise UserError(
                f"folder: {printable(error.filename)} cannot be listed ({error.strerror}): repair that, or give another "
                "data_dir"
            ) from error

    def _list(self, folder: Path) -> None:
        if not folder.is_dir():
            raise UserError(
                f"folder: looked for {printable(folder)}/<class>/<image> and found no folder {printable(folder)}"
                f"{_folders(self.root)}: give data_dir=<folder with train/ and test/, a folder per class in each>, or take "
                "dataset=digits, which needs no data"
            )
        for name, class_folder in sorted(self._classes()):
            if name in self.images:
                raise UserError(
                    f"folder: {printable(folder)} has two folders for class {printable(name)}, whose names are written "
                    "differently (in Unicode's composed and decomposed form): put their images into one of them"
                )
            self.images[name] = list(self._files(class_folder))
        instead = f" (skipped: {skips(self.skipped)})" if self.skipped else ""
        if not self.images:
            raise UserError(
                f"folder: {printable(folder)} has no folder of a class in it{instead}; put the images into one folder "
                "per class"
            )
        empty = [name for name, files in self.images.items() if not files]
        if empty:
            raise UserError(
                f"folder: {printable(folder)} has no image for class {few(empty)}{instead}; put some there, or remove the "
                f"class from train/ and test/; accepted as images: {', '.join(EXTENSIONS)}"
            )

    def _classes(self) -> Iterator[tuple[str, str]]:
        """Yield each class's name and its folder's."""
        folder = self.root / self.part
        above = _ancestors(folder) | {_identity(folder)}
        for entry in _entries(folder):
            path = os.path.join(self.part, entry.name)
            if not _is_folder(entry):
                if _leads_nowhere(entry) and not _hidden(entry.name):  # a class would be missing
                    raise UserError(
                        f"folder: {printable(entry.path)} is a link that leads nowhere: repair or remove it"
                    )
                self._skip_file(path, "beside the classes' folders")
            elif _hidden(entry.name):
                self._skip("hidden or the system's", path)
            elif _identity(entry.path) in above:
                self._skip("links back to what they are in", path)
            else:
                yield class_name(entry.name), entry.name

    def _files(self, name: str) -> Iterator[str]:
        """Yield the images of a class, folders within it included, each folder once whatever links lead to it."""
        top = os.path.join(self.part, name)
        seen = _ancestors(self.root / top)
        # a folder itself before links to it: what is not a link goes to the front
        folders, found = deque([top]), []
        while folders:
            folder = folders.popleft()
            if (identity := _identity(self.root / folder)) in seen:
                self._skip("links to folders that are read already", folder)
                continue
            seen.add(identity)
            for entry in _entries(self.root / folder):
                path = os.path.join(folder, entry.name)
                if not _is_folder(entry):
                    found.append((folder, entry.name, _leads_nowhere(entry)))
                elif _hidden(entry.name):
                    self._skip("hidden or the system's", path)
                elif entry.is_symlink():
                    folders.append(path)
                else:
                    folders.appendleft(path)
        for folder, name, missing in sorted(found):
            path = os.path.join(folder, name)
            # a link that leads nowhere may have led to a folder of images: it is named with the damaged files
            if (missing or name.lower().endswith(EXTENSIONS)) and not _hidden(name):
                yield path
            else:
                self._skip_file(path, f"of other endings than {', '.join(EXTENSIONS)}")

    def _skip_file(self, path: str, reason: str) -> None:
        if not _hidden(os.path.basename(path)):
            self._skip(reason, path)
        elif path.lower().endswith(EXTENSIONS):  # nobody takes .DS_Store for an image
            self._skip("hidden or the system's", path)

    def _skip(self, reason: str, path: str) -> None:
        self.skipped.setdefault(reason, []).append(path)


def class_name(folder: str) -> str:
    """Return a class's name, the same on every system: in Unicode's composed form, bytes that are not text spelt out."""
    return unicodedata.normalize("NFC", os.fsencode(folder).decode("utf-8", "backslashreplace"))


def few(items: Sequence[str]) -> str:
    """Return the first few items, and how many more there are."""
    more = f" and {len(items) - SHOWN:,} more" if len(items) > SHOWN else ""
    return ", ".join(printable(item) for item in items[:SHOWN]) + more


def skips(skipped: dict[str, list[str]]) -> str:
    """Return what was passed over, by reason: how many, and the first few."""
    return "; ".join(f"{len(paths):,} {reason}: {few(paths)}" for reason, paths in skipped.items())


def _hidden(name: str) -> bool:
    return bool(SYSTEM.fullmatch(name.lower()))


def _entries(folder: Path) -> list[os.DirEntry]:
    with os.scandir(folder) as entries:
        return sorted(entries, key=lambda entry: entry.name)


def _is_folder(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _leads_nowhere(entry: os.DirEntry) -> bool:
    return entry.is_symlink() and not os.path.exists(entry.path)


def _identity(path: object) -> tuple[int, int]:
    found = os.stat(path)
    return found.st_dev, found.st_ino


def _ancestors(folder: Path) -> set[tuple[int, int]]:
    """Return the folders that `folder` is in, by its own path and by where links lead."""
    parents = {*folder.absolute().parents, *folder.resolve().parents}
    return {_identity(parent) for parent in parents if parent.is_dir()}


def _folders(root: Path) -> str:
    """Return which folders there are, in case one only has another name."""
    try:
        names = [f"{entry.name}/" for entry in _entries(root) if _is_folder(entry) and not _hidden(entry.name)]
    except OSError:
        return ""
    return f" (there is {few(names)})" if names else ""
