"""What has been told of a trial that may be trained more than once, because a worker was lost."""

from collections.abc import Iterator
from dataclasses import dataclass

from regbench.engine.events import Event, Failed, Started, Trained
from regbench.sweep import Trial


@dataclass(eq=False)
class Told:
    """A trial and how many of its events have been told; `seen` counts those of the present training.

    A trial's events come in the same order in every training, so that the first `events` of a later one are known.
    """

    trial: Trial
    events: int = 0
    seen: int = 0
    ended: bool = False

    def is_new(self, event: Event) -> bool:
        """Take the next event of the present training; return whether it is to be told."""
        self.seen += 1
        self.ended = isinstance(event, Trained | Failed)
        new = self.ended or self.seen > self.events
        if new:
            self.events = self.seen
        return new

    def fail(self, reason: str) -> Iterator[Event]:
        """Tell that the trial failed, and that it was started if that is not known."""
        self.ended = True
        if not self.events:
            yield Started(self.trial)
        yield Failed(self.trial, reason)
