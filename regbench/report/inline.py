"""A report as one piece of HTML with its figures in it, as a notebook shows it, without JavaScript."""

import base64
import os
import re
from pathlib import Path
from urllib.parse import unquote

from markdown_it import MarkdownIt
from markdown_it.token import Token

STYLE = "max-width: 60em; overflow-x: auto"


def html(path: Path) -> str:
    """Return the HTML of the Markdown in `path`; what in it would be HTML is shown as text.

    Figures are data URIs. Links to other files are relative to the current folder.
    """
    markdown = MarkdownIt("commonmark", {"html": False}).enable("table")
    tokens = markdown.parse(path.read_text(encoding="utf-8"))
    for token in (child for block in tokens for child in block.children or ()):
        if token.type == "image":
            _embed(token, path.parent)
        elif token.type == "link_open" and not re.match("#|[a-z]+:", target := str(token.attrs["href"])):
            token.attrs["href"] = os.path.relpath(path.parent / target)
    return f'<div style="{STYLE}">{markdown.renderer.render(tokens, markdown.options, {})}</div>'


def _embed(token: Token, folder: Path) -> None:
    file = folder / unquote(str(token.attrs["src"]))
    if file.is_file():  # else it was removed since, and its caption is shown
        content = base64.b64encode(file.read_bytes()).decode()
        token.attrs |= {"src": f"data:image/png;base64,{content}", "style": "max-width: 100%"}
