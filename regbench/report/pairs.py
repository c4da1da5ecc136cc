"""Pairs of trainings on the same fresh seed: of a regularizer and `none`, or of two regularizers."""

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, TypeVar

import numpy as np

from regbench.report.design import Design
from regbench.report.load import Runs
from regbench.statistics.paired import Noise, noise
from regbench.statistics.verdict import Comparison, judge
from regbench.trial import BASELINE

K = TypeVar("K", bound=Hashable)
TEST = "test/accuracy"


@dataclass(frozen=True)
class Pairs:
    """Test accuracies (fractions) `own` [seed] of a method, and `other` [seed] of another one, on fresh seeds.

    NaN is that of a training that ended without accuracy. Of the `planned` fresh seeds both trainings of the first `ended`
    have ended.
    """

    own: np.ndarray
    other: np.ndarray
    ended: int
    planned: int

    def __len__(self) -> int:
        return len(self.own)

    @property
    def noise(self) -> Noise:
        return noise(self.own, self.other)

    @property
    def means(self) -> tuple[float, float]:
        """The two mean accuracies, NaN where there is no pair."""
        return (float(self.own.mean()), float(self.other.mean())) if len(self) else (math.nan, math.nan)

    def counted(self, comparison: Comparison) -> "Pairs":
        """Return the pairs that a comparison is of: those with both accuracies, up to the look at which it was made."""
        own, other = (values[: comparison.looked or None] for values in (self.own, self.other))
        finite = np.isfinite(own - other)
        return replace(self, own=own[finite], other=other[finite])


class Contrast(NamedTuple):
    """A comparison, and the pairs that it is of."""

    comparison: Comparison
    pairs: Pairs


class Fresh:
    """The trainings on fresh seeds, of each method at its chosen lam and of `none`, as far as they have ended.

    One that failed has ended without accuracy. Where a grid's seeds were split, so has one that is missing.
    """

    def __init__(self, runs: Runs, plan: Design) -> None:
        self._runs, self._plan = runs, plan
        self._lams = {BASELINE: 0.0} | {method: choice.lam for method, choice in plan.choices.items()}
        names = ["method", "lam", "seed"]
        self._accuracies = runs.trials.set_index(names).reindex(columns=[TEST])[TEST].to_dict()
        others = {status: set(map(tuple, group[names].to_numpy())) for status, group in runs.others.groupby("status")}
        self._ended = self._accuracies.keys() | (others.get("FAILED", set()) - others.get("RUNNING", set()))

    def seeds(self, *methods: str) -> list[int]:
        """Return the seeds that are fresh for all these methods, in order, as many as there are before the last look."""
        chose = set().union(*(self._runs.chosen_on.get(method, ()) for method in methods))
        return [seed for seed in self._plan.confirm if seed not in chose][
            : self._plan.looks[-1] if self._plan.looks else 0
        ]

    def accuracy(self, method: str, seed: int) -> float | None:
        """Return the test accuracy, NaN of a training that has ended without, None if it has not ended."""
        trial = method, self._lams[method], seed
        if not self._plan.split and trial not in self._ended:
            return None
        return self._accuracies.get(trial, math.nan)

    def pairs(self, method: str, other: str) -> Pairs:
        """Return the pairs of two methods, as far as both trainings have ended."""
        seeds, values = self.seeds(method, other), []
        for seed in seeds:
            both = self.accuracy(method, seed), self.accuracy(other, seed)
            if None in both:
                break
            values.append(both)
        return Pairs(*np.array(values, dtype=float).reshape(-1, 2).T, len(values), len(seeds))


def compare(family: Mapping[K, Pairs], looks: Sequence[int]) -> dict[K, Contrast]:
    """Return the comparison of each member of a family, and the pairs that it is of."""
    judged = judge({name: pairs.own - pairs.other for name, pairs in family.items()}, looks)
    return {name: Contrast(found, family[name].counted(found)) for name, found in judged.items()}
