"""Each event of a trial once, though the trial may be trained more than once because a worker was lost."""

from collections.abc import Iterator
from dataclasses import dataclass

from regbench.training.events import Event, Failed, Started, Trained
from regbench.trial import Trial


@dataclass(eq=False)
class Attempts:
    """The attempts to train a trial: `passed` of its events have been passed on, `seen` are of the present attempt.

    A trial's events come in the same order in every attempt, so that the first `passed` of a later one are duplicates.
    """

    trial: Trial
    passed: int = 0
    seen: int = 0
    ended: bool = False

    def begin(self) -> None:
        """Count from the first event again: a new attempt begins."""
        self.seen = 0

    def is_new(self, event: Event) -> bool:
        """Take the next event of the present attempt; return whether it is to be passed on."""
        self.seen += 1
        self.ended = isinstance(event, Trained | Failed)
        new = self.ended or self.seen > self.passed
        if new:
            self.passed = self.seen
        return new

    def fail(self, reason: str) -> Iterator[Event]:
        """Give the events of a trial that failed: its start, too, if that was not passed on."""
        self.ended = True
        if not self.passed:
            yield Started(self.trial)
        yield Failed(self.trial, reason)
