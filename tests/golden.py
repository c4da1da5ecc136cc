"""Small trainings whose results are committed: `python -m tests.golden` writes them anew, for a new RESULT_VERSION.

Of each trial there are, per tensor of its weights, the sum, the sum of squares and some single weights, and its
measures, all in float64: enough to see a change anywhere, and less than rounding makes between machines.
"""

import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import nn

from regbench import regularizers
from regbench.data.images import Images
from regbench.engines import sequential, stacked
from regbench.identity import RESULT_VERSION
from regbench.measures.final import measure
from regbench.training.device_data import DeviceData
from regbench.training.events import Epoch, Trained
from regbench.trial import NEUTRAL, NOTEBOOK, Recipe, Trial

PLACE = Path(__file__).parent / "golden.json"
ENGINES = {"sequential": sequential.train, "stacked": stacked.train}
SINGLE = 5
TOLERANCE = 1e-9
# of the notebook's network, which is large, only what touches its own way of computing
NOTEBOOK_CELLS = [("none", 0.0), ("l1", 1e-4), ("dropout", 0.3)]


class Net(nn.Module):
    """Convolution, running statistics and two dense layers."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.hidden = nn.Linear(4 * 4 * 4, 12)
        self.out = nn.Linear(12, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = nn.functional.avg_pool2d(self.norm(self.conv(x)).relu(), 8)
        return self.out(self.hidden(x.flatten(1)).relu())


def images() -> Images:
    """Return noise with a band per class that is a little brighter, 64 and 24 images of four classes."""
    random = np.random.default_rng(11)
    labels = np.arange(88, dtype=np.int64) % 4
    pictures = random.integers(0, 120, (88, 3, 32, 32), dtype=np.uint8)
    for picture, label in zip(pictures, labels, strict=True):
        picture[:, label * 8 : label * 8 + 8] += 40
    test = labels[64:].copy()
    test[::5] = (test[::5] + 1) % 4  # wrong ones, so that no network is right throughout
    return Images("golden", tuple("abcd"), pictures[:64], labels[:64], pictures[64:], test)


def trials(data: Images) -> list[Trial]:
    """Return a trial of every regularizer at the largest lam of its grid, and some of the notebook's network."""
    small = Recipe(
        data.name,
        data.fingerprint,
        60,
        12,
        "tests.golden:Net",
        5,
        10,
        lr=0.1,
        momentum=0.8,
        precision="float64",
        **NEUTRAL,
    )
    large = Recipe(data.name, data.fingerprint, 40, 8, NOTEBOOK, 2, 8, 0.05, 0.9, precision="float64", **NEUTRAL)
    cells = [(name, regularizers.find(name).lams[-1]) for name in regularizers.REGISTRY]
    found = [Trial(small, name, lam, 3) for name, lam in cells]
    found += [Trial(small, name, lam, 3, "all") for name, lam in cells if name in ("l1", "max_norm", "group_lasso")]
    return found + [Trial(large, name, lam, 1) for name, lam in NOTEBOOK_CELLS]


def results(engine: str, some: Iterable[Trial], data: Images) -> dict[str, dict[str, list[float]]]:
    """Return for each trial what is compared: a name -> numbers."""
    found: dict[str, dict[str, list[float]]] = {}
    for event in ENGINES[engine](list(some), DeviceData(data, torch.device("cpu"))):
        numbers = found.setdefault(f"{event.trial.recipe.model} {event.trial.name}", {})
        if isinstance(event, Epoch):
            numbers |= {f"epoch {event.epoch} {name}": [value] for name, value in _timeless(event.metrics)}
        if isinstance(event, Trained):
            for name, w in event.weights.items():
                flat = w.detach().double().flatten()
                single = flat[torch.linspace(0, len(flat) - 1, SINGLE).long()]
                numbers[name] = [flat.sum().item(), flat.square().sum().item(), *single.tolist()]
            numbers |= {name: [value] for name, value in _timeless(measure(event).metrics)}
    return found


def _timeless(metrics: Mapping[str, float]) -> Iterator[tuple[str, float]]:
    """Yield what a trial comes to: not its times, nor what its learning rate and the norms of its weights amount to."""
    return ((name, value) for name, value in metrics.items() if not name.startswith(("time/", "lr/")))


def main() -> None:
    """Write the results, also of new measures and regularizers; refuses to replace others of the same version."""
    data = images()
    found = results("sequential", trials(data), data)
    if PLACE.exists():
        known = json.loads(PLACE.read_text())
        same = all(
            np.allclose(found.get(trial, {}).get(name, []), values, TOLERANCE, TOLERANCE, equal_nan=True)
            for trial, numbers in known["results"].items()
            for name, values in numbers.items()
        )
        if known["version"] == RESULT_VERSION and not same:
            sys.exit("results changed: raise RESULT_VERSION in regbench/identity.py first")
    lines = ",\n".join(f"{json.dumps(trial)}: {json.dumps(numbers)}" for trial, numbers in found.items())
    PLACE.write_text(f'{{"version": {RESULT_VERSION}, "results": {{\n{lines}\n}}}}\n')


if __name__ == "__main__":
    main()
