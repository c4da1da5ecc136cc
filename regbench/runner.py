"""From a sweep to its results: plan, engine, measures, tracking."""

import math
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field, replace

import numpy as np
from rich.console import Console

from regbench import macs, metrics, planning, sparsity
from regbench.data.images import Images
from regbench.engine.choice import Engine
from regbench.engine.events import Epoch, Failed, Started, Trained
from regbench.planning import Plan
from regbench.progress import Reporter
from regbench.sweep import Sweep, Trial
from regbench.tracking import schema
from regbench.tracking.delivery import deliver_first
from regbench.tracking.store import Store
from regbench.tracking.sweep_run import SweepRun


@dataclass(frozen=True)
class Result:
    """How a trial ended: status ok, diverged, collapsed or failed; `metrics` is empty for a failed one.

    `layers` are the measures per layer of one that was trained now, until they are written.
    """

    trial: Trial
    status: str
    metrics: Mapping[str, float]
    reason: str = ""
    layers: list[dict[str, object]] = field(default_factory=list)


def run(plan: Plan, data: Images, store: Store, engine: Engine, console: Console, name: str) -> list[Result]:
    """Train what is to be trained, write it to the store, and return a result for every trial of the sweep.

    A trial that raises is a failed result, the others go on. SIGINT and SIGTERM end it as KeyboardInterrupt, after
    what is finished has been written. A store that is away stops nothing: see tracking.writer. Raises TrackingError if
    it is away for too long after training, or fails for a reason that does not pass; what is on disk waits.
    """

    def say(text: str) -> None:
        console.print(text, markup=False, highlight=False, soft_wrap=True)

    with _interruptible(), ExitStack() as opened:
        # one start at a time: what another has begun or finished meanwhile is seen here
        with store.outbox.starting():
            # of a start that was bringing it when the plan was made, and was ended
            deliver_first(store, say)
            store.look_again()
            planned = len(plan.todo)
            plan = planning.refresh(plan, store)
            if len(plan.todo) < planned:
                say(f"{planned - len(plan.todo)} trial(s) finished by another process meanwhile")
            abandoned = store.close_abandoned(trial.key for trial in plan.todo)
            interrupted = [run for run in abandoned if schema.KEY in run.data.tags]
            if interrupted:
                say(f"{len(interrupted)} trial(s) cut off earlier marked KILLED")
            todo = {trial.key for trial in plan.todo}
            rerun = {key: old for key, old in plan.reused.items() if key in todo}
            kept = {key: old for key, old in plan.reused.items() if key not in todo}
            results = {
                key: Result(trial, kept[key].status, kept[key].metrics)
                for trial in plan.sweep.trials
                if (key := trial.key) in kept
            }
            if not todo and not store.launcher and all(plan.sweep.id in old.sweeps for old in kept.values()):
                # another run of the same name would hold nothing
                return [results[trial.key] for trial in plan.sweep.trials]
            parent = opened.enter_context(SweepRun(store, plan.sweep, data, engine.device_name, engine.name, name, say))
        reporter = opened.enter_context(Reporter(plan.todo, console))
        events = opened.enter_context(closing(engine.train(plan.todo, data, resume=not plan.rerun)))
        parent.adopt(list(kept.values()))
        writer = parent.writer
        last_epoch: dict[Trial, Mapping[str, float]] = {}
        for event in events:
            trial = event.trial
            match event:
                case Started():
                    writer.start(trial)
                    reporter.start(trial)
                case Epoch(epoch=epoch, metrics=values):
                    last_epoch[trial] = values
                    writer.epoch(trial, epoch, values)
                    reporter.epoch(trial, epoch, values)
                case Trained():
                    result = measure(event)
                    old = rerun.get(trial.key)
                    writer.finish(
                        trial,
                        result.metrics,
                        event.weights,
                        result.layers,
                        result.status,
                        result.reason,
                        replaces=old.run_id if old else None,
                        node=event.node,
                    )
                    reporter.end(trial, _told(result, event.node))
                    known = last_epoch.pop(trial, {}) | result.metrics
                    results[trial.key] = replace(result, metrics=known, layers=[])
                case Failed(reason=reason):
                    writer.fail(trial, reason)
                    reporter.end(trial, f"failed: {reason}")
                    results[trial.key] = Result(trial, "failed", {}, reason)
        ordered = [results[trial.key] for trial in plan.sweep.trials]
        untold = [
            work.untold for r in plan.sweep.recipes if (work := macs.per_image(r.model, len(data.classes))).untold
        ]
        parent.end(summary(plan.sweep, ordered, untold[:1]), all(result.status != "failed" for result in ordered))
    return ordered


