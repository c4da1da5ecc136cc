"""report.html: the report's Markdown as one page that needs nothing else, with figures and tables to work with."""

import base64
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path
from urllib.parse import unquote

import vl_convert
from jinja2 import Environment, PackageLoader, StrictUndefined
from markdown_it import MarkdownIt
from markdown_it.token import Token
from markupsafe import Markup

from regbench.report import output
from regbench.report.language import gettext
from regbench.report.palette import palettes
from regbench.report.vega import Chart, columnar

HERE = Path(__file__).parent
# Vega compiles what a specification computes
CSP = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-eval' {}"
LIBRARY = "window.vegaEmbed = vegaEmbed;"


def page(markdown: str, charts: Mapping[str, Sequence[Chart]], picture: Callable[[str], bytes]) -> str:
    """Return the page of a report in Markdown.

    `charts` take the place of the pictures at these addresses in it; of the others `picture` gives the content (PNG). Text
    of the Markdown that would be HTML is shown as it is, and no script runs but the page's own (see `CSP`).
    """
    converter = MarkdownIt("commonmark", {"html": False}).enable("table")
    shown: list[Chart] = []
    tokens = converter.parse(markdown)
    headings = _headings(tokens)
    _tables(tokens)
    tokens = list(_figures(tokens, converter, charts, picture, shown))
    scripts = [_inert(text) for text in (*([library()] if shown else []), _own("page.js"))]
    methods = max((len(domain) for chart in shown for domain in _domains(chart.spec)), default=1)
    content = {
        "charts": [_content(chart) for chart in shown],
        "palettes": palettes(methods - 1),
        "words": _words(),
    }  # fmt: skip
    environment = Environment(
        loader=PackageLoader("regbench.report", ""), undefined=StrictUndefined, autoescape=True, trim_blocks=True,
        lstrip_blocks=True, keep_trailing_newline=True,
    )  # fmt: skip
    return environment.get_template("page.html.j2").render(
        _=gettext, title=headings[0][2] if headings else "", headings=headings[1:], style=Markup(_own("page.css")),
        body=Markup(converter.renderer.render(tokens, converter.options, {})), scripts=[Markup(text) for text in scripts],
        content=Markup(_json(content)), csp=CSP.format(" ".join(map(_hash, scripts))),
    )  # fmt: skip


def _content(chart: Chart) -> dict[str, object]:
    """Return what the page's script takes of a chart."""
    tables = {name: columnar(table) for name, table in chart.tables.items()}
    controls = [control._asdict() for control in chart.controls]
    return {"spec": chart.spec, "tables": tables, "controls": controls, "dense": chart.dense}


@cache
def library() -> str:
    """Return Vega, Vega-Lite and what embeds them in a page as one script."""
    return vl_convert.javascript_bundle(LIBRARY)


def _headings(tokens: Sequence[Token]) -> list[tuple[str, str, str]]:
    """Give the headings ids; return (tag, id, text) of each."""
    found = []
    for token, inline in pairwise(tokens):
        if token.type == "heading_open":
            name = f"section-{len(found)}"
            token.attrSet("id", name)
            found.append((token.tag, name, "".join(part.content for part in inline.children or ())))
    return found


def _tables(tokens: Sequence[Token]) -> None:
    """Say of a table's cells what they head: the first of a row heads the row."""
    first = body = False
    for token in tokens:
        if token.type in ("thead_open", "tbody_open"):
            body = token.type == "tbody_open"
        elif token.type == "tr_open":
            first = body
        elif token.type == "th_open":
            token.attrSet("scope", "col")
        elif token.type == "td_open" and first:
            token.tag = "th"
            token.attrSet("scope", "row")
        elif token.type == "td_close" and first:
            token.tag, first = "th", False


