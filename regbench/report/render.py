"""The text of reports: the templates `report.md.j2` and, of several recipes, `overview.md.j2`, filled in."""

from collections.abc import Collection, Mapping, Sequence

from jinja2 import Environment, PackageLoader, StrictUndefined

from regbench.report import fonts, overview, tables, text
from regbench.report.figures import FIGURES, describe_missing
from regbench.report.headline import headline
from regbench.report.inputs import Material
from regbench.report.interactions import Interaction
from regbench.report.language import current, gettext, ngettext
from regbench.report.recipes import Side, differing
from regbench.statistics.verdict import MARGIN
from regbench.trial import format_lam, format_seeds

FILTERS = {"code": text.code, "lam": format_lam, "plain": text.escape, "unwrap": text.unwrap}


def render(material: Material, drawn: Collection[str]) -> str:
    """Return the whole report on one recipe in Markdown; `drawn` are the names of the figures that are there."""
    return _fill(
        "report.md.j2", runs=material.runs, analysis=material.analysis, layers=material.layers, drawn=drawn,
        FIGURES=FIGURES, headline=headline(material.runs, material.analysis), missing_files=describe_missing(material),
        missing_font=fonts.describe_missing(current()) if drawn else "",
    )  # fmt: skip


def render_overview(
    sides: Sequence[Side], family: Mapping[tuple[str, int, int], Interaction], drawn: Collection[str]
) -> str:
    """Return the report on several recipes side by side; `drawn` are the folders in which there is a forest plot."""
    recipes = [side.material.runs.recipe for side in sides]
    return _fill(
        "overview.md.j2", sides=sides, interactions=family, overview=overview, parameters=differing(recipes),
        datasets=list(dict.fromkeys(recipe.get("dataset", gettext("unknown data")) for recipe in recipes)),
        headlines=[headline(side.material.runs, side.material.analysis) for side in sides],
        forests=[side for side in sides if side.folder in drawn],
    )  # fmt: skip


def _fill(template: str, **content: object) -> str:
    # without autoescape, which is for HTML only: the template escapes the names that come from a store
    environment = Environment(
        loader=PackageLoader("regbench.report", ""), undefined=StrictUndefined, autoescape=False,
        trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True, extensions=["jinja2.ext.i18n"],
    )  # fmt: skip
    environment.policies["ext.i18n.trimmed"] = True
    environment.install_gettext_callables(gettext, ngettext)
    environment.filters |= FILTERS
    return environment.get_template(template).render(
        content, code=text.code, join_and=text.join_and, counted=text.counted, format_seeds=format_seeds,
        margin=f"{100 * MARGIN:g}", tables=tables,
    )  # fmt: skip
