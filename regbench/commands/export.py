"""`export`: the runs of an experiment as a file, for another tracking store."""

from dataclasses import dataclass
from pathlib import Path

import click

from regbench.api import parsing
from regbench.click_fields import ALL, AUTO, command, option

OUT = "regbench-export.zip"


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    experiment: str | None = option(AUTO, parsing.experiment, "MLflow experiment, as for the report.")
    sweep: str = option(ALL, parsing.identifier("sweep"), "The id of one sweep, or all.")
    out: Path = option(OUT, parsing.file("out"), "The file.")


@command(ExportOptions)
def main(options: ExportOptions) -> None:
    """Write all that a report needs of an experiment's ended runs to a file: no networks, no pictures."""
    # late: MLflow takes seconds to import
    from regbench.tracking.store import Store
    from regbench.transfer import collect

    store = Store(options.experiment, write=False)
    if options.experiment is None:
        store.choose_one_with_trials()
    found = collect.export(store, options.out, options.sweep)
    click.echo(
        f"written: {options.out}, {found.trials} trials of the experiment {store.experiment!r} "
        f"({options.out.stat().st_size / 1e6:.1f} MB)"
    )
    if found.running:
        click.echo(f"left out, since they are being trained: {found.running} trials")
    if found.bare:
        click.echo(
            f"without files, which are gone: {found.bare} trials; of them a report has neither layers nor weights"
        )
    click.echo(f"into another store: regbench import {options.out}")
