"""Which lam of a regularizer is taken: that with the best mean validation accuracy over the seeds of the grid."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

_TIE = 1e-12  # accuracies are multiples of 1 / images; means that differ by less than this differ by rounding only


@dataclass(frozen=True)
class Choice:
    """The chosen lam, and the mean validation accuracies (fractions) of all lams that could be chosen."""

    lam: float
    means: Mapping[float, float]

    @property
    def edge(self) -> str:
        """Say where the lam lies in the grid: "lowest" or "highest" (a better one may lie beyond), "only", or ""."""
        if len(self.means) == 1:
            return "only"
        return {min(self.means): "lowest", max(self.means): "highest"}.get(self.lam, "")

    @property
    def at_edge(self) -> bool:
        return self.edge in ("lowest", "highest")


def choose(validation: Mapping[float, Sequence[float]]) -> Choice | None:
    """Return the choice among lams with these validation accuracies [seed]; ties go to the smaller lam.

    All lams must have the same seeds: one with a missing or diverged training is left out by the caller, by name, and not
    averaged over the seeds that survived. None if no lam is left. A single lam is taken whatever its accuracies, also
    where there are none (NaN).

    Raises ValueError if the numbers of seeds differ, or if one of several lams has a value that is not finite.
    """
    if not validation:
        return None
    values = {float(lam): np.asarray(scores, dtype=float) for lam, scores in sorted(validation.items())}
    if len({len(scores) for scores in values.values()}) > 1:
        raise ValueError("every lam needs the same seeds")
    if len(values) > 1 and not all(np.isfinite(scores).all() for scores in values.values()):
        raise ValueError("validation accuracies must be finite: missing and diverged trials are dealt with before")
    means = {lam: float(scores.mean()) if len(scores) else float("nan") for lam, scores in values.items()}
    if len(means) == 1:
        return Choice(next(iter(means)), means)
    best = max(means.values())
    return Choice(next(lam for lam, mean in means.items() if mean >= best - _TIE), means)
