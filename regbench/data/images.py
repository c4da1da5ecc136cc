"""The one form that every data set takes before training."""

import hashlib
from dataclasses import dataclass, field

import numpy as np

from regbench.errors import UserError

SIDE = 32


@dataclass(frozen=True, eq=False)
class Images:
    """A labelled image data set with its own train and test part.

    train_images, test_images: uint8 [N, 3, 32, 32], RGB; train_labels, test_labels: int64 [N], indices into `classes`.
    `fingerprint` is the sha256 of all of it, hex; `name`, and `notes` on what was made of the files, are for people and not
    part of the fingerprint.
    """

    name: str
    classes: tuple[str, ...]
    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    notes: list[str] = field(default_factory=list)
    fingerprint: str = field(init=False)

    def __post_init__(self) -> None:
        for part in ("train", "test"):
            images, labels = getattr(self, f"{part}_images"), getattr(self, f"{part}_labels")
            if images.dtype != np.uint8 or images.shape != (len(labels), 3, SIDE, SIDE):
                raise ValueError(f"{part} images must be uint8 [N, 3, {SIDE}, {SIDE}]: {images.dtype} {images.shape}")
            if labels.dtype != np.int64:
                raise ValueError(f"{part} labels must be int64: {labels.dtype}")
            missing = set(range(len(self.classes))) - set(np.unique(labels).tolist())
            if missing:
                names = ", ".join(self.classes[i] for i in sorted(missing))
                raise UserError(f"data set {self.name}: no {part} images for class {names}; every class needs some")
        object.__setattr__(self, "fingerprint", self._fingerprint())

    def _fingerprint(self) -> str:
        digest = hashlib.sha256()
        for name in self.classes:
            digest.update(name.encode() + b"\0")
        for array in (self.train_images, self.train_labels, self.test_images, self.test_labels):
            digest.update(str(array.shape).encode())
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()


def from_grey(images: np.ndarray) -> np.ndarray:
    """Repeat grey images uint8 [N, 32, 32] over three channels -> [N, 3, 32, 32]."""
    return np.repeat(images[:, None], 3, axis=1)
