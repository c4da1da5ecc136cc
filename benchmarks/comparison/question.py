"""The question that all contenders ask, and the lecture's training, which those have in common that bring none.

A copy of it lies beside each one's files, as it would lie in a user's folder. SEEDS, EPOCHS and LAMS come from the
environment so that the comparison can be tried out small.
"""

import os
from collections.abc import Callable
from functools import cache

import torch
from sklearn.model_selection import train_test_split
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from regbench import data
from regbench.networks.notebook import NotebookCNN

REGS = ("l1", "weight_decay")
LAMS = [float(text) for text in os.environ["LAMS"].split(",")]
SEEDS = range(int(os.environ["SEEDS"]))
EPOCHS = int(os.environ["EPOCHS"])
CELLS = [("none", 0.0)] + [(reg, lam) for reg in REGS for lam in LAMS]


@cache
def load() -> tuple[TensorDataset, TensorDataset]:
    """Return the images of digits for training and for the test, float [N, 3, 32, 32] in [0, 1], with their labels."""
    images = data.load("digits", "")
    pairs = (images.train_images, images.train_labels), (images.test_images, images.test_labels)
    train, test = (TensorDataset(torch.tensor(x) / 255, torch.tensor(y)) for x, y in pairs)
    return train, test


def hold_out(images: TensorDataset, seed: int) -> tuple[TensorDataset, TensorDataset]:
    """Return what to train on and a tenth to validate with, stratified."""
    x, y = images.tensors
    fit, held = train_test_split(torch.arange(len(y)), test_size=len(y) // 10, stratify=y, random_state=seed)
    return TensorDataset(x[fit], y[fit]), TensorDataset(x[held], y[held])


def train(reg: str, lam: float, seed: int, images: TensorDataset, log: Callable[..., None] | None = None) -> nn.Module:
    """Return a network that is trained with a regularizer; `log` gets the metrics of each epoch."""
    torch.manual_seed(seed)
    model = NotebookCNN()
    decay = lam if reg == "weight_decay" else 0.0
    optimizer = torch.optim.Adam(model.parameters(), lr=0.001, weight_decay=decay)
    loader = DataLoader(images, batch_size=100, shuffle=True)
    for epoch in range(1, EPOCHS + 1):
        total = 0.0
        for x, y in loader:
            loss = F.cross_entropy(model(x), y)
            if reg == "l1":
                loss = loss + lam * sum(p.abs().sum() for p in model.parameters())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item() * len(y)
        if log:
            log({"train_loss": total / len(images)}, step=epoch)
    return model


@torch.no_grad()
def accuracy(model: nn.Module, images: TensorDataset) -> float:
    x, y = images.tensors
    return (model(x).argmax(1) == y).float().mean().item()


def trial(reg: str, lam: float, seed: int, log: Callable[..., None] | None = None) -> dict[str, float]:
    """Train once; return the accuracies on the images held out and on those of the test."""
    images, test = load()
    fit, held = hold_out(images, seed)
    model = train(reg, lam, seed, fit, log)
    return {"val_accuracy": accuracy(model, held), "test_accuracy": accuracy(model, test)}
