"""`report`: tables, plots and a verdict from the runs of an experiment (`mlflow run . -e report`)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from regbench.api import parsing
from regbench.click_fields import ALL, AUTO, choice, command, option
from regbench.report.language import ENGLISH, LANGUAGES
from regbench.report.output import PAGE

if TYPE_CHECKING:  # it takes seconds to import
    from regbench.api.reporting import Report

OUT = "report"


@dataclass(frozen=True, kw_only=True)
class ReportOptions:
    experiment: str | None = option(AUTO, parsing.experiment, "MLflow experiment, as for the sweep.")
    sweep: str = option(ALL, parsing.identifier("sweep"), "The id of one sweep, or all.")
    recipe: str = option(ALL, parsing.identifier("recipe"), "The id of one recipe, or all, side by side.")
    condition: str = option("", click.STRING, "An MLflow filter, as in: params.regularizer != 'l1'.", name="filter")
    out: Path = option(OUT, parsing.report_folder("out"), "Folder for report.md, its figures and CSV files.")
    lang: str = option(ENGLISH, choice(*LANGUAGES), "Language of report.md and of its figures: English or Japanese.")


@command(ReportOptions)
def main(options: ReportOptions) -> None:
    """Write report.md from finished trials, and put it beside the newest sweep's run."""
    # late: MLflow, pandas and seaborn take seconds to import
    from regbench.api import reporting
    from regbench.tracking.store import Store

    store = Store(options.experiment, write=False)
    if options.experiment is None:
        store.choose_one_with_trials()
    if store.notice:
        click.echo(store.notice)
    store.name_launcher("report")
    report = reporting.write(store, options.out, options.sweep, options.condition, options.recipe, options.lang)
    tell(report)


def tell(report: Report) -> None:
    """Print a report's first paragraphs, what it lacks, and where it is."""
    click.echo(f"\n{report.summary}\n")
    for note in report.notes:
        click.echo(note)
    beside = f"; also an artifact of run {report.published}" if report.published else ""
    beside = f"; not put beside the sweep's run: {report.unpublished}" if report.unpublished else beside
    click.echo(f"written: {report.path}{beside}")
    click.echo(f"open in a browser: {report.path.with_name(PAGE)}")
