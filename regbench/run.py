"""From a plan to results: engine, measures, tracking."""

import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from functools import partial

from rich.console import Console

from regbench import jupyter, models, stages
from regbench import plan as planning
from regbench.console import Progress, print_choice, print_look, print_models, print_results
from regbench.data.images import Images
from regbench.engines.base import Engine
from regbench.errors import UserError
from regbench.measures.final import Measured, measure
from regbench.measures.multiplications import per_image
from regbench.plan import Plan
from regbench.results import Result, describe
from regbench.tracking import abandoned, finished, schema
from regbench.tracking.delivery import flush
from regbench.tracking.store import Store
from regbench.tracking.sweep_run import SweepRun
from regbench.tracking.writer import Writer
from regbench.training.events import Epoch, Event, Failed, Started, Trained
from regbench.trial import Trial

Shown = Progress | jupyter.Progress


def run_plan(
    plan: Plan,
    data: Images,
    store: Store,
    engine: Engine,
    console: Console,
    name: str,
    verbose: bool = False,
    weights: str = schema.ALL,
) -> list[Result]:
    """Train what is to be trained, write it to the store, print and return a result for every trial of the sweep.

    At the end the best networks become logged models: see models. `weights`, one of schema.KEEP: of which trials they are
    kept. Raises what `_train_all` raises.
    """
    with _interruptible():
        lines = partial(Progress, console=console, verbose=verbose)
        show = jupyter.Progress if jupyter.is_running() and not verbose else lines
        plan, results = _train_all(plan, data, store, engine, console, name, weights, show)
        print_results(console, plan, results)
        _log_models(plan, results, data, store, console)
    return list(results.values())


def _train_all(
    plan: Plan,
    data: Images,
    store: Store,
    engine: Engine,
    console: Console,
    name: str,
    weights: str,
    show: Callable[..., Shown],
) -> tuple[Plan, dict[str, Result]]:
    """Train what is to be trained and write it to the store; return the plan at the end, and results by trial key.

    After the grid its choice of lams is recorded, and fresh seeds are trained until they tell: see stages. A trial that
    raises is a failed result, the others go on. SIGINT and SIGTERM end it as KeyboardInterrupt, after what is finished
    has been written. A store that is away stops nothing: see tracking.writer. Raises TrackingError if it is away for too
    long after training, or fails for a reason that does not pass; what is on disk waits.
    """
    with ExitStack() as opened:
        # one start at a time: what another has begun or finished meanwhile is seen here
        with store.outbox.starting():
            plan = _newest(plan, store, console)
            in_sweep = all(plan.sweep.id in old.sweeps for old in plan.kept.values())
            if not plan.todo and not store.launcher and in_sweep:
                # another run of the same name would hold nothing
                return plan, {result.trial.key: result for result in _kept(plan)}
            context = schema.SweepContext(plan.sweep, data, engine.device_name, engine.name, weights)
            parent = opened.enter_context(SweepRun(store, context, name, console.print))
        results: dict[str, Result] = {}
        recorded: Mapping[str, float] = {}
        while plan.trials:
            results |= {result.trial.key: result for result in _kept(plan)}
            parent.adopt({result.trial: plan.kept[result.trial.key] for result in _kept(plan)})
            if plan.lams != recorded:
                recorded = plan.lams
                _record_choice(parent.writer, plan, results, console)
            results |= {result.trial.key: result for result in _train(plan, data, engine, parent.writer, show)}
            if plan.lams:
                print_look(console, plan, results)
            plan = planning.proceed(plan, results, store)
        complete = all(result.status != "failed" for result in results.values())
        parent.end(_describe(plan, results, data, store), complete)
    if plan.sweep.confirm and not plan.lams:
        print_choice(console, plan)
    return plan, results


def _describe(
    plan: Plan, results: Mapping[str, Result], data: Images, store: Store, models: Mapping[str, str] | None = None
) -> str:
    unknown = per_image(plan.sweep.recipes[0].model, len(data.classes)).unknown
    return describe(plan.sweep, results, plan.lams, store.experiment, unknown, models or {})


