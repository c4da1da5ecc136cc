"""How the trials of a sweep ended: a result each, and their means as a table and as the sweep's description."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from regbench.tracking import schema
from regbench.trial import Sweep, Trial

HEADINGS = ("cell", "seeds", "validation", "test", "exact zeros", "not ok")


@dataclass(frozen=True)
class Result:
    """How a trial ended: status ok, diverged, collapsed or failed; `metrics` is empty for a failed one."""

    trial: Trial
    status: str
    metrics: Mapping[str, float]
    reason: str = ""


def table(results: Sequence[Result]) -> list[tuple[str, ...]]:
    """Return a row of texts under HEADINGS per cell (regularizer and lam): means over seeds that have the metric."""
    grouped: dict[str, list[Result]] = {}
    for result in results:
        grouped.setdefault(result.trial.cell, []).append(result)
    rows = []
    for cell, members in grouped.items():
        means = [_mean(members, name) for name in ("val/accuracy", "test/accuracy", "sparsity/exact")]
        numbers = ("-" if value is None else f"{value:.2%}" for value in means)
        bad = [result.status for result in members if result.status != "ok"]
        notes = ", ".join(f"{bad.count(status)} {status}" for status in dict.fromkeys(bad))
        rows.append((cell, str(len(members)), *numbers, notes))
    return rows


def _mean(results: Sequence[Result], metric: str) -> float | None:
    values = [result.metrics[metric] for result in results if metric in result.metrics]
    return float(np.mean(values)) if values else None


def describe(sweep: Sweep, results: Sequence[Result], unknown: str = "") -> str:
    """Return the sweep's description in Markdown: the table, and how to find all trials.

    `unknown` is why the network's multiplications are not known, if so.
    """
    rule = ("---", *["---:"] * (len(HEADINGS) - 1))
    lines = ["| " + " | ".join(row) + " |" for row in (HEADINGS, rule, *table(results))]
    if unknown:
        lines += ["", f"No theoretical_speedup: the network's multiplications are not known ({unknown})"]
    else:
        lines.append("")
    found = f"All {len(sweep.trials)} trials, also those trained for an earlier sweep: `{schema.in_sweep(sweep.id)}`"
    return "\n".join([f"**{sweep.recipes[0].dataset}**", "", *lines, found])
