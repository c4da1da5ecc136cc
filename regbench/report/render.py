"""The report's text: the template `report.md.j2`, filled in."""

from collections.abc import Collection

from jinja2 import Environment, PackageLoader, StrictUndefined

from regbench.report import tables, text
from regbench.report.figures import FIGURES, describe_missing
from regbench.report.headline import headline
from regbench.report.inputs import Material
from regbench.statistics.verdict import MARGIN
from regbench.trial import format_lam, format_seeds

FILTERS = {"code": text.code, "lam": format_lam, "plain": text.escape, "unwrap": text.unwrap}


def render(material: Material, drawn: Collection[str]) -> str:
    """Return the whole report in Markdown; `drawn` are the names of the figures that are there."""
    # without autoescape, which is for HTML only: the template escapes the names that come from a store
    environment = Environment(
        loader=PackageLoader("regbench.report", ""), undefined=StrictUndefined, autoescape=False,
        trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True,
    )  # fmt: skip
    environment.filters |= FILTERS
    return environment.get_template("report.md.j2").render(
        runs=material.runs, analysis=material.analysis, layers=material.layers, drawn=drawn, FIGURES=FIGURES,
        headline=headline(material.runs, material.analysis), missing_files=describe_missing(material),
        code=text.code, join_and=text.join_and, counted=text.counted, format_seeds=format_seeds, margin=f"{100 * MARGIN:g}",
        tables=tables,
    )  # fmt: skip
