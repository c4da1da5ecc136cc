"""The report's text: the template `report.md.j2`, filled in."""

import math
from collections.abc import Collection

from jinja2 import Environment, PackageLoader, StrictUndefined

from regbench.report import power, statistics, tables, text, verdict
from regbench.report.figures import FIGURES, describe_missing
from regbench.report.inputs import Material
from regbench.trial import BASELINE, format_lam, format_seeds

FILTERS = {
    "bounds": text.bounds, "code": text.code, "lam": format_lam, "number": text.number, "percent": text.percent,
    "plain": text.escape, "unwrap": text.unwrap,
}  # fmt: skip


def render(material: Material, drawn: Collection[str]) -> str:
    """Return the whole report in Markdown; `drawn` are the names of the figures that are there."""
    # without autoescape, which is for HTML only: the template escapes the names that come from a store
    environment = Environment(
        loader=PackageLoader("regbench.report", ""), undefined=StrictUndefined, autoescape=False,
        trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True,
    )  # fmt: skip
    environment.filters |= FILTERS
    environment.tests["finite"] = math.isfinite
    return environment.get_template("report.md.j2").render(
        runs=material.runs, analysis=material.analysis, layers=material.layers, drawn=drawn, FIGURES=FIGURES,
        missing_files=describe_missing(material), BASELINE=BASELINE, INTERVAL=text.INTERVAL, code=text.code,
        join_and=text.join_and, format_seeds=format_seeds, power=power, statistics=statistics, tables=tables,
        verdict=verdict,
    )  # fmt: skip
