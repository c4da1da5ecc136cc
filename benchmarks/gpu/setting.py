"""What the checks share: the device, images, sizes, the trials that they train, and how two trainings differ."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from regbench.data import load
from regbench.data.images import Images
from regbench.data.split import split
from regbench.errors import UserError
from regbench.regularizers import BASELINE, REGISTRY
from regbench.training import precision, single, stack
from regbench.training.device_data import DeviceData
from regbench.trial import NEUTRAL, NOTEBOOK, PRECISIONS, Recipe, Trial

SYNTHETIC = "synthetic"
CLASSES = 10
# problems that a check names
TOLD = 5


class Skipped(Exception):
    """A check that cannot be made here; the message says why."""


class Wrong(Exception):
    """A check has found something wrong; the message says what."""


@dataclass(frozen=True)
class Sizes:
    """How much is checked.

    `stacks` are numbers of trials in a stack, `images` those of a convolution's batch. `few` and `tested` are how many
    images of the data the checks of numbers take at most, `steps`, `batch_size` and `model` what these train. `timed` are
    the steps of a measurement, in batches of `timed_batch`, and `budget` the seconds for stacks of them. `grid` are the
    lams of a small sweep, which is trained `repeats` times; `seeds`, `epochs` and `swept` are the seeds, epochs and images
    of a large one.
    """

    stacks: tuple[int, ...]
    images: int
    few: int
    tested: int
    steps: int
    batch_size: int
    model: str
    timed: int
    timed_batch: int
    budget: float
    grid: str
    repeats: int
    seeds: int
    epochs: int
    swept: int


SIZES = {
    "cuda": Sizes((1, 2, 64, 128), 100, 4_000, 500, 20, 20, NOTEBOOK, 30, 100, 100.0, "1e-4,1e-3", 2, 16, 2, 50_000),
    "cpu": Sizes((1, 2), 4, 400, 50, 2, 10, "resnet8", 2, 20, 3.0, "1e-3", 1, 1, 1, 1_000),
}


@dataclass(frozen=True)
class Setting:
    """Where and on what is checked. `folder` is for files that are needed no longer than the checks take."""

    device: torch.device
    dataset: str
    data_dir: Path
    folder: Path

    @property
    def sizes(self) -> Sizes:
        return SIZES[self.device.type]

    @cached_property
    def images(self) -> Images:
        """The whole data set."""
        return load(self.dataset, self.data_dir)

    @cached_property
    def few(self) -> Images:
        """Some images of each class."""
        data, parts = self.images, {}
        for part, size in (("train", self.sizes.few), ("test", self.sizes.tested)):
            images, labels = getattr(data, f"{part}_images"), getattr(data, f"{part}_labels")
            chosen = split(labels, size, 0, 0)[0] if size < len(labels) else slice(None)
            parts |= {f"{part}_images": images[chosen], f"{part}_labels": labels[chosen]}
        return replace(data, **parts)

    @cached_property
    def data(self) -> DeviceData:
        """`few` on the device."""
        return DeviceData(self.few, self.device)

    @cached_property
    def precisions(self) -> tuple[str, ...]:
        """The precisions that the device has."""
        return tuple(kind for kind in PRECISIONS if self._has(kind))

    def _has(self, kind: str) -> bool:
        try:
            precision.check(kind, self.device)
        except UserError:
            return False
        return True

    def need_gpu(self) -> None:
        """Raise Skipped unless the device is a GPU."""
        if self.device.type != "cuda":
            raise Skipped(f"needs CUDA, this is {self.device.type}")

    def recipe(self, **options: object) -> Recipe:
        """Return a recipe of `steps` steps in two epochs, on some of the images, none of them held out."""
        size = self.sizes.batch_size
        chosen = {"epochs": 2, "batch_size": size, "train_size": size * self.sizes.steps // 2, "val_size": 0} | options
        return Recipe(self.few.name, self.few.fingerprint, **NEUTRAL | chosen)


def synthetic(folder: Path, train: int, test: int) -> Path:
    """Write a data set that a network can learn into a folder, as the IDX files of Fashion-MNIST; return the folder.

    In this form the command line takes it too. The class decides which band of the picture is bright.
    """
    random = np.random.default_rng(0)
    for part, count in (("train", train), ("t10k", test)):
        labels = np.arange(count, dtype=np.uint8) % CLASSES
        pictures = random.integers(0, 100, (count, 28, 28), dtype=np.uint8)
        pictures += np.where(np.arange(28) * CLASSES // 28 == labels[:, None], 120, 0).astype(np.uint8)[:, :, None]
        for kind, magic, array in (("images-idx3", 0x803, pictures), ("labels-idx1", 0x801, labels)):
            header = np.array([magic, *array.shape], dtype=">i4").tobytes()
            (folder / f"{part}-{kind}-ubyte").write_bytes(header + array.tobytes())
    return folder


def trials(recipe: Recipe, names: Iterable[str] = REGISTRY, seeds: Sequence[int] = (0,)) -> list[Trial]:
    """Return trials of these regularizers, each at the middle of its own lams, with each seed."""
    return [Trial(recipe, name, lam(name), seed) for name in names for seed in seeds]


def lam(name: str) -> float:
    """Return the middle of a regularizer's own lams."""
    return 0.0 if name == BASELINE else REGISTRY[name].lams[len(REGISTRY[name].lams) // 2]


def together(some: Sequence[Trial], data: DeviceData, record: bool = False) -> stack.Training:
    """Return the training of trials as one stack, after its epochs."""
    recipe = some[0].recipe
    with precision.settings(recipe.precision, data.device):
        training = stack.Training(some, data, record)
        for epoch in range(1, recipe.epochs + 1):
            training.epoch(epoch)
    return training


def alone(trial: Trial, data: DeviceData) -> single.Training:
    """Return the training of a trial by itself, after its epochs."""
    recipe = trial.recipe
    with precision.settings(recipe.precision, data.device):
        part, _ = split(data.labels, recipe.train_size, recipe.val_size, trial.seed)
        training = single.Training(trial, data.num_classes, data.device)
        for epoch in range(1, recipe.epochs + 1):
            single.train_epoch(training, epoch, data, data.index(part))
    return training


def row(training: stack.Training, number: int) -> dict[str, Tensor]:
    """Return the parameters of one trial of a stack, by name."""
    return {name: w[number].detach() for name, w in training.stack.parameters.items()}


def furthest(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> float:
    """Return the largest relative difference of any tensor: norm of the difference over norm; NaN if one is NaN."""
    return max((difference(found[name], w) for name, w in expected.items()), key=lambda d: (np.isnan(d), d))


def difference(found: Tensor, expected: Tensor) -> float:
    """Return the norm of the difference over the norm of what is expected, in float64 on the device of what is found."""
    ours = found.detach().double()
    theirs = expected.detach().to(ours)
    return (torch.linalg.vector_norm(ours - theirs) / torch.linalg.vector_norm(theirs).clamp(min=1e-300)).item()


def within(value: float, bound: float) -> bool:
    """Return whether a difference is small enough, which NaN is not."""
    return bool(value <= bound)


def require(problems: Sequence[str]) -> None:
    """Raise Wrong if there are problems, with the first of them."""
    if problems:
        raise Wrong(
            "; ".join([*problems[:TOLD], *([f"and {len(problems) - TOLD} more"] if len(problems) > TOLD else [])])
        )
