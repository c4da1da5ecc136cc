"""The committed page of the comparison, and its numbers."""

import json
import math
import os
import platform
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version

from scipy import stats

from benchmarks.comparison.contenders import CONTENDERS, QUESTION, REGS, Contender, Question
from benchmarks.comparison.lines import written
from benchmarks.comparison.measuring import Measured, lines
from benchmarks.comparison.runs import Shown, shown
from regbench import __version__, provenance
from regbench.report.tables import table
from regbench.report.text import bounds, code, level, number, points
from regbench.statistics.looks import ALPHA
from regbench.statistics.paired import Interval
from regbench.trial import format_lam

COST = ("contender", "lines to write", "of them commands", "trainings", "minutes", "CPU minutes", "CPU s per training")
SHOWN = ("contender", "regularizer", "lam", "pairs", "chosen on other seeds", "difference", "exact interval", "t interval",
         "verdict")  # fmt: skip
NEEDED = ("contender", "what", "trainings")  # "what" is a column of words for `table`
Found = Mapping[str, Measured]  # by the names of the contenders that are installed and were asked for


def readme(question: Question, found: Found, command: str) -> str:
    """Return the page in Markdown."""
    here = [one for one in CONTENDERS if one.name in found]
    results = {one.name: shown(found[one.name].trainings) for one in here}
    lams = ", ".join(map(format_lam, question.lams))
    costs = table(COST, [_cost(one, found[one.name]) for one in here])
    shows = table(SHOWN, [row for one in here for row in _statistics(one, results[one.name])])
    needs = table(NEEDED, [_statement(one, question) for one in here])
    return f"""# Beside other tools

    {command}

Does `l1` or `weight_decay`, at the best of {len(question.lams)} strengths ({lams}), change the test accuracy of the
lecture's network? On scikit-learn's digits (1,437 images, a tenth of them held out for validation; 360 for the test),
batches of 100, {question.epochs} epochs of Adam at a learning rate of 0.001. Each contender has a folder, processes and a
store of its own; they run one after the other. What this means, and where the others are better:
[docs/comparison.md](../../../docs/comparison.md).

{_setting()}

## What it took

{costs}
{_missing(found)}
Lines: neither blank, nor comments, nor docstrings; a command is one. All but regbench share {written(QUESTION)} more:
[question.py](../../comparison/question.py), the lecture's training, which regbench has packaged. The network and what
reads the images are nobody's.

## What is answered

{_answers(here, found)}
## What the trainings show

By the same statistics for all: lam has the best mean validation accuracy; differences to `none` are of test accuracies, in
points, paired by seed. The exact interval is regbench's, by a sign-flip test and Holm's procedure; the t interval is of a
paired t-test with Bonferroni's correction, for which the differences are taken as normal.

{shows}

Too few seeds: the exact test of so few pairs cannot exclude anything.

## What the same statement takes

The statement of regbench's verdicts: lam is chosen by some seeds, and judged on {question.fresh} others.

{needs}
{_pairing(results)}"""


def numbers(question: Question, found: Found) -> str:
    """Return all that was measured, as JSON."""
    contenders = {
        one.name: {
            "lines": found[one.name].lines,
            "commands": [command.format(**question.fields) for command in one.commands],
            "packages": one.versions,
            "trainings": len(found[one.name].trainings),
            "seconds": round(found[one.name].seconds, 1),
            "cpu_seconds": round(found[one.name].cpu_seconds, 1),
            "answer": found[one.name].answer,
            "shown": {reg: _plain(result) for reg, result in shown(found[one.name].trainings).items()},
        }
        for one in CONTENDERS
        if one.name in found
    }
    setting = {
        "lams": question.lams,
        "seeds": question.seeds,
        "fresh": question.fresh,
        "epochs": question.epochs,
        "shared_lines": written(QUESTION),
        "machine": _machine(),
        "versions": _versions(),
        "date": _today(),
    }
    return json.dumps({"question": setting, "contenders": contenders}, indent=2) + "\n"


