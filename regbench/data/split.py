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
    from sklearn.model_selection import train_test_split  # late: it takes a second, and checking sizes needs it not

    check_sizes(labels, train_size, val_size)
    chosen = np.arange(len(labels))
    if train_size < len(labels):
        chosen, _ = train_test_split(chosen, train_size=train_size, stratify=labels, random_state=SUBSET_SEED)
    if val_size == 0:
        return np.sort(chosen), np.empty(0, dtype=np.int64)
    train, validation = train_test_split(chosen, test_size=val_size, stratify=labels[chosen], random_state=seed)
    return np.sort(train), np.sort(validation)
