"""The design of a comparison: on which seeds lam was chosen, and on which fresh ones the choice is judged."""

import math
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from regbench.report.language import gettext, ngettext
from regbench.report.load import Runs
from regbench.statistics.choice import Choice, choose
from regbench.statistics.looks import seeds_needed
from regbench.tracking import schema
from regbench.trial import BASELINE, format_lam, format_seeds

VALIDATION = "val/accuracy"
SELECTION = 3  # seeds of a grid without fresh ones that choose, where there are enough for that


@dataclass(frozen=True)
class Design:
    """Which seeds decide what.

    selection: seeds of the grid on which lam is chosen. choices: method -> choice, for all that are compared. confirm:
    fresh seeds in order, judged after so many of them as `looks` says; both empty if there are too few. split: whether
    the fresh seeds are the grid's own, those that had no say in the choice. notes: a sentence for each thing left out.
    """

    selection: tuple[int, ...]
    choices: dict[str, Choice]
    confirm: tuple[int, ...]
    looks: tuple[int, ...]
    split: bool
    notes: tuple[str, ...] = ()


def design(runs: Runs) -> Design:
    """Return the design of a sweep with fresh seeds; that of a grid alone is made by splitting its seeds.

    Of n seeds of a grid alone the first `SELECTION` choose, or fewer where those left would be too few for a verdict;
    none where each method has one lam. A lam with a missing or diverged trial on a seed that chooses takes no part.
    """
    grid = runs.trials[runs.trials["stage"] == schema.GRID]
    notes: list[str] = []
    found = _recorded(runs, grid, notes) if runs.confirm else _split(grid, notes)
    left_out = [name for name in dict.fromkeys(runs.trials["method"]) if name not in {BASELINE, *found.choices}]
    notes += [gettext("{name} is not compared: no lam of it was chosen.").format(name=name) for name in left_out]
    return replace(found, notes=tuple(notes))


def _split(grid: pd.DataFrame, notes: list[str]) -> Design:
    methods = set(grid["method"])
    seeds, family = _seeds(grid, BASELINE in methods, notes), len(methods - {BASELINE})
    choosing = 0
    if len(grid[["method", "lam"]].drop_duplicates()) > len(methods):
        choosing = max(0, min(SELECTION, len(seeds) - seeds_needed(family))) or len(seeds)
    fresh = seeds[choosing:]
    return Design(
        seeds[:choosing], _choices(grid, seeds[:choosing], notes), fresh, (len(fresh),) if fresh else (), True
    )


def _recorded(runs: Runs, grid: pd.DataFrame, notes: list[str]) -> Design:
    seeds = _seeds(grid, False, notes)
    now = _choices(grid, seeds, notes)
    if not runs.choice and now:
        notes.append(gettext("No lam is chosen yet: the tables show those which the finished trials would choose."))
        return Design(seeds, now, runs.confirm, runs.looks, False)
    choices = {}
    for method, lam in runs.choice.items():
        if method in set(runs.trials["method"]):
            choices[method] = Choice(lam, now[method].means if method in now else {lam: math.nan})
        if method in now and now[method].lam != lam:
            sentence = gettext(
                "{name} lam={lam} was chosen before trials arrived that would choose lam={other}; the choice stands."
            )
            notes.append(sentence.format(name=method, lam=format_lam(lam), other=format_lam(now[method].lam)))
    return Design(seeds, choices, runs.confirm, runs.looks, False)


def _seeds(grid: pd.DataFrame, baseline: bool, notes: list[str]) -> tuple[int, ...]:
    """Return the grid's seeds with half of its cells or more, and with one of none if `baseline`; others are noted."""
    every = sorted(set(grid["seed"]))
    others = grid[grid["method"] != BASELINE]
    cells, counts = len(others[["method", "lam"]].drop_duplicates()), others.groupby("seed").size()
    kept = {seed for seed in every if 2 * counts.get(seed, 0) >= cells}
    if baseline:
        kept &= set(grid.loc[grid["method"] == BASELINE, "seed"])
    if left := [seed for seed in every if seed not in kept]:
        sentence = gettext("Seeds left out, having less than half of the grid: {seeds}.")
        if baseline:
            sentence = gettext("Seeds left out, having no trial of none, or less than half of the grid: {seeds}.")
        notes.append(sentence.format(seeds=format_seeds(left)))
    return tuple(seed for seed in every if seed in kept)


def _choices(grid: pd.DataFrame, seeds: tuple[int, ...], notes: list[str]) -> dict[str, Choice]:
    """Return method -> choice by the mean validation accuracy over `seeds`; lams that take no part are noted."""
    scores: dict[str, dict[float, np.ndarray]] = {}
    others = grid[grid["method"] != BASELINE]
    lams = others.groupby("method")["lam"].nunique()
    for (method, lam), cell in others.groupby(["method", "lam"], sort=False):
        own = scores.setdefault(method, {})
        usable = cell[cell["outcome"] != "diverged"].set_index("seed")
        values = (usable[VALIDATION] if VALIDATION in usable else pd.Series(dtype=float)).reindex(seeds)
        sentence = ""
        missing = sorted(set(seeds) - set(usable.index))
        diverged = int((cell["outcome"] == "diverged").sum())
        if lams[method] == 1 and len(cell):
            own[lam] = values.to_numpy(dtype=float)  # it is not chosen, so what it lacks decides nothing
        elif not seeds:
            sentence = gettext("{name} takes no part in the choice of lam: no seed has half of the grid.")
        elif missing and diverged:
            sentence = ngettext(
                "{name} takes no part in the choice of lam: no usable result for seed {seeds}, {diverged} diverged.",
                "{name} takes no part in the choice of lam: no usable result for seeds {seeds}, {diverged} diverged.",
                len(missing),
            )
        elif missing:
            sentence = ngettext(
                "{name} takes no part in the choice of lam: no usable result for seed {seeds}.",
                "{name} takes no part in the choice of lam: no usable result for seeds {seeds}.",
                len(missing),
            )
        elif not np.isfinite(values.to_numpy(dtype=float)).all():
            sentence = gettext("{name} takes no part in the choice of lam: it has no validation accuracy.")
        else:
            own[lam] = values.to_numpy(dtype=float)
        if sentence:
            name = f"{method} lam={format_lam(lam)}"
            notes.append(sentence.format(name=name, seeds=format_seeds(missing), diverged=diverged))
    found = {method: choose(own) for method, own in scores.items()}
    return {method: choice for method, choice in found.items() if choice is not None}
