"""The notebook's plain loop: DataLoader, PIL, ToTensor, penalty by autograd. The yardstick for fidelity and speed.

It is kept as a lecture would write it, network included, and shares with the engine only what a seed decides (initial
weights, batch order), so that the two can be compared number by number.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import ToTensor

from regbench import click_fields, data
from regbench.api import parsing
from regbench.api.experiments import EXPERIMENTS, experiment
from regbench.click_fields import ALL, AUTO, choice, command, option, whole
from regbench.commands import exit_code
from regbench.data.images import Images
from regbench.data.split import split
from regbench.engines.base import LOCAL
from regbench.preflight import find_device
from regbench.training.randomness import batches, initial_model
from regbench.trial import MAX_EPOCHS, NOTEBOOK, Trial


class Net(nn.Module):
    """The notebook's network as it is written there."""

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1)
        self.conv2 = nn.Conv2d(16, 32, 3, padding=1)
        self.l1 = nn.Linear(2048, 1024)
        self.l2 = nn.Linear(1024, 1024)
        self.l3 = nn.Linear(1024, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        x = torch.flatten(x, 1)
        x = F.relu(self.l1(x))
        x = F.relu(self.l2(x))
        return self.l3(x)


Penalty = Callable[[nn.Module], torch.Tensor]


class Pictures(Dataset):
    """Images uint8 [N, 3, 32, 32] returned one by one as torchvision's data sets do: a PIL image, then ToTensor."""

    def __init__(self, images: np.ndarray, labels: np.ndarray) -> None:
        self.images, self.labels, self.transform = images.transpose(0, 2, 3, 1), labels, ToTensor()

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.transform(Image.fromarray(self.images[index])), int(self.labels[index])


def l1(lam: float) -> Penalty:
    return lambda model: lam * sum(p.abs().sum() for p in model.parameters())


def l2(lam: float) -> Penalty:
    return lambda model: lam * sum(p.pow(2).sum() for p in model.parameters())


def network(num_classes: int, seed: int) -> Net:
    """Return the notebook's network with the weights that the engine starts from."""
    model = Net(num_classes)
    model.load_state_dict(initial_model(NOTEBOOK, num_classes, seed).state_dict())
    return model


def drop_inputs(model: nn.Module, share: float) -> None:
    """Drop a share of the inputs of each dense layer in training, as torch.nn.Dropout before it would."""
    for layer in model.modules():
        if isinstance(layer, nn.Linear):
            layer.register_forward_pre_hook(lambda layer, given: nn.functional.dropout(given[0], share, layer.training))


def settings(trial: Trial) -> tuple[Penalty | None, float]:
    """Return the penalty to add to the loss and the optimizer's weight_decay for one of the notebook's experiments."""
    penalty = {"l1": l1, "l2": l2}.get(trial.regularizer)
    decay = trial.lam if trial.regularizer == "weight_decay" else 0.0
    return (penalty(trial.lam) if penalty else None), decay


def train(
    model: nn.Module, trial: Trial, data: Images, device: torch.device, workers: int = 0, max_steps: int | None = None
) -> Iterator[tuple[float, float, float]]:
    """Train `model` in place as the notebook does; yield mean loss (penalty included), accuracy and seconds per epoch.

    Stops after `max_steps` steps, if given, with the mean over the part of the epoch that was trained.
    """
    recipe = trial.recipe
    chosen, _ = split(data.train_labels, recipe.train_size, recipe.val_size, trial.seed)
    pictures = Pictures(data.train_images[chosen], data.train_labels[chosen])
    penalty, decay = settings(trial)
    if trial.regularizer == "dropout":
        drop_inputs(model, trial.lam)
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=recipe.lr, momentum=recipe.momentum, weight_decay=decay)
    steps = 0
    for epoch in range(1, recipe.epochs + 1):
        begin = time.perf_counter()
        order = batches(len(pictures), recipe.batch_size, trial.seed, epoch)
        loader = DataLoader(pictures, batch_sampler=[batch.tolist() for batch in order], num_workers=workers)
        model.train()
        loss_sum, correct, seen = 0.0, 0, 0
        for images, labels in loader:
            images, labels = images.to(device), labels.to(device)
            optimizer.zero_grad()
            outputs = model(images)
            loss = criterion(outputs, labels)
            if penalty is not None:
                loss = loss + penalty(model)
            loss.backward()
            optimizer.step()
            loss_sum += loss.item() * len(labels)
            correct += (outputs.argmax(1) == labels).sum().item()
            seen += len(labels)
            steps += 1
            if steps == max_steps:
                break
        yield loss_sum / seen, correct / seen, time.perf_counter() - begin
        if steps == max_steps:
            return


def evaluate(model: nn.Module, data: Images, device: torch.device, batch_size: int, workers: int = 0) -> float:
    """Return the accuracy on the test images."""
    model.eval()
    correct, pictures = 0, Pictures(data.test_images, data.test_labels)
    with torch.no_grad():
        for images, labels in DataLoader(pictures, batch_size=batch_size, num_workers=workers):
            correct += (model(images.to(device)).argmax(1) == labels.to(device)).sum().item()
    return correct / len(data.test_labels)


@dataclass(frozen=True, kw_only=True)
class LoopOptions:
    name: str = option("none", choice(*EXPERIMENTS), f"The experiment: {', '.join(EXPERIMENTS)}.")
    dataset: str = option("cifar10", choice(*data.NAMES), "As for the sweep.")
    data_dir: Path = option(".data", parsing.folder("data_dir"), "Where the data is or is downloaded to.")
    train_size: int | None = option(ALL, click_fields.images(all=None), "Training images to take, or all.")
    epochs: int | None = option(AUTO, whole(1, MAX_EPOCHS, auto=None), "auto: the notebook's own number.")
    seed: int = option("0", parsing.one_seed, "Initial weights and batch order.")
    device: str = option(AUTO, parsing.device, "auto, cpu, cuda or cuda:N.")
    workers: int = option(0, whole(0, 64), "DataLoader's num_workers.")


@command(LoopOptions)
def main(chosen: LoopOptions) -> None:
    """Train one of the notebook's experiments with the plain loop and print what the notebook prints."""
    device, images = find_device(chosen.device, LOCAL), data.load(chosen.dataset, chosen.data_dir)
    for note in images.notes:
        click.echo(f"data: {note}")
    size = len(images.train_labels) if chosen.train_size is None else chosen.train_size
    trial = experiment(chosen.name, images, size, chosen.epochs, chosen.seed)
    model = network(len(images.classes), chosen.seed).to(device)
    epochs = train(model, trial, images, device, chosen.workers)
    for epoch, (loss, accuracy, seconds) in enumerate(epochs, start=1):
        click.echo(f"epoch {epoch}/{trial.recipe.epochs}: loss {loss:.4f}, accuracy {accuracy:.4f}, {seconds:.1f} s")
    accuracy = evaluate(model, images, device, trial.recipe.batch_size, chosen.workers)
    click.echo(f"test accuracy {accuracy:.4f}")


if __name__ == "__main__":
    exit_code.run(main)
