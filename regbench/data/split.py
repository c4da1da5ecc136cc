"""Which training images a trial trains on and which it holds out for validation."""

import numpy as np

from regbench.errors import UserError

# the subset is part of the data that a sweep is about, so it is the same for every seed
SUBSET_SEED = 0


def check_sizes(labels: np.ndarray, train_size: int, val_size: int) -> None:
    """Raise UserError unless `train_size` images, `val_size` of them held out, leave some of each class in both."""
    classes, total = len(np.unique(labels)), len(labels)
    if not classes <= train_size <= total:
        raise UserError(
            f"train_size={train_size} is out of range: this data set has {total} training images "
            f"in {classes} classes; give {classes} to {total}, or all"
        )
    if train_size != total and total - train_size < classes:
        raise UserError(
            f"train_size={train_size} leaves fewer images out than there are classes ({classes}); "
            f"give at most {total - classes}, or all"
        )
    if val_size != 0 and not classes <= val_size <= train_size - classes:
        raise UserError(
            f"val_size={val_size} is out of range for {train_size} training images in {classes} classes: "
            f"give 0 (no validation) or {classes} to {train_size - classes}"
        )


def split(labels: np.ndarray, train_size: int, val_size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return sorted indices int64 [train_size - val_size] and [val_size] into `labels` int64 [N], both stratified.

    The subset of `train_size` images is the same for all seeds, the validation part is drawn anew for each.
    Raises UserError if a class would be left without images.
    """
    from sklearn.model_selection import train_test_split  # late: it takes a second to import

    check_sizes(labels, train_size, val_size)
    classes, counts = np.unique(labels, return_counts=True)
    train, validation = np.arange(len(labels)), np.empty(0, dtype=np.int64)
    try:
        if train_size < len(labels):
            train, _ = train_test_split(train, train_size=train_size, stratify=labels, random_state=SUBSET_SEED)
        if val_size:
            train, validation = train_test_split(train, test_size=val_size, stratify=labels[train], random_state=seed)
        if any(len(np.unique(labels[part])) < len(classes) for part in (train, validation) if len(part)):
            raise ValueError("a part lacks a class")
    except ValueError as error:  # also of scikit-learn: a class with a single image cannot be divided
        rarest = counts.argmin()
        raise UserError(
            f"train_size={train_size} and val_size={val_size} leave a class without images to train or validate on: class "
            f"number {classes[rarest]} has only {counts[rarest]} of {len(labels)}; add images of it, or change the sizes"
        ) from error
    return np.sort(train), np.sort(validation)


def check(labels: np.ndarray, train_size: int, val_size: int, seed: int) -> None:
    """Raise UserError if `split` would; where every class is large, without the second that `split` takes."""
    check_sizes(labels, train_size, val_size)
    _, counts = np.unique(labels, return_counts=True)
    smallest = min(size for size in (val_size, train_size - val_size) if size)
    # a part has its share of each class but for rounding, so that a share of two leaves one at least
    if counts.min() * smallest < 2 * len(labels):
        split(labels, train_size, val_size, seed)
