"""`sweep`: regularizers x lams x seeds, trained and tracked, and the report on them (`mlflow run . -P reg=l2`)."""

import sys
from dataclasses import dataclass
from pathlib import Path

import click

from regbench.api import parsing, sweeps
from regbench.api.result import SweepResult
from regbench.api.sweeps import SweepOptions
from regbench.click_fields import command, option
from regbench.commands import report as reports
from regbench.errors import TrackingError, UserError, without_password
from regbench.trial import Recipe

NO_REPORT = "none"


def _folder(text: str) -> Path | None:
    return None if text == NO_REPORT else parsing.report_folder("report", f", or {NO_REPORT} for no report")(text)


@dataclass(frozen=True, kw_only=True)
class CommandOptions(SweepOptions):
    """The options of the command beside those of the function: what it leaves at its end."""

    report: Path | None = option(
        reports.OUT, _folder, f"Folder for the report on the sweep, when it has ended; {NO_REPORT}: no report."
    )


@command(CommandOptions, Recipe)
def main(options: CommandOptions, **chosen: object) -> None:
    """Train regularizers x lams x seeds and track every trial in MLflow; write the report on them."""
    result = sweeps.run(options, **chosen)
    if options.report and result.results:
        _report(result, options.report)
    sys.exit(int(result.failed > 0))


def _report(result: SweepResult, folder: Path) -> None:
    """Write the report and print its first paragraph: what was found, or the command that finds it."""
    try:
        report = result.report(folder)
    except (UserError, TrackingError) as error:  # the trials are there all the same
        click.echo(f"no report: {without_password(str(error))}")
    else:
        reports.tell(report)
