"""The documents of the project: their blocks of code, links and headings, and what a command in them would call."""

import importlib
import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import click
import yaml
from markdown_it import MarkdownIt
from markdown_it.token import Token

from regbench import __main__
from tests.conftest import PROJECT

PAGES = sorted([*PROJECT.glob("*.md"), *PROJECT.glob("docs/*.md"), PROJECT / "benchmarks" / "README.md"])
ENTRY_POINTS = yaml.safe_load((PROJECT / "MLproject").read_text())["entry_points"]
DEFAULT = "Default"  # the experiment of `mlflow run`, unless told otherwise
COMMANDS = {"main": "sweep", "notebook": "notebook", "report": "report"}  # entry point -> regbench's command


@dataclass(frozen=True)
class Block:
    """A block of code: its language, what it needs that a test lacks ("": nothing), the file that a reader makes of it."""

    language: str
    needs: str
    code: str
    file: str


def parse(page: Path) -> list[Token]:
    return MarkdownIt("commonmark").enable("table").parse(page.read_text())


def blocks(page: Path) -> list[Block]:
    """Return the blocks of code of a page; ```sh needs CIFAR-10 is one that cannot be run by a test."""
    found, before = [], ""
    for token in parse(page):
        if token.type == "inline":
            before = token.content
        elif token.type == "fence":
            language, _, needs = token.info.partition(" needs ")
            file = re.search(r"put this into\s+`(\w+\.py)`", before, re.IGNORECASE)
            found.append(Block(language, needs, token.content, file[1] if file and language == "python" else ""))
            before = ""
    return found


def links(page: Path) -> list[str]:
    """Return where the links and pictures of a page go to."""
    parts = [part for token in parse(page) for part in token.children or ()]
    found = [part.attrs.get("href") or part.attrs.get("src") for part in parts]
    return [str(address) for address in found if address]


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    tokens, found = parse(page), []
    for i in (i for i, token in enumerate(tokens) if token.type == "heading_open"):
        text = "".join(part.content for part in tokens[i + 1].children)
        name = re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")
        found.append(name if name not in found else f"{name}-{found.count(name)}")
    return set(found)


def paragraphs(page: Path) -> list[str]:
    """Return the paragraphs of a page, without those of lists and tables."""
    tokens = parse(page)
    starts = (i for i, token in enumerate(tokens) if token.type == "paragraph_open" and token.level == 0)
    return [tokens[i + 1].content for i in starts]


def commands(code: str) -> Iterator[list[str]]:
    """Yield the words of each command of a shell's code; what is joined by && is several."""
    for line in code.replace("\\\n", " ").splitlines():
        for joint, words in groupby(shlex.split(line, comments=True), ("&&", "&").__contains__):
            if not joint:
                yield list(words)


def called(words: Sequence[str]) -> tuple[click.Command, list[str]] | None:
    """Return the click command that a command starts, with its arguments; None if it is no command of this project."""
    words = [*words]
    while words and re.match(r"\w+=", words[0]):
        del words[0]
    match words:
        case ["regbench", *arguments] | ["python", "-m", "regbench", *arguments]:
            return __main__.main, arguments
        case ["mlflow", "run", *arguments]:
            return __main__.main, launched(arguments)
        case ["python", "-m", module, *arguments] if module.startswith(("benchmarks.", "docs.")):
            return importlib.import_module(module).main, arguments
    return None


def launched(arguments: Sequence[str]) -> list[str]:
    """Return the arguments with which `mlflow run` starts regbench, by its own reading of a command line and MLproject."""
    from mlflow.cli import cli

    given = cli.commands["run"].make_context("run", [*arguments]).params
    assert given["uri"] == "."
    entry, parameters = given["entry_point"], dict(one.split("=", 1) for one in given["param_list"])
    parameters = {"experiment": given["experiment_name"] or DEFAULT} | parameters
    assert parameters.keys() <= ENTRY_POINTS[entry]["parameters"].keys()
    return [COMMANDS[entry], *(f"--{name}={value}" for name, value in parameters.items())]


def check(command: click.Command, arguments: Sequence[str]) -> None:
    """Read a command line as the command does, to its last option, without running it; raises for what is wrong."""
    if isinstance(command, click.Group):
        name, *arguments = arguments
        command = command.commands[name]
    command.make_context(command.name, [*arguments])
