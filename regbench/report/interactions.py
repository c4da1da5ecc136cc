"""Does what a regularizer does depend on the recipe? Its differences to `none` in two recipes, seed by seed."""

from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np

from regbench.report.inputs import Material
from regbench.report.language import gettext
from regbench.report.pairs import Fresh
from regbench.report.text import difference
from regbench.statistics.verdict import MARGIN, Comparison, Verdict, judge
from regbench.trial import BASELINE

MOST = 3  # recipes of which all pairs are compared; of more, each with the first


class Interaction(NamedTuple):
    """A method's differences to none in two recipes: their comparison, and `accuracies` [pair, 4] of which it is.

    These are, in fractions, of the method and none in the first recipe, and of both in the second.
    """

    comparison: Comparison
    accuracies: np.ndarray

    @property
    def gains(self) -> tuple[float, float]:
        """The differences to none in both recipes, in percentage points as they are shown."""
        if not len(self.accuracies):
            return np.nan, np.nan
        own, none, own_second, none_second = self.accuracies.mean(axis=0)
        return difference(own, none), difference(own_second, none_second)

    @property
    def change(self) -> float:
        """The second of the gains minus the first."""
        first, second = self.gains
        return round(second - first, 2) + 0.0

    @property
    def verdict(self) -> str:
        """The verdict on (a method - none in the second recipe) - (the same in the first), in words."""
        words = {
            Verdict.BETTER: gettext("larger"),
            Verdict.WORSE: gettext("smaller"),
            Verdict.EQUIVALENT: gettext("the same within {margin} points").format(margin=f"{100 * MARGIN:g}"),
            Verdict.NO_DIFFERENCE: gettext("not shown"),
            Verdict.TOO_FEW: gettext("too few seeds"),
        }[self.comparison.verdict]
        return gettext("{verdict}, but within the margin").format(verdict=words) if self.comparison.trivial else words


def interactions(materials: Sequence[Material]) -> dict[tuple[str, int, int], Interaction]:
    """Return (method, first recipe, second recipe) -> interaction: for each method that both judge on fresh seeds.

    They are a family, judged by the sign-flip test of the differences of differences, over the seeds that are fresh in
    both recipes and as far as all four trainings have ended. Recipes may differ in noise: the test is exact where the
    differences to none are distributed symmetrically about their means. A family is judged at the looks of its recipes'
    sweeps, up to the last that two of them have.
    """
    trained = [Fresh(material.runs, material.analysis.design) for material in materials]
    pairs = list(combinations(range(len(materials)), 2))
    if len(materials) > MOST:
        pairs = [pair for pair in pairs if pair[0] == 0]
    values = {}
    compared = [one.analysis.comparisons if one.analysis.design.confirm else {} for one in materials]
    for method in dict.fromkeys(method for methods in compared for method in methods):
        for first, second in pairs:
            if method in compared[first] and method in compared[second]:
                values[method, first, second] = _accuracies(method, trained[first], trained[second])
    family = {name: (four[:, 2] - four[:, 3]) - (four[:, 0] - four[:, 1]) for name, four in values.items()}
    found = {}
    for name, comparison in judge(family, _looks(materials)).items():
        four = values[name][: comparison.looked or None]
        found[name] = Interaction(comparison, four[np.isfinite(four).all(axis=1)])
    return found


def _accuracies(method: str, first: Fresh, second: Fresh) -> np.ndarray:
    """Return [seed, 4]: of the method and none in one recipe and in the other, as far as all have ended."""
    found = []
    for seed in (seed for seed in first.seeds(method) if seed in second.seeds(method)):
        four = [recipe.accuracy(name, seed) for recipe in (first, second) for name in (method, BASELINE)]
        if None in four:
            break
        found.append(four)
    return np.array(found, dtype=float).reshape(-1, 4)


def _looks(materials: Sequence[Material]) -> tuple[int, ...]:
    every = [material.analysis.design.looks for material in materials]
    ends = sorted(looks[-1] for looks in every if looks)
    return tuple(sorted({look for looks in every for look in looks if len(ends) > 1 and look <= ends[-2]}))
