"""python -m benchmarks.comparison: every contender answers the question, one after the other."""

from pathlib import Path
from tempfile import TemporaryDirectory

import click

from benchmarks import pages
from benchmarks.comparison import page
from benchmarks.comparison.contenders import CONTENDERS, Question
from benchmarks.comparison.measuring import measure
from regbench.errors import UserError

NAMES = tuple(one.folder or one.name for one in CONTENDERS)


@click.command(context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.option("--lam", "lams", default="1e-6,1e-5,1e-4,3e-4", help="Strengths of both regularizers.")
@click.option("--seeds", type=click.IntRange(1), default=5, help="Of a grid; two stages have twice as many fresh ones.")
@click.option("--epochs", type=click.IntRange(1), default=6)
@click.option("--only", default=",".join(NAMES), help="Contenders, a comma list.")
@click.option("--folder", type=click.Path(path_type=Path), default=None, help="A new one, to keep their files.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("benchmarks/results/comparison"))
def main(lams: str, seeds: int, epochs: int, only: str, folder: Path | None, out: Path) -> int:
    """Have each tool answer the same question, and tell what it took and what was answered."""
    chosen = only.split(",")
    if unknown := [name for name in chosen if name not in NAMES]:
        raise UserError(f"only={only!r}: {unknown[0]!r} is unknown; accepted: {', '.join(NAMES)}")
    question = Question(_numbers(lams), seeds, epochs)
    if folder and folder.exists():
        raise UserError(f"folder={str(folder)!r} is there already; give the name of a new one")
    found = {}
    with TemporaryDirectory(prefix="comparison-") as temporary:
        for name, contender in zip(NAMES, CONTENDERS, strict=True):
            if name not in chosen:
                continue
            if contender.missing:
                click.echo(
                    f"{contender.name}: not installed ({', '.join(contender.missing)}); pip install -e '.[comparison]'"
                )
                continue
            measured = found[contender.name] = measure(contender, question, (folder or Path(temporary)) / name)
            click.echo(f"{contender.name}: {len(measured.trainings)} trainings in {measured.seconds:.0f} s")
    command = f"python -m benchmarks.comparison --lam={lams} --seeds={seeds} --epochs={epochs}"
    text = page.readme(question, found, command)
    pages.write(out, {"README.md": text, "measurements.json": page.numbers(question, found)})
    click.echo(text)
    return 0


def _numbers(text: str) -> tuple[float, ...]:
    try:
        found = tuple(map(float, text.split(",")))
    except ValueError:
        found = ()
    if not found or len(set(found)) < len(found) or not all(0 < lam < float("inf") for lam in found):
        raise UserError(f"lam={text!r}: give different numbers above 0 separated by commas, as in 1e-4,1e-3")
    return found
