"""Neighbouring trials of one regularizer, whose hooks are called once for all of them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import groupby

import torch
from torch import Tensor

from regbench import regularizers
from regbench.errors import one_line
from regbench.regularizers import InputNoise, Regularizer
from regbench.training import randomness
from regbench.training.randomness import Stream
from regbench.trial import Trial

# hook that is given random numbers at each step -> their kind
KINDS = {"dense_input": randomness.DENSE_INPUT, "augment": randomness.AUGMENT}


class HookRaised(Exception):
    """A regularizer's hook raised: which, and what, in its words."""


@dataclass
class Group:
    """Trials at `rows` of a stack; `reason` is filled when a hook raises, and the hooks are not called again.

    lam is [k]; `kinds` are the hooks that are given random numbers, and of which kind. `masks` are True where a pruning
    regularizer has left a weight, bool [k, ...] per tensor, None where it does not prune. `covered` says of each tensor
    whether it is in the trials' scope.
    """

    rows: slice
    regularizer: Regularizer
    lam: Tensor
    covered: tuple[bool, ...]
    seeds: tuple[int, ...]
    reason: str = ""
    kinds: Mapping[str, int] = field(default_factory=KINDS.copy)
    masks: list[Tensor | None] = field(default_factory=list)

    @cached_property
    def idle(self) -> bool:
        """A lam of 0 is no regularization, whatever the method would do at 0."""
        return not self.lam.any().item()

    def covers(self, index: int) -> bool:
        """Return whether the group's regularizer acts on the weight of this number."""
        return not self.idle and self.covered[index]

    def acts(self, hook: str) -> bool:
        """Return whether the group's regularizer has this hook and is to be called."""
        return not self.idle and not self.reason and self.regularizer.has(hook)

    @cached_property
    def streams(self) -> dict[str, Stream]:
        """The random numbers of each hook that is given some."""
        return {hook: Stream(self.seeds, kind, self.lam.device) for hook, kind in self.kinds.items() if self.acts(hook)}

    def begin_epoch(self, epoch: int) -> None:
        """Seed the random numbers of an epoch's steps."""
        for stream in self.streams.values():
            stream.begin_epoch(epoch)

    def column(self, like: Tensor) -> Tensor:
        """Return lam as [k, 1, ...], with the dimensions of `like`."""
        return self.lam.view(-1, *(1,) * (like.ndim - 1))

    def call(self, hook: Callable, *args: object):
        """Call a hook; None if it raises, which fails the group's trials and leaves the others alone.

        A trial by itself that has diverged is not failed by what raises for numbers that are not finite: its loss shows it.
        """
        if self.reason:
            return None
        try:
            return hook(*args)
        except torch.OutOfMemoryError:  # of the stack, not of this regularizer
            raise
        except (Exception, SystemExit) as error:  # a user's own code: anything can come out of it
            if len(self.lam) == 1 and not all(_is_finite(given) for given in args):
                return None
            self.reason = f"{getattr(hook, '__name__', 'a hook')} raised {type(error).__name__}: {one_line(error)}"
            return None


def of(trials: Sequence[Trial], like: Tensor, covered: Mapping[str, Sequence[bool]]) -> Iterator[Group]:
    """Give the groups of `trials`, in order, with lams of the type and on the device of `like`.

    `covered` says for each of their scopes of which weights it consists.
    """
    first = 0
    for (name, scope), members in groupby(trials, key=lambda trial: (trial.regularizer, trial.scope)):
        cls, alike = regularizers.find(name), list(members)
        size = 1 if cls.one_by_one else len(alike)
        for start in range(0, len(alike), size):
            some = alike[start : start + size]
            lam = torch.tensor([trial.lam for trial in some], dtype=like.dtype, device=like.device)
            seeds = tuple(trial.seed for trial in some)
            yield Group(slice(first, first + len(some)), cls(), lam, tuple(covered[scope]), seeds)
            first += len(some)


def noise(trials: Sequence[Trial], like: Tensor) -> list[Group]:
    """Return the noise on the images, if the recipe of `trials` asks for it: as `input_noise`, beside any regularizer."""
    if not trials[0].recipe.input_noise:
        return []
    lam = torch.full((len(trials),), trials[0].recipe.input_noise, dtype=like.dtype, device=like.device)
    seeds = tuple(trial.seed for trial in trials)
    return [Group(slice(0, len(trials)), InputNoise(), lam, (), seeds, kinds={"augment": randomness.INPUT_NOISE})]


def _is_finite(given: object) -> bool:
    return not isinstance(given, Tensor) or bool(given.isfinite().all())
