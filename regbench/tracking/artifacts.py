"""The files of a trial's run: its weights, tables of its layers and epochs; see pictures for those."""

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file

from regbench.tracking.schema import CLASSES, EPOCHS, LAYERS, MODEL


def write(
    folder: Path,
    weights: Mapping[str, torch.Tensor],
    layers: Sequence[Mapping[str, object]],
    epochs: Sequence[tuple[str, float, int, int]] = (),
    classes: Sequence[str] = (),
) -> None:
    """Write model.safetensors, epochs.csv and layers.csv into `folder`.

    `weights` is all that is needed to use the model; `layers` are the rows of the table; `epochs` are points of metrics:
    (name, value, time, epoch); `classes`, what the network tells apart, go into the file of the weights.
    """
    # clones, since safetensors refuses tensors that share memory
    tensors = {name: w.detach().cpu().contiguous().clone() for name, w in weights.items()}
    # one entry: several have no fixed order, and the same training gives the same bytes
    save_file(tensors, folder / MODEL, {CLASSES: json.dumps(list(classes))} if classes else None)
    # safetensors makes files that only their owner reads, and a copy keeps that
    (folder / MODEL).chmod(0o644)
    rows: dict[int, dict[str, object]] = {}
    for metric, value, _, epoch in epochs:
        rows.setdefault(epoch, {"epoch": epoch})[metric] = value
    _write_table(folder / EPOCHS, list(rows.values()))
    _write_table(folder / LAYERS, layers)


def _write_table(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    """Write rows as CSV, numbers as exact as they are; no file if there are none."""
    if not rows:
        return
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, fieldnames=list(dict.fromkeys(name for row in rows for name in row)))
        table.writeheader()
        table.writerows(rows)
