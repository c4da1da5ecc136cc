"""The report of a sweep: its files, and what a notebook shows of them."""

from dataclasses import dataclass
from pathlib import Path

from regbench.errors import UserError, without_password
from regbench.report import build, figures, fonts, inline
from regbench.report.inputs import gather
from regbench.report.language import ENGLISH, LANGUAGES, use
from regbench.tracking.store import Store


@dataclass(frozen=True, repr=False)
class Report:
    """A report that is written: `path` is its report.md, beside which its figures and tables are.

    summary: its first paragraphs. notes: a line for each kind of file that it lacks. published: the id of the run that has
    it among its artifacts, "" if none has; unpublished: why not, if it could not be put there.
    """

    path: Path
    summary: str
    notes: tuple[str, ...] = ()
    published: str = ""
    unpublished: str = ""

    def __repr__(self) -> str:
        return f"<report {self.path}>"

    def _repr_html_(self) -> str:
        return inline.html(self.path)


def write(
    store: Store, folder: Path, sweep: str = "", condition: str = "", recipe: str = "", lang: str = ENGLISH
) -> Report:
    """Write the report on the chosen trials (see report.load) into `folder`, and put it beside the newest sweep's run.

    Raises UserError if there are no trials, or the folder cannot be written.
    """
    if lang not in LANGUAGES:
        raise UserError(f"lang={lang!r} is unknown; accepted: {', '.join(LANGUAGES)}")
    fonts.look_again()
    with use(lang):
        materials = gather(store, sweep, condition, recipe)
        try:
            path = build.write(materials, folder)
        except OSError as error:
            raise UserError(
                f"out={str(folder)!r} cannot be written ({error.strerror}): give a folder that can"
            ) from error
        notes = tuple(filter(None, [*map(figures.describe_missing, materials), fonts.describe_missing(lang)]))
    # of several recipes: in what they differ, and each one's first paragraph
    count = 1 if len(materials) == 1 else 1 + len(materials)
    summary = "\n\n".join(path.read_text(encoding="utf-8").split("\n\n")[1 : 1 + count])
    try:
        return Report(path, summary, notes, published=build.publish(store, materials, folder) or "")
    except UserError as error:  # the report is there all the same
        return Report(path, summary, notes, unpublished=without_password(str(error)))
