"""How many lines somebody has written."""

import ast
import io
import tokenize
from pathlib import Path

SILENT = {
    tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER,
}  # fmt: skip


def written(path: Path) -> int:
    """Return how many lines of a file are neither blank, nor comments, nor in Python docstrings."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        return len(_code(text))
    return sum(bool(line.strip()) and not line.lstrip().startswith("#") for line in text.splitlines())


def _code(text: str) -> set[int]:
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    spoken = [range(one.start[0], one.end[0] + 1) for one in tokens if one.type not in SILENT]
    found = {line for lines in spoken for line in lines}
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and ast.get_docstring(
            node
        ):
            found -= set(range(node.body[0].lineno, node.body[0].end_lineno + 1))
    return found
