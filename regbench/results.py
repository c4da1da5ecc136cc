"""How the trials of a sweep ended: a result each, and its tables, also as the sweep's description."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from urllib.parse import urlencode

import numpy as np

from regbench import stages
from regbench.report import text
from regbench.statistics.verdict import Comparison
from regbench.tracking import schema
from regbench.trial import Sweep, Trial, format_lam, format_seeds

HEADINGS = ("cell", "seeds", "validation", "test", "exact zeros", "not ok")
REPORT_LINE = "Report with figures"  # begins the line of the description that a report replaces
ARTIFACT = "get-artifact"  # relative to MLflow's page
LONGEST_NOTE = 8000  # characters of a tag in MLflow
FRESH_HEADINGS = ("on fresh seeds", "pairs", "test", "none", "difference, pp", "interval", "verdict")


@dataclass(frozen=True)
class Result:
    """How a trial ended: status ok, diverged, collapsed or failed; `metrics` is empty for a failed one."""

    trial: Trial
    status: str
    metrics: Mapping[str, float]
    reason: str = ""


def table(sweep: Sweep, results: Mapping[str, Result]) -> list[tuple[str, ...]]:
    """Return a row of texts under HEADINGS per cell of the grid: means over seeds that have the metric.

    `results` are by trial key.
    """
    grouped: dict[str, list[Result]] = {}
    for trial in sweep.trials:
        if trial.key in results:
            grouped.setdefault(sweep.cell(trial), []).append(results[trial.key])
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


def fresh_table(
    sweep: Sweep, lams: Mapping[str, float], results: Mapping[str, Result]
) -> dict[str, tuple[Comparison, tuple[str, ...]]]:
    """Return, per method at its chosen lam, its comparison and the texts of it under FRESH_HEADINGS.

    `results` are by trial key.
    """
    rows = {}
    for method, found in stages.compare(sweep, lams, results).items():
        looked = stages.pairs(sweep, method, lams[method], results)[: found.looked]
        pairs = [pair for pair in looked if np.isfinite(pair).all()]
        own, base = np.mean(pairs, axis=0) if pairs else (np.nan, np.nan)
        shown = (
            (f"{text.difference(own, base):+.2f}", *format_comparison(found)) if pairs else ("-", "-", found.verdict)
        )
        cell = sweep.cell(sweep.pair(method, lams[method], 0)[1])
        rows[method] = found, (cell, str(len(pairs)), *map(text.percent, (own, base)), *shown)
    return rows


def format_comparison(found: Comparison) -> tuple[str, str]:
    """Return the interval of the difference in percentage points, and the verdict."""
    return text.bounds(found.difference), found.verdict + (", but by less than matters" if found.trivial else "")


def describe(
    sweep: Sweep,
    results: Mapping[str, Result],
    lams: Mapping[str, float],
    experiment: str = "",
    unknown: str = "",
    models: Mapping[str, str] | None = None,
) -> str:
    """Return the sweep's description in Markdown: the verdicts on fresh seeds, the commands to go on with, and the grid.

    `results` are by trial key, `lams` the chosen ones by method. `unknown` is why the network's multiplications are not
    known, if so; `models` are the ids of the sweep's logged models by trial's name. The table of the grid comes
    last, and is cut where the whole would be longer than MLflow keeps.
    """
    lines, data = [], f"**{sweep.recipes[0].dataset}**"
    if lams:
        chosen = _plain(", ".join(f"{method} {format_lam(lam)}" for method, lam in lams.items()))
        looks = f"fresh seeds {format_seeds(sweep.confirm)}, judged after {', '.join(map(str, sweep.looks))}"
        lines += _markdown(FRESH_HEADINGS, [row for _, row in fresh_table(sweep, lams, results).values()])
        # MLflow's page shows the first few lines: nothing stands above the verdicts
        lines += ["", f"{data}. Chosen on validation: {chosen}. Confirmed on {looks}.", ""]
    else:
        lines += [data, ""]
    lines += [report_line(experiment, sweep.id), ""]
    if models:
        loads = [f'mlflow.pytorch.load_model("models:/{model_id}")  # {name}' for name, model_id in models.items()]
        lines += [
            "Trained networks, each the best on validation of those at its lam:",
            "",
            "```python",
            *loads,
            "```",
            "",
        ]
    if unknown:
        lines += [f"No theoretical_speedup: the network's multiplications are not known ({unknown})", ""]
    lines += [f"All {len(results)} trials, also those of an earlier sweep: `` {schema.in_sweep(sweep.id)} ``", ""]
    rows = _markdown(HEADINGS, table(sweep, results))
    more = "(the other rows have no room here; the report has them)"
    room = LONGEST_NOTE - len("\n".join([*lines, "", more]))
    shown = [row for row, length in zip(rows, accumulate(len(row) + 1 for row in rows), strict=True) if length <= room]
    return "\n".join([*lines, *shown, *(["", more] if len(shown) < len(rows) else [])])


def report_line(experiment: str, sweep_id: str) -> str:
    """Return the line of a sweep's description that tells how its report is made."""
    named = f"--experiment {shlex.quote(experiment)} " if experiment else ""
    return f"{REPORT_LINE}: `python -m regbench report {named}--sweep {sweep_id}` puts it here, into Artifacts."


def with_figures(note: str, run_id: str, artifacts: Sequence[str]) -> str:
    """Return a description of `describe` that shows these pictures, artifacts of the sweep's run, and names the report.

    MLflow's page takes them from its own server by the address that it uses itself; it shows none that is in the text.
    """
    shown = " ".join(f"![]({ARTIFACT}?{urlencode({'path': path, 'run_uuid': run_id})})" for path in artifacts)
    line = f"{REPORT_LINE}: report/report.md, in Artifacts. {shown}".rstrip()
    return "\n".join(line if old.startswith(REPORT_LINE) else old for old in note.split("\n"))


def _markdown(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    rule = ("---", *["---:"] * (len(headings) - 1))
    return ["| " + " | ".join(map(_plain, row)) + " |" for row in (headings, rule, *rows)]


def _plain(words: str) -> str:
    return words.replace("*", r"\*")  # of a scope, and not the begin of italics