def _plain(result: Shown) -> dict[str, object]:
    interval = result.comparison.difference
    return {
        "lam": result.lam,
        "pairs": interval.n,
        "difference": round(interval.mean, 6),
        "low": round(interval.low, 6) if interval.bounded else None,
        "high": round(interval.high, 6) if interval.bounded else None,
        "level": interval.level,
        "verdict": str(result.comparison.verdict),
        "pairing": round(result.noise.pairing, 4) if math.isfinite(result.noise.pairing) else None,
    }


def _setting() -> str:
    versions = ", ".join(f"{name} {found}" for name, found in _versions().items())
    return f"{_machine()}, {_today()}: {versions}."


def _machine() -> str:
    return f"{provenance.processor()}, {os.cpu_count()} cores"


def _versions() -> dict[str, str]:
    own = {"regbench": __version__, "Python": platform.python_version()}
    own |= {name: version(name) for name in ("torch", "mlflow")}
    return own | {name: text for one in CONTENDERS for name, text in one.versions.items() if text}


def _today() -> str:
    return datetime.now(UTC).date().isoformat()


def _cost(contender: Contender, measured: Measured) -> tuple[str, ...]:
    count = len(measured.trainings)
    return (
        contender.name, str(measured.lines), str(len(contender.commands)), str(count), f"{measured.seconds / 60:.1f}",
        f"{measured.cpu_seconds / 60:.1f}", f"{measured.cpu_seconds / count:.1f}",
    )  # fmt: skip


def _missing(found: Found) -> str:
    said = [
        f"\nNot measured, since {' and '.join(one.missing)} is not installed: {one.name} ({lines(one)} lines to write)."
        for one in CONTENDERS
        if one.missing
    ]
    asked = [one.name for one in CONTENDERS if not one.missing and one.name not in found]
    if asked:
        said.append(f"\nLeft out by `--only`: {', '.join(asked)}.")
    return "\n".join([*said, ""])


def _answers(here: Sequence[Contender], found: Found) -> str:
    return "\n".join(f"{one.name}:\n\n{_quoted(found[one.name].answer)}\n" for one in here)


def _quoted(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.splitlines())


def _statistics(contender: Contender, results: Mapping[str, Shown]) -> list[tuple[str, ...]]:
    return [
        (
            contender.name, code(reg), format_lam(float(f"{result.lam:.3g}")), str(result.comparison.difference.n),
            "no" if contender.search is None else "yes", points(result.comparison.difference.mean),
            _bounds(result.comparison.difference), _bounds(_t_interval(result)), str(result.comparison.verdict),
        )
        for reg, result in results.items()
    ]  # fmt: skip


def _bounds(interval: Interval) -> str:
    return f"{bounds(interval)} ({level(interval)})" if interval.bounded else "unbounded"


def _t_interval(result: Shown) -> Interval:
    """Return the interval of a paired t-test, Bonferroni's correction for the regularizers included."""
    mean, count = result.comparison.difference.mean, result.comparison.difference.n
    half = math.inf
    if count > 1:
        half = stats.t.ppf(1 - ALPHA / len(REGS) / 2, count - 1) * result.noise.spread / math.sqrt(count)
    return Interval(mean, mean - half, mean + half, count, 1 - ALPHA / len(REGS))


def _statement(contender: Contender, question: Question) -> tuple[str, ...]:
    design = "the whole grid on all seeds" if contender.search is None else "first a choice of lam, then that alone"
    return contender.name, design, str(contender.needed(question, question.fresh))


def _pairing(results: Mapping[str, Mapping[str, Shown]]) -> str:
    own = results.get("regbench")
    if not own:
        return ""
    said = " and ".join(f"{number(result.noise.pairing)} (`{reg}`)" for reg, result in own.items())
    return f"""
That is with differences that are paired, each seed with the same initial weights and batches for all. Two means with their
standard deviations make no use of that; the variance of regbench's paired differences is {said} of that of unpaired ones.
"""
