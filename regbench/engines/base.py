"""What an engine is: who trains which trial when. Imports no torch, so that a plan is made at once."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Protocol

from joblib import cpu_count

from regbench import __version__, networks, provenance, regularizers
from regbench.data.images import Images
from regbench.training import measurement_cache, memory
from regbench.trial import Trial

if TYPE_CHECKING:
    from regbench.training.events import Event

SEQUENTIAL, STACKED = "sequential", "stacked"
NAMES = ("auto", SEQUENTIAL, STACKED)
LOCAL, RAY = "local", "ray"
BACKENDS = (LOCAL, RAY)


class Trainer(Protocol):
    """What the module of an engine has: two functions. To be chosen, it is named in select.py."""

    def start(self, engine: Engine, trials: Sequence[Trial], data: Images, resume: bool) -> Iterator[Event]:
        """Train `trials`, on what `engine` says; the events of one trial come in order, those of several may be mixed.

        What was cut off in an earlier process goes on, or with `resume` False begins again.
        """

    def measure(self, engine: Engine, trials: Sequence[Trial], data: Images) -> float:
        """Return the seconds that training on an image takes per trial, measured on some steps."""


@dataclass(frozen=True)
class Engine:
    """The engine of a sweep: the module that trains, and what is known of it before torch is imported.

    module: one of this package that is a Trainer. name: sequential or stacked. label, device_name: for people. device:
    cpu or cuda:N, on Ray cpu or cuda. jobs: trials, or stacks, at once. threads: of each; 0: torch's own number.
    """

    module: str
    name: str
    label: str
    device: str
    device_name: str
    jobs: int = 1
    threads: int = 0

    def train(self, trials: Sequence[Trial], data: Images, resume: bool = True) -> Iterator[Event]:
        """Train `trials`: see Trainer.start."""
        return self.trainer.start(self, trials, data, resume)

    def seconds_per_image(self, trials: Sequence[Trial], data: Images) -> float:
        """Return the seconds that training on an image takes per trial, measured on some steps of this device.

        The measurement is cached for packaged networks and regularizers; a user's own may change under the same name.
        """
        recipe, last = trials[0].recipe, trials[-1]
        plugin = any(regularizers.is_plugin(trial.regularizer) for trial in trials)
        if recipe.model not in networks.PACKAGED or plugin:
            return self.trainer.measure(self, trials, data)
        circumstances = asdict(self) | {
            "network": recipe.model,
            "model": provenance.processor() if self.device == "cpu" else self.device_name,
            "batch_size": recipe.batch_size,
            "precision": recipe.precision,
            "optimizer": recipe.optimizer,
            "average": recipe.average,
            "augmentation": [recipe.augment, recipe.input_noise > 0],
            "classes": len(data.classes),
            "regularizer": [last.regularizer, last.scope],
            "trials": len(trials) if self.name == STACKED else 1,
            "torch": version("torch"),
            "regbench": __version__,
            "cores": [cpu_count(), os.environ.get("OMP_NUM_THREADS")],
        }
        seconds = measurement_cache.get("seconds_per_image", **circumstances)
        if not isinstance(seconds, float):
            seconds = self.trainer.measure(self, trials, data)
            measurement_cache.put("seconds_per_image", seconds, **circumstances)
        return seconds

    @property
    def trainer(self) -> Trainer:
        memory.keep_freed()
        # late: its import of torch takes seconds, and a plan often needs nothing of it
        return importlib.import_module(f"{__package__}.{self.module}")
