"""What every training command does once its options are read: check, plan, tell, train, sum up."""

from collections.abc import Callable, Sequence
from datetime import timedelta

from rich.console import Console
from rich.table import Table

from regbench import cli
from regbench.data import check_name
from regbench.data.images import Images
from regbench.sweep import Recipe, Sweep, format_seeds

LONG_SECONDS = 3600
MIN_SEEDS = 6  # with fewer pairs no sign-flip test can reach 5 %


def launch(
    make_sweep: Callable[[Images, int], Sweep],
    name: str,
    *,
    dataset: str,
    data_dir: str,
    train_size: str,
    device: str,
    experiment: str,
    dry_run: bool,
    rerun: bool,
):
    """Check everything, print the plan, and train it unless `dry_run`; return the results, none for a dry run.

    `make_sweep` gets the data and the number of training images to take. Raises UserError before anything is written.
    """
    # imported late and one by one: torch and MLflow take seconds, and what needs neither is refused at once
    console = Console(highlight=False, soft_wrap=True)
    wanted = cli.size("train_size", train_size, {cli.ALL: -1})
    check_name(dataset)
    place = cli.device(device)
    from regbench.tracking.store import Store

    store = Store(None if experiment == cli.AUTO else experiment)
    data = cli.load(dataset, data_dir)
    from regbench import models, runner
    from regbench.data.split import check_sizes

    sweep = make_sweep(data, len(data.train_labels) if wanted == -1 else wanted)
    for recipe in sweep.recipes:
        models.check(recipe.model, len(data.classes))
        check_sizes(data.train_labels, recipe.train_size, recipe.val_size)
        cli.number(
            "batch_size",
            recipe.batch_size,
            f"1 to {recipe.train_size - recipe.val_size}, the number of images trained on",
            1 <= recipe.batch_size <= recipe.train_size - recipe.val_size,
        )
    plan = runner.plan(sweep, store, rerun)
    chosen = " (auto: no CUDA GPU found)" if device == cli.AUTO and place.type == "cpu" else ""
    console.print(f"device: {runner.device_name(place)}{chosen}")
    _print_plan(console, plan, data, place, runner)
    if dry_run:
        store.name_launcher("dry_run")
        return []
    results = runner.run(plan, data, store, place, console, f"{name} {data.name}")
    _print_results(console, results, runner)
    console.print(
        f'MLflow: experiment "{store.experiment}" in {store.uri}; look with: mlflow ui --backend-store-uri {store.uri}'
    )
    return results


def _print_plan(console: Console, plan, data: Images, device, runner) -> None:
    console.print(
        f"data: {data.name}, {len(data.train_labels):,} training and {len(data.test_labels):,} test images "
        f"in {len(data.classes)} classes"
    )
    for recipe in plan.sweep.recipes:
        console.print(_told(recipe))
    todo, total = len(plan.todo), len(plan.sweep.trials)
    console.print(f"sweep {plan.sweep.id}: {total} trials, {total - todo} finished already, {todo} to train")
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
    if not todo:
        return
    seconds = runner.estimate(plan, data, device)
    if seconds is None:
        console.print("estimated time: unknown, since a first training step fails")
        return
    console.print(f"estimated time: {timedelta(seconds=round(seconds))} (from steps measured on this device just now)")
    if seconds > LONG_SECONDS:
        seeds = len({trial.seed for trial in plan.sweep.trials})
        fewer = f"fewer seeds (not below {MIN_SEEDS}, or no verdict is possible), " if seeds > MIN_SEEDS else ""
        console.print(f"to shorten it: train_size=10000, fewer epochs, {fewer}fewer lams, or a machine with a GPU")


def _told(recipe: Recipe) -> str:
    return (
        f"recipe {recipe.id}: {recipe.model}, {recipe.train_size - recipe.val_size:,} images trained on, "
        f"{recipe.val_size:,} held out for validation, {recipe.epochs} epochs, batch {recipe.batch_size}, "
        f"lr {recipe.lr:g}, momentum {recipe.momentum:g}"
    )


def _print_results(console: Console, results: Sequence, runner) -> None:
    table = Table(title="means over seeds", box=None, title_justify="left")
    table.add_column("cell", no_wrap=True)
    for heading in ("seeds", "validation", "test", "exact zeros", "not ok"):
        table.add_column(heading, justify="right")
    for cell, members in runner.cells(list(results)).items():
        shown = [runner.mean(members, name) for name in ("val/accuracy", "test/accuracy", "sparsity/exact")]
        numbers = ["-" if value is None else f"{value:.2%}" for value in shown]
        bad = [result.status for result in members if result.status != "ok"]
        notes = ", ".join(f"{bad.count(status)} {status}" for status in dict.fromkeys(bad))
        table.add_row(cell, str(len(members)), *numbers, notes)
    console.print(table)