def _figures(
    tokens: Sequence[Token],
    converter: MarkdownIt,
    charts: Mapping[str, Sequence[Chart]],
    picture: Callable[[str], bytes],
    shown: list[Chart],
) -> Iterator[Token]:
    """Yield the tokens with figures in the place of pictures and what is written under them, and with tables in boxes.

    Charts are put into `shown`, in their order on the page.
    """
    tokens, heading, index = list(tokens), "", 0
    while index < len(tokens):
        token = tokens[index]
        if token.type == "heading_open":
            heading = converter.renderer.renderInline(tokens[index + 1].children, converter.options, {})
        if token.type == "table_open":
            yield _html(
                f'<div class="table"><div class="scroll" tabindex="0">\n<table>\n<caption>{heading}</caption>\n'
            )
        elif token.type == "table_close":
            yield _html("</table>\n</div></div>\n")
        elif image := _image(tokens[index : index + 3]):
            address, alt = unquote(str(image.attrs["src"])), _alternative(image, converter)
            under = [part for part in tokens[index + 4].children or () if part.tag != "em"]
            caption = converter.renderer.renderInline(under, converter.options, {})
            if address not in charts:
                yield _html(_picture(picture(address), alt, caption))
            for chart in charts.get(address, ()):
                # of several recipes the report says under a picture of which it is
                of_side = "" if address.startswith("figures/") else f"{caption} "
                yield _html(_place(len(shown), chart.caption, of_side))
                shown.append(chart)
            index += 6  # the paragraphs of the picture and of its caption
            continue
        else:
            for part in token.children or ():
                # of several recipes, to the page of one
                if part.type == "link_open" and str(part.attrs["href"]).endswith(f"/{output.REPORT}"):
                    part.attrSet("href", str(part.attrs["href"]).removesuffix(output.REPORT) + output.PAGE)
            yield token
        index += 1


def _alternative(image: Token, converter: MarkdownIt) -> str:
    return Markup.escape(converter.renderer.renderInlineAsText(image.children or (), converter.options, {}))


def _picture(content: bytes, alt: str, caption: str) -> str:
    data = base64.b64encode(content).decode()
    image = f'<img src="data:image/png;base64,{data}" alt="{alt}">'
    return f'<figure><div class="picture" tabindex="0">{image}</div>\n<figcaption>{caption}</figcaption></figure>\n'


def _place(number: int, text: str, of_side: str) -> str:
    """Return the place in which the page's script draws a chart."""
    said = Markup.escape(text)
    place = f'<div class="chart" data-chart="{number}" role="img" aria-label="{said}"></div>'
    return f"<figure>{place}\n<figcaption>{of_side}{said}</figcaption></figure>\n"


def _image(paragraph: Sequence[Token]) -> Token | None:
    """Return the picture that a paragraph consists of, if it does."""
    if len(paragraph) < 3 or paragraph[0].type != "paragraph_open":
        return None
    parts = paragraph[1].children or []
    return parts[0] if len(parts) == 1 and parts[0].type == "image" else None


def _html(text: str) -> Token:
    return Token("html_block", "", 0, content=text)


def _domains(spec: object) -> Iterator[list[str]]:
    """Yield the orders of regularizers that a specification names."""
    if isinstance(spec, dict):
        if spec.get("field") == "regularizer" and "scale" in spec:
            yield spec["scale"]["domain"]
        for part in spec.values():
            yield from _domains(part)
    elif isinstance(spec, list):
        for part in spec:
            yield from _domains(part)


def _own(name: str) -> str:
    return (HERE / name).read_text(encoding="utf-8")


def _inert(script: str) -> str:
    """Return a script that HTML takes as one: what would end it, or begin a comment, is written in another way."""
    return script.replace("</script", r"<\/script").replace("<!--", r"<\!--")


def _json(content: object) -> str:
    """Return JSON in which there is nothing that HTML would take for a tag."""
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.replace("<", r"\u003c").replace("\u2028", r"\u2028").replace("\u2029", r"\u2029")


def _hash(script: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"


def _words() -> dict[str, str]:
    """Return what the page's script says."""
    return {
        "latex": gettext("Copy as LaTeX"),
        "csv": gettext("Copy as CSV"),
        "copied": gettext("Copied."),
        "select": gettext("The text is selected: copy it with Ctrl+C or Cmd+C."),
        "close": gettext("Close"),
        "sort": gettext("sort"),
    }
