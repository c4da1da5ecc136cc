"""Networks as users write them, with what goes wrong on a GPU only: does each trial end with a reason, or train?"""

from collections import Counter

import torch
from torch import Tensor, nn

from benchmarks.gpu.setting import Setting, furthest, require, trials, within
from regbench.engines import sequential, stacked
from regbench.training.events import Failed, Trained
from regbench.trial import Trial

TOLERANCE = 1e-9


class Small(nn.Module):
    """A few thousand weights."""

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(4), nn.Flatten())
        self.out = nn.Linear(4 * 8 * 8, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.body(x))


class HostTensor(Small):
    """Its mean stays on the CPU."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x - torch.full((3, 1, 1), 0.5))


class Reads(Small):
    """Reads a number back from the device, which vmap refuses."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x / max(x.max().item(), 0.5))


class Waits(Small):
    """Waits for the device, which a recording refuses."""

    def forward(self, x: Tensor) -> Tensor:
        if self.out.weight.device.type == "cuda":
            torch.cuda.synchronize()
        return super().forward(x)


class Counts(Small):
    """Counts its steps on the host, which a recording would not."""

    steps = 0

    def forward(self, x: Tensor) -> Tensor:
        self.steps += 1
        return super().forward(x) * (0.5 if self.steps % 3 else 1.0)


class Normalized(Small):
    """Keeps running statistics."""

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__(num_classes)
        self.body.insert(1, nn.BatchNorm2d(4))


class Dropped(Small):
    """Draws random numbers."""

    def forward(self, x: Tensor) -> Tensor:
        return self.out(nn.functional.dropout(self.body(x), 0.5, self.training))


NETWORKS = (Small, HostTensor, Reads, Waits, Counts, Normalized, Dropped)
# those that may fail in a stack, with a reason; the others must not
REFUSED = (HostTensor, Reads, Dropped)


def networks(setting: Setting, found: dict) -> None:
    """Train networks of users' in stacks: each trial ends with a reason, or as the sequential engine trains it."""
    problems = []
    for network in NETWORKS:
        recipe = setting.recipe(model=f"{network.__module__}:{network.__name__}", precision="float64")
        some = trials(recipe, ["none", "l1"], (0, 1))
        expected = _ends(sequential.train(some, setting.data, resume=False))
        ends = _ends(stacked.train(some, setting.data, len(some), resume=False))
        found[network.__name__] = {
            engine: dict(Counter(getattr(one, "reason", "trained") for events in these.values() for one in events))
            for engine, these in (("sequential", expected), ("stacked", ends))
        }
        for trial in some:
            wrong = _wrong(ends[trial], expected[trial], network in REFUSED)
            problems += [f"{network.__name__} {wrong}"] if wrong else []
    require(problems)


def _ends(events: object) -> dict[Trial, list[Trained | Failed]]:
    ends: dict[Trial, list[Trained | Failed]] = {}
    for event in events:
        ends.setdefault(event.trial, []).extend([event] if isinstance(event, Trained | Failed) else [])
    return ends


def _wrong(ours: list[Trained | Failed], theirs: list[Trained | Failed], may_fail: bool) -> str:
    """Return what is wrong with how a trial has ended in a stack; "" if nothing is."""
    if len(ours) != 1 or len(theirs) != 1:
        return f"ended {len(ours)} times in a stack, {len(theirs)} times alone"
    (mine,), (other,) = ours, theirs
    if isinstance(mine, Failed):
        return "" if may_fail and mine.reason else f"fails in a stack: {mine.reason}"
    if isinstance(other, Failed):
        return f"is trained in a stack, and alone fails: {other.reason}"
    apart = furthest(mine.weights, other.weights)
    return "" if within(apart, TOLERANCE) else f"differs by {apart:.1e} from what the sequential engine trains"
