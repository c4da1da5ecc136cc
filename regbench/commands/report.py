"""`report`: tables, plots and a verdict from the runs of an experiment (`mlflow run . -e report`)."""

from dataclasses import dataclass
from pathlib import Path

import click

from regbench.click_fields import ALL, AUTO, choice, command, option
from regbench.commands import parsing
from regbench.errors import UserError, without_password
from regbench.report.language import ENGLISH, LANGUAGES, use


@dataclass(frozen=True, kw_only=True)
class ReportOptions:
    experiment: str | None = option(AUTO, parsing.experiment, "MLflow experiment, as for the sweep.")
    sweep: str = option(ALL, parsing.identifier("sweep"), "The id of one sweep, or all.")
    recipe: str = option(ALL, parsing.identifier("recipe"), "The id of one recipe, or all, side by side.")
    condition: str = option("", click.STRING, "An MLflow filter, as in: params.regularizer != 'l1'.", name="filter")
    out: Path = option("report", parsing.folder("out"), "Folder for report.md, its figures and CSV files.")
    lang: str = option(ENGLISH, choice(*LANGUAGES), "Language of report.md and of its figures: English or Japanese.")


@command(ReportOptions)
def main(options: ReportOptions) -> None:
    """Write report.md from finished trials, and put it beside the newest sweep's run."""
    folder = options.out
    if folder.exists() and not folder.is_dir():
        raise UserError(f"out={str(folder)!r} is a file; give a folder")
    # late: MLflow, pandas and seaborn take seconds to import
    from regbench.report import build, figures, fonts
    from regbench.report.inputs import gather
    from regbench.tracking.store import Store

    store = Store(options.experiment, write=False)
    if options.experiment is None:
        store.choose_one_with_trials()
    if store.notice:
        click.echo(store.notice)
    store.name_launcher("report")
    with use(options.lang):
        materials = gather(store, options.sweep, options.condition, options.recipe)
        try:
            path = build.write(materials, folder)
        except OSError as error:
            raise UserError(
                f"out={str(folder)!r} cannot be written ({error.strerror}): give a folder that can"
            ) from error
        missing = [*map(figures.describe_missing, materials), fonts.describe_missing(options.lang)]
    # of several recipes: in what they differ, and each one's first paragraph
    count = 1 if len(materials) == 1 else 1 + len(materials)
    click.echo("\n\n".join(path.read_text(encoding="utf-8").split("\n\n")[1 : 1 + count]))
    for sentence in filter(None, missing):
        click.echo(sentence)
    try:
        run_id = build.publish(store, materials, folder)
        beside = f"; also an artifact of run {run_id}" if run_id else ""
    except UserError as error:  # the report is there all the same
        beside = f"; not put beside the sweep's run: {without_password(str(error))}"
    click.echo(f"written: {path}{beside}")
