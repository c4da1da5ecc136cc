"""`import`: the runs of exported files into this tracking store."""

import sys
from pathlib import Path

import click

from regbench.api import parsing
from regbench.click_fields import AUTO


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("files", nargs=-1, required=True)
@click.option(
    "--experiment",
    default=AUTO,
    show_default=True,
    help="MLflow experiment; auto: the one of the same name as the file's.",
)
def main(files: tuple[str, ...], experiment: str) -> None:
    """Bring runs from FILES, each written by `regbench export`, into this tracking store, each once.

    A sweep of the same settings goes on where they stop, and a report pools them.
    """
    chosen = parsing.experiment(experiment)
    # late: MLflow takes seconds to import
    from regbench.tracking.store import Store
    from regbench.transfer import deliver
    from regbench.transfer.archive import Archive

    opened = [Archive(Path(file)) for file in files]  # all are looked at before anything is written
    refused = 0
    for found in opened:
        store = Store(chosen or found.experiment)
        if store.notice:
            click.echo(store.notice)
        done = deliver.deliver(store, found, click.echo)
        known = f", {done.known} were there" if done.known else ""
        refused += done.refused
        click.echo(f"{found.path}: {done.brought} trials brought into the experiment {store.experiment!r}{known}")
        found.close()
    sys.exit(int(refused > 0))
