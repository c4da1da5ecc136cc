"""The report: tables, plots and a verdict from the runs of an experiment (`mlflow run . -e report`)."""

import click

from regbench import cli
from regbench.errors import UserError, without_password


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--experiment", default=cli.AUTO, show_default=True, help="MLflow experiment, as for the sweep.")
@click.option("--sweep", default=cli.ALL, show_default=True, help="The id of one sweep, or all.")
@click.option("--recipe", default=cli.ALL, show_default=True, help="The id of one recipe, where there are several.")
@click.option("--filter", "condition", default="", help="An MLflow filter, as in: params.regularizer != 'l1'.")
@click.option("--out", default="report", show_default=True, help="Folder for report.md, its figures and CSV files.")
def main(experiment: str, sweep: str, recipe: str, condition: str, out: str) -> None:
    """Write report.md from finished trials, and put it beside the newest sweep's run."""
    for name, value in (("sweep", sweep), ("recipe", recipe)):
        if value != cli.ALL and not (value.isalnum() and value.isascii()):
            raise UserError(
                f"{name}={value!r} is no id; accepted: the 12 letters and digits that a plan prints, or all"
            )
    folder = cli.folder("out", out)
    if folder.exists() and not folder.is_dir():
        raise UserError(f"out={str(folder)!r} is a file; give a folder")
    # late: MLflow, pandas and seaborn take seconds to import
    from regbench.report import build
    from regbench.tracking.store import Store

    store = Store(None if experiment == cli.AUTO else cli.letters(experiment), write=False)
    if experiment == cli.AUTO:
        store.choose_one_with_trials()
    if store.notice:
        click.echo(store.notice)
    store.name_launcher("report")
    chosen = ("" if value == cli.ALL else value for value in (sweep, recipe))
    sweep_id, recipe_id = chosen
    material = build.gather(store, sweep_id, condition, recipe_id)
    try:
        path = build.write(material, folder)
    except OSError as error:
        raise UserError(
            f"out={out!r} cannot be written ({folder}: {error.strerror}): give a folder that can"
        ) from error
    click.echo(path.read_text(encoding="utf-8").split("\n\n")[1])
    missing = build.told_missing(material)
    if missing:
        click.echo(missing)
    try:
        run_id = build.publish(store, material.runs, folder)
        beside = f"; also an artifact of run {run_id}" if run_id else ""
    except UserError as error:  # the report is there all the same
        beside = f"; not put beside the sweep's run: {without_password(str(error))}"
    click.echo(f"written: {path}{beside}")


if __name__ == "__main__":
    cli.run(main)
