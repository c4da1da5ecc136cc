"""What every training command does once its options are read: check, plan, tell, train, sum up."""

import shlex
from collections.abc import Callable, Sequence
from datetime import timedelta

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from regbench import cli, regularizers
from regbench.data import check_name
from regbench.data.images import Images
from regbench.errors import UserError, without_password
from regbench.report.power import PAIRED_SD_PP, expected_power, seeds_needed
from regbench.sweep import BASELINE, NOTEBOOK, Recipe, Sweep, format_seeds
from regbench.tracking import schema

LONG_SECONDS = 3600
# of trials that did not go well, told at the end
MOST_REASONS = 10
# of a table, in letters
WIDEST = 10_000


def launch(
    make_sweep: Callable[[Images, int], Sweep],
    name: str,
    *,
    regs: Sequence[str] = (),
    model: str = NOTEBOOK,
    dataset: str,
    data_dir: str,
    train_size: str,
    device: str,
    engine: str,
    jobs: str,
    backend: str,
    experiment: str,
    dry_run: bool,
    rerun: bool,
):
    """Check everything, print the plan, and train it unless `dry_run`; return the results, none for a dry run.

    `make_sweep` gets the data and the number of training images to take; `regs` are the regularizers that it uses.
    Raises UserError before anything is written.
    """
    # imported late and one by one: torch and MLflow take seconds, and what needs neither is refused at once
    console = Console(highlight=False, markup=False, soft_wrap=True)
    wanted = cli.size("train_size", train_size, {cli.ALL: -1})
    check_name(dataset)
    side_by_side = None if jobs == cli.AUTO else cli.positive("jobs", jobs, cli.MAX_JOBS)
    on_ray = cli.on_ray(backend)
    place = None if on_ray else cli.device(device)
    from regbench.tracking.store import Store

    store = Store(None if experiment == cli.AUTO else cli.letters(experiment))
    if store.notice:
        console.print(store.notice)
    for reg in regs:
        if regularizers.is_plugin(reg):
            from regbench import contract

            contract.require(reg, place or "cpu")
    if model != NOTEBOOK:
        from regbench import models

        models.find(model)
    data = cli.load(dataset, data_dir)
    from regbench.data.split import check

    sweep = make_sweep(data, len(data.train_labels) if wanted == -1 else wanted)
    for recipe in sweep.recipes:
        check(data.train_labels, recipe.train_size, recipe.val_size, sweep.trials[0].seed)
        count = recipe.train_size - recipe.val_size
        if recipe.batch_size > count:
            raise UserError(
                f"batch_size={recipe.batch_size} is out of range: only {count} images are trained on; "
                "give a smaller batch_size or a larger train_size"
            )
        if model != NOTEBOOK:
            import torch

            from regbench.engine import dense, network_check

            # of a cluster's devices none may be here
            network_check.check(recipe, data, torch.device("cpu" if on_ray else place))
            for reg in regs:
                if regularizers.find(reg).has("hidden"):
                    dense.check(recipe, data, reg)
    from regbench import planning
    from regbench.engine.choice import choose

    if on_ray:
        from regbench.engine import ray_cluster

        place = ray_cluster.connect(device)
    trainer = choose(engine, side_by_side, sweep, data, place, backend)
    waiting = store.outbox.left()
    if waiting and dry_run:
        console.print(
            f"{waiting} result(s) of an earlier start wait on disk; a start without dry_run brings them first"
        )
    elif waiting:
        from regbench.tracking.delivery import deliver_first

        store.check_files()
        with store.outbox.starting():
            deliver_first(store, console.print)
    plan = planning.plan(sweep, store, rerun)
    if plan.todo or (store.launcher and not dry_run):
        store.check_files()
    chosen = " (auto: no CUDA GPU found)" if device == cli.AUTO and place == "cpu" else ""
    console.print(f"device: {trainer.device_name}{chosen}; engine: {trainer.label}")
    _print_plan(console, plan, data, trainer, planning)
    if dry_run:
        store.name_launcher("dry_run")
        return []
    from regbench import runner
    from regbench.engine import checkpoint

    checkpoint.seconds_between()  # a bad setting is to be told before anything is written
    checkpoint.clean()
    results = runner.run(plan, data, store, trainer, console, f"{name} {data.name}")
    _print_results(console, results, runner)
    uri = without_password(store.uri)
    if store.uri.startswith("http"):
        look = f"at: {uri.rstrip('/')}/#/experiments/{store.experiment_id}/runs"
    else:
        look = f"with: mlflow ui --backend-store-uri {shlex.quote(uri)}"
    console.print(f'MLflow: experiment "{store.experiment}" in {uri}; look {look}')
    if store.files:
        console.print(
            f"MLflow takes the experiment's folder for a path with percent codes: its files are in {store.files}"
        )
    return results


