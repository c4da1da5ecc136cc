"""What `sweep` and `notebook` share: their common options, and the way from these to results.

options -> prepare (store, data) -> sweep -> train (plan, run)
"""

from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from regbench import console as printing
from regbench import data, jupyter, preflight
from regbench import plan as planning
from regbench.api import parsing
from regbench.api.result import SweepResult
from regbench.click_fields import ALL, AUTO, choice, images, option, switch, whole
from regbench.data.images import Images
from regbench.engines.base import BACKENDS, LOCAL, NAMES, RAY
from regbench.engines.select import select
from regbench.tracking import schema
from regbench.tracking.store import Store
from regbench.trial import NOTEBOOK, Sweep

MAX_JOBS = 1_000


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """The options of every command that trains."""

    dataset: str = option("cifar10", choice(*data.NAMES), f"One of {', '.join(data.NAMES)}.")
    data_dir: Path = option(".data", parsing.folder("data_dir"), "Where the data is or is downloaded to.")
    train_size: int | None = option(
        ALL, images(all=None), "Training images to take, validation included: a stratified subset, or all."
    )
    device: str = option(AUTO, parsing.device, "auto, cpu, cuda or cuda:N.")
    engine: str = option(
        AUTO,
        choice(*NAMES),
        "sequential: one trial after the other; stacked: many as one network; auto: the faster one.",
    )
    jobs: int | None = option(
        AUTO,
        whole(1, MAX_JOBS, auto=None),
        "Trials side by side on a CPU; auto: one per core, in a sweep that is large enough.",
    )
    backend: str = option(
        LOCAL, choice(*BACKENDS), "local: this machine; ray: a Ray cluster, that of RAY_ADDRESS if it is set."
    )
    experiment: str | None = option(
        AUTO,
        parsing.experiment,
        "MLflow experiment; auto: of `mlflow run`, else MLFLOW_EXPERIMENT_NAME, else regbench.",
    )
    weights: str = option(
        schema.ALL,
        choice(*schema.KEEP),
        "Of which trials model.safetensors is kept: all; chosen: of those on fresh seeds, at the chosen lams (of a grid "
        "alone: all); none. It is not part of a trial: what is finished without is not trained again for it.",
    )
    verbose: bool = option(False, switch(), "Print a line for each epoch, not for each trial alone.")
    dry_run: bool = option(False, switch(), "Print the exact plan and a time estimate; train nothing.")
    rerun: bool = option(False, switch(), "Train again what is finished; the new runs replace the old ones.")


@dataclass(frozen=True)
class Prepared:
    """What a sweep is made with; `device` is cpu or cuda:N of this machine."""

    console: Console
    store: Store
    data: Images
    device: str

    def size(self, train_size: int | None) -> int:
        """Return the number of training images to take; None: all."""
        return len(self.data.train_labels) if train_size is None else train_size


def prepare(options: TrainingOptions, regs: tuple[str, ...] = (), model: str = NOTEBOOK) -> Prepared:
    """Open the store and load the data; raises UserError for what is wrong with them, or with a class of the user's.

    The cheapest checks come first.
    """
    if jupyter.is_running():
        jupyter.bar()  # before MLflow imports it, with its warning
    console = Console(highlight=False, markup=False, soft_wrap=True, force_jupyter=False)
    device = preflight.find_device(options.device, options.backend)
    store = Store(options.experiment)
    if store.notice:
        console.print(store.notice)
    preflight.check_classes(regs, model, device)
    return Prepared(console, store, data.load(options.dataset, options.data_dir), device)


def train(prepared: Prepared, options: TrainingOptions, sweep: Sweep, name: str) -> SweepResult:
    """Plan a sweep, print the plan and train it unless it is a dry run, of which there are no results.

    Raises UserError before anything is written.
    """
    console, store, images = prepared.console, prepared.store, prepared.data
    preflight.check_sweep(sweep, images, prepared.device)
    device = options.device if options.backend == RAY else prepared.device
    engine = select(options.engine, options.jobs, sweep, images, device, options.backend)
    preflight.deliver_pending(store, options.dry_run, console.print)
    plan = planning.make(sweep, store, options.rerun)
    if plan.todo or (store.launcher and not options.dry_run):
        store.check_files()
    printing.print_engine(console, engine, automatic=options.device == AUTO)
    printing.print_plan(console, plan, images)
    printing.print_scopes(console, sweep, images)
    if plan.todo:
        printing.print_estimate(console, plan, images, engine)
    if options.dry_run:
        store.name_launcher("dry_run")
        return SweepResult(store, sweep)
    # late: torch and MLflow take seconds to import, and neither a plan nor a mistake needs them
    from regbench.run import run_plan
    from regbench.tracking import view
    from regbench.training import checkpoint

    checkpoint.seconds_between()  # a bad setting is refused before anything is written
    checkpoint.clean()
    results = run_plan(plan, images, store, engine, console, f"{name} {images.name}", options.verbose, options.weights)
    printing.print_store(console, store, view.save(store))
    return SweepResult(store, sweep, tuple(results))