def _log_models(plan: Plan, results: Mapping[str, Result], data: Images, store: Store, console: Console) -> None:
    """Have the chosen networks be logged models, print how they are loaded, and add that to the sweep's description."""
    logged = models.log(store, plan.sweep, plan.lams, results, data, console.print)
    if not logged:
        return
    print_models(console, logged)
    note = _describe(plan, results, data, store, logged)
    try:
        for run in finished.starts(store, plan.sweep)[-1:]:
            # one that names them already stays: a report may have added its figure
            store.change_note(run.info.run_id, lambda old: old if all(one in old for one in logged.values()) else note)
    except UserError as error:
        console.print(f"the sweep's description does not name the models: {error}")


def _kept(plan: Plan) -> Iterator[Result]:
    """Give the results of a plan's trials that are finished already and stay as they are."""
    for trial in plan.trials:
        if old := plan.kept.get(trial.key):
            yield Result(trial, old.status, old.metrics)


def _record_choice(writer: Writer, plan: Plan, results: Mapping[str, Result], console: Console) -> None:
    """Record the lams, and of those that no earlier start has chosen, the means that led to them."""
    found = stages.choices(plan.sweep, results)
    choices = {method: found[method] for method in plan.lams if method not in plan.chosen}
    writer.choose(plan.lams, {method: choice.means for method, choice in choices.items()}, plan.chosen_by)
    print_choice(console, plan, choices)


def _train(plan: Plan, data: Images, engine: Engine, writer: Writer, show: Callable[..., Shown]) -> Iterator[Result]:
    """Train what is to be trained, and give its results."""
    if plan.todo:
        with (
            show(plan.sweep, plan.todo) as progress,
            closing(engine.train(plan.todo, data, resume=not plan.rerun)) as events,
        ):
            yield from _follow(events, writer, progress, plan)


def _newest(plan: Plan, store: Store, console: Console) -> Plan:
    """Return the plan as it is now that no other process starts, and mark what dead processes have left."""
    # of a start that was bringing it when the plan was made, and was ended
    flush(store, console.print)
    store.refresh()
    planned = {trial.key for trial in plan.todo}
    plan = planning.refresh(plan, store)
    if meanwhile := planned & plan.kept.keys():
        console.print(f"{len(meanwhile)} trial(s) finished by another process meanwhile")
    killed = abandoned.close(store, (trial.key for trial in plan.todo), plan.sweep.id)
    interrupted = [run for run in killed if schema.KEY in run.data.tags]
    if interrupted:
        console.print(f"{len(interrupted)} trial(s) cut off earlier marked KILLED")
    return plan


def _follow(events: Iterator[Event], writer: Writer, progress: Shown, plan: Plan) -> Iterator[Result]:
    """Write and show what the engine reports; give a result for each trial that ends."""
    replaced = plan.replaced
    last_epoch: dict[Trial, Mapping[str, float]] = {}
    for event in events:
        trial = event.trial
        match event:
            case Started():
                writer.start(trial)
                progress.start(trial)
            case Epoch(epoch=epoch, metrics=values):
                last_epoch[trial] = values
                writer.epoch(trial, epoch, values)
                progress.epoch(trial, epoch, values)
            case Trained():
                found = measure(event)
                old = replaced.get(trial.key)
                writer.finish(
                    trial,
                    found.metrics,
                    event.weights,
                    found.layers,
                    schema.outcome_tags(found.status, found.reason, event.node, event.together),
                    replaces=old.run_id if old else "",
                )
                progress.end(trial, _summarize(found, event.node))
                yield Result(trial, found.status, last_epoch.pop(trial, {}) | found.metrics, found.reason)
            case Failed(reason=reason):
                writer.fail(trial, reason)
                progress.end(trial, f"failed: {reason}")
                yield Result(trial, "failed", {}, reason)


def _summarize(found: Measured, node: str) -> str:
    text = f"test accuracy {found.metrics['test/accuracy']:.4f}, {found.metrics['time/trial']:.1f} s"
    text += f" on {node}" if node else ""
    return text if found.status == "ok" else f"{text}; {found.status}: {found.reason}"


@contextmanager
def _interruptible() -> Iterator[None]:
    """Have SIGTERM end the program as Ctrl-C does, so that what is open is closed.

    A second signal is ignored: `mlflow run` sends one after Ctrl-C, while things are being closed. A third ends it. In a
    thread other than the main one, which gets no signals, nothing is changed.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
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