def _print_plan(console: Console, plan, data: Images, engine, planning) -> None:
    for note in data.notes:
        console.print(f"data: {note}")
    console.print(
        f"data: {data.name}, {len(data.train_labels):,} training and {len(data.test_labels):,} test images "
        f"in {len(data.classes)} classes"
    )
    for recipe in plan.sweep.recipes:
        console.print(_told(recipe))
    todo, total = len(plan.todo), len(plan.sweep.trials)
    console.print(f"sweep {plan.sweep.id}: {total} trials, {total - todo} finished already, {todo} to train")
    if plan.altered:
        console.print(
            f"the data has changed: {plan.altered} of the trials to train are finished with other images under the name "
            f"{data.name}; these have fingerprint {data.fingerprint[:16]}"
        )
    cells: dict[str, tuple[list[int], list[int]]] = {}
    pending = set(plan.todo)
    for trial in plan.sweep.trials:
        cells.setdefault(trial.cell, ([], []))[trial not in pending].append(trial.seed)
    for cell, (train, finished) in cells.items():
        parts = [
            f"{word} seeds {format_seeds(part)}"
            for word, part in (("train", train), ("skip finished", finished))
            if part
        ]
        console.print(f"  {cell:<34} {'; '.join(parts)}")
    methods = {(trial.regularizer, trial.scope) for trial in plan.sweep.trials if trial.regularizer != BASELINE}
    if methods and len(methods) < len(plan.sweep.trials):
        console.print(_power(len(methods), len({trial.seed for trial in plan.sweep.trials})))
    if not todo:
        return
    seconds = planning.estimate(plan, data, engine)
    if seconds is None:
        console.print("estimated time: unknown, since a first training step fails")
        return
    console.print(f"estimated time: {timedelta(seconds=round(seconds))} (from steps measured on this device)")
    if seconds > LONG_SECONDS:
        seeds = len({trial.seed for trial in plan.sweep.trials})
        needed = seeds_needed(max(len(methods), 1))
        fewer = f"fewer seeds (not below {needed}, or no verdict is possible), " if seeds > needed else ""
        console.print(f"to shorten it: a smaller train_size, fewer epochs, {fewer}fewer lams, or a machine with a GPU")


def _power(regularizers: int, seeds: int) -> str:
    """Say what the report will be able to show with so many seeds, from the packaged table of simulated sweeps."""
    needed = seeds_needed(regularizers)
    if seeds < needed:
        return (
            f"evidence: {seeds} seeds are too few for a verdict on {regularizers} regularizers; take {needed} or more"
        )
    chances = (f"{gain:g} points {expected_power(seeds, gain, regularizers):.0%}" for gain in (0.5, 1.0, 2.0))
    return (
        f"evidence: the chance that {seeds} seeds show a true gain, where paired differences spread by {PAIRED_SD_PP:g} "
        f"points as simulated: {', '.join(chances)}"
    )


def _told(recipe: Recipe) -> str:
    return (
        f"recipe {recipe.id}: {recipe.model}, {recipe.train_size - recipe.val_size:,} images trained on, "
        f"{recipe.val_size:,} held out for validation, {recipe.epochs} epochs, batch {recipe.batch_size}, "
        f"lr {recipe.lr:g}, momentum {recipe.momentum:g}, {recipe.precision}"
    )


def _print_results(console: Console, results: Sequence, runner) -> None:
    table = Table(title="means over seeds", box=None, title_justify="left")
    table.add_column(runner.HEADINGS[0], no_wrap=True)
    for heading in runner.HEADINGS[1:]:
        table.add_column(heading, justify="right")
    for row in runner.table(list(results)):
        table.add_row(*row)
    # as wide as it is: where it is wider than the screen, rich would leave out its numbers
    table.width = Measurement.get(console, console.options.update(max_width=WIDEST), table).maximum
    console.print(table)
    wrong = [result for result in results if result.reason]
    for result in wrong[:MOST_REASONS]:
        console.print(f"{result.status}: {result.trial.name}: {result.reason}")
    if len(wrong) > MOST_REASONS:
        console.print(f"and {len(wrong) - MOST_REASONS} more; in MLflow: tags.`{schema.STATUS}` != 'ok'")