def measure(event: Trained) -> Result:
    """Return the final metrics of a trained trial and whether it is ok, diverged or collapsed."""
    values, layers = metrics.final(
        {name: event.weights[name] for name in event.parameters},
        (event.train_logits, event.train_labels),
        (event.test_logits, event.test_labels),
    )
    work = macs.per_image(event.trial.recipe.model, event.test_logits.shape[1])
    speedup = math.nan if work.untold else sparsity.speedup(event.weights, work.weights, work.others)
    values |= metrics.pruned(event.pruned)
    values |= {"theoretical_speedup": speedup, "time/trial": event.seconds}
    unknown = "" if work.untold else 0
    layers = [row | {"macs": work.weights.get(row["layer"], unknown)} for row in layers]
    status, reason = "ok", ""
    if event.diverged:
        status, reason = "diverged", event.diverged
    elif not np.isfinite([values["fit/loss"], values["test/loss"], values.get("norm/l2", 0.0)]).all():
        # the last steps can do it without the epoch's mean loss having seen it
        status, reason = "diverged", "the final weights, or what they predict, are not finite"
    elif metrics.collapsed(event.test_logits):
        status, reason = "collapsed", "the logits are the same for every test image"
    return Result(event.trial, status, values, reason, layers)


HEADINGS = ("cell", "seeds", "validation", "test", "exact zeros", "not ok")


def table(results: list[Result]) -> list[tuple[str, ...]]:
    """Return a row of texts under HEADINGS per cell (regularizer and lam): means over seeds that have the metric."""
    grouped: dict[str, list[Result]] = {}
    for result in results:
        grouped.setdefault(result.trial.cell, []).append(result)
    rows = []
    for cell, members in grouped.items():
        shown = [_mean(members, name) for name in ("val/accuracy", "test/accuracy", "sparsity/exact")]
        numbers = ("-" if value is None else f"{value:.2%}" for value in shown)
        bad = [result.status for result in members if result.status != "ok"]
        notes = ", ".join(f"{bad.count(status)} {status}" for status in dict.fromkeys(bad))
        rows.append((cell, str(len(members)), *numbers, notes))
    return rows


def _mean(results: list[Result], metric: str) -> float | None:
    values = [result.metrics[metric] for result in results if metric in result.metrics]
    return float(np.mean(values)) if values else None


def summary(sweep: Sweep, results: list[Result], untold: Sequence[str] = ()) -> str:
    """Return the parent run's description in Markdown: the table, and how to find all trials.

    `untold` are reasons why the network's multiplications are not known.
    """
    rule = ("---", *["---:"] * (len(HEADINGS) - 1))
    lines = ["| " + " | ".join(row) + " |" for row in (HEADINGS, rule, *table(results))]
    found = f"All {len(sweep.trials)} trials, also those trained for an earlier sweep: `{schema.in_sweep(sweep.id)}`"
    notes = [f"No theoretical_speedup: the network's multiplications cannot be told ({reason})" for reason in untold]
    return "\n".join([f"**{sweep.recipes[0].dataset}**", "", *lines, "", *notes, found])


def _told(result: Result, node: str) -> str:
    text = f"test accuracy {result.metrics['test/accuracy']:.4f}, {result.metrics['time/trial']:.1f} s"
    text += f" on {node}" if node else ""
    return text if result.status == "ok" else f"{text}; {result.status}: {result.reason}"


@contextmanager
def _interruptible() -> Iterator[None]:
    """Have SIGTERM end the program as Ctrl-C does, so that what is open is closed.

    A second signal is passed over: `mlflow run` sends one after Ctrl-C, while things are being closed. A third ends it.
    """
    received = 0

    def interrupt(*_: object) -> None:
        nonlocal received
        received += 1
        if received != 2:
            raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
