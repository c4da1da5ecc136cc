"""What the documents say is what happens: their blocks of code run, their links lead somewhere."""

import ast
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import click
import pytest
from matplotlib.figure import Figure

import regbench
from regbench import __main__
from regbench.commands import exit_code
from regbench.errors import UserError
from tests import documents
from tests.conftest import PROJECT, TINY, save_pictures, striped
from tests.documents import PAGES, Block
from tests.test_project import PYPROJECT

# examples are made short: a later option of the same name is the one that counts
SHORT = {"epochs": 1, "train_size": 100, "jobs": 1}
FRESH = 2
TRAIN = {"sweep": {"batch_size": 50, "model": TINY}, "notebook": {}}
# has tests of its own, since its classes are checked rule by rule
ELSEWHERE = PROJECT / "docs" / "your-regularizer.md"
CODE = {page: [block for block in documents.blocks(page) if block.language in ("sh", "python")] for page in PAGES}
# code that can be run -> its page: that of a page in another language is not run twice
RUN = {tuple(block for block in found if not block.needs): page for page, found in CODE.items() if page != ELSEWHERE}


def title(page: Path) -> str:
    return str(page.relative_to(PROJECT))


@pytest.fixture
def reader(database, elsewhere, monkeypatch):
    """The folder of a reader who has images of their own, and whose figures are blank: drawing takes most of the time."""
    save = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda _, *args, **kw: save(Figure(figsize=(1, 1)), *args, **kw))
    monkeypatch.syspath_prepend(elsewhere)
    save_pictures(striped(train=120, test=20), elsewhere / "photos")
    return elsewhere


@pytest.mark.parametrize("code", [code for code in RUN if code], ids=lambda code: title(RUN[code]))
def test_the_examples_of_a_page_run_one_after_the_other(code, reader, monkeypatch):
    names: dict[str, object] = {}
    if any("regbench.sweep(" in block.code for block in code):
        shorten_python(monkeypatch)
    for block in code:
        if block.language == "sh":
            for words in documents.commands(block.code):
                start(words)
        elif block.file:
            Path(block.file).write_text(block.code)
        else:
            exec(compile(block.code, title(RUN[code]), "exec"), names)


def start(words: list[str]) -> None:
    """Run a command of a page, but in the environment and on the path of the tests."""
    match words:
        case ["python3", "-m", "venv", _] | [".", _]:
            pass
        case ["pip", "install", "-e", what]:
            extras = re.fullmatch(r"\.\[(.+)\]", what)[1].split(",")
            assert set(extras) <= PYPROJECT["project"]["optional-dependencies"].keys()
        case ["python", "-m", "pytest", *arguments]:
            assert not [name for name in arguments if "/" in name and not (PROJECT / name).exists()]
        case ["ruff", *_]:
            subprocess.run([sys.executable, "-m", *words], cwd=PROJECT, check=True, capture_output=True)
        case _:
            found = documents.called(words)
            assert found, f"{words}: a test does not know how to run it; say what the block needs"
            command, arguments = found
            assert command is __main__.main
            with pytest.raises(SystemExit) as stop:
                exit_code.run(command, [*arguments, *shorter(arguments)])
            assert stop.value.code == 0, words


def shorter(arguments: list[str]) -> list[str]:
    """Return the options to be added: of several of a name the last one counts."""
    name, *options = arguments
    if name not in TRAIN:
        return []
    given = dict(option.lstrip("-").split("=", 1) for option in options)
    report = {"report": "none"} if name == "sweep" else {}  # it takes longer than the sweep
    return [f"--{key}={value}" for key, value in (changed(name, given) | report).items()]


def changed(name: str, given: Mapping[str, object]) -> dict[str, object]:
    """Return the options of a command, or arguments of a function, that make it short."""
    found = {key: value for key, value in TRAIN[name].items() if key not in given}
    return SHORT | found | ({"confirm": FRESH} if str(given.get("confirm", 0)) != "0" else {})


def shorten_python(monkeypatch: pytest.MonkeyPatch) -> None:
    sweep = regbench.sweep
    monkeypatch.setattr(regbench, "sweep", lambda **given: sweep(**given | changed("sweep", given)))


@pytest.mark.parametrize(
    ("page", "block"),
    [
        pytest.param(page, block, id=f"{title(page)} {block.needs}: {block.code.split()[0]}")
        for page, found in CODE.items()
        for block in found
        if block.needs
    ],
)
def test_what_cannot_be_run_here_has_commands_and_options_that_exist(page, block: Block, elsewhere):
    Path("cifar10-jpeg").mkdir()
    if block.language == "python":
        ast.parse(block.code)
        return
    subprocess.run(["bash", "-n"], input=block.code, text=True, check=True, env=os.environ)
    for words in documents.commands(block.code):
        if found := documents.called(words):
            documents.check(*found)


@pytest.mark.parametrize(
    ("line", "mistake"),
    [
        ("regbench sweep --reg=l3", UserError),
        ("regbench sweep --regs=l1", click.NoSuchOption),
        ("regbench sweeps", KeyError),
        ("mlflow run . -P regs=l1", AssertionError),
        ("mlflow run . -e main2", KeyError),
    ],
)
def test_a_mistake_in_an_example_is_seen(line, mistake):
    with pytest.raises(mistake):
        documents.check(*documents.called(line.split()))


@pytest.mark.parametrize("page", PAGES, ids=title)
def test_links_lead_to_files_and_headings_that_exist(page):
    broken = []
    for address in documents.links(page):
        if re.match(r"\w+:", address):
            continue
        name, _, anchor = address.partition("#")
        target = page if not name else (page.parent / name).resolve()
        if not target.exists() or (anchor and anchor not in documents.anchors(target)):
            broken.append(address)
    assert not broken


def test_files_that_the_documents_name_exist():
    named = set()
    for page in PAGES:
        named |= set(re.findall(r"`((?:benchmarks|docs|regbench|tests)/[\w./-]+)`", page.read_text()))
    assert len(named) > 30
    assert not [name for name in named if not (PROJECT / name).exists()]


@pytest.mark.parametrize("page", sorted(PROJECT.glob("docs/*.ja.md")), ids=title)
def test_a_page_in_japanese_leads_to_the_english_one_and_on(page):
    first, *_, last = documents.paragraphs(page)
    assert first.startswith("このページは") and re.match("次に.\\[", last)
    assert page.name.replace(".ja.md", ".md") in documents.links(page)
    assert f"docs/{page.name}" in documents.links(PROJECT / "README.ja.md")


@pytest.mark.parametrize("page", sorted({*PROJECT.glob("docs/*.md")} - {*PROJECT.glob("docs/*.ja.md")}), ids=title)
def test_a_page_says_what_it_is_for_and_where_to_go_next(page):
    first, *_, last = documents.paragraphs(page)
    assert re.fullmatch(r"This page is for (?:[^.]|\.(?! ))+\.", first.replace("\n", " "))
    assert last.startswith("Next: [")
    assert f"docs/{page.name}" in documents.links(PROJECT / "README.md")


def test_the_readme_is_read_in_five_minutes():
    lines = (PROJECT / "README.md").read_text().splitlines()
    assert len(lines) <= 150
    bare = [block.code for block in documents.blocks(PROJECT / "README.md") if not block.needs]
    assert "python -m pytest\n" in bare
    assert "mlflow run . " in bare[0]


def tree() -> tuple[dict[Path, set[str]], dict[Path, str]]:
    """Return of the tree in docs/architecture.md: folder -> names of files there, and folder -> its line."""
    page = PROJECT / "docs" / "architecture.md"
    (code,) = (token.content for token in documents.parse(page) if token.type == "code_block")
    listed: dict[Path, set[str]] = {}
    described, above = {}, [(-1, PROJECT)]
    for line in code.splitlines():
        indent = len(line) - len(line.lstrip())
        names, _, text = re.sub(r"\s{2,}", "\t", line.strip(), count=1).partition("\t")
        above = [(depth, folder) for depth, folder in above if depth < indent]
        folder = above[-1][1]
        if names.endswith("/"):
            folder /= names
            above.append((indent, folder))
            described[folder], listed[folder] = text, set()
        else:
            listed[folder] |= {name for name in re.split(r",\s*", names) if name} | {*re.findall(r"\w+\.py", text)}
    return listed, described


def test_the_tree_of_files_is_that_of_the_files():
    """A folder is described as a whole, or all of its modules are named: each on a line, or in the folder's."""
    listed, described = tree()
    missing = [folder / name for folder, names in listed.items() for name in names if not any(folder.glob(name))]
    assert not missing
    folders = {path.parent for path in (PROJECT / "regbench").rglob("*.py")}
    assert folders <= listed.keys()
    for folder in folders:
        modules = {path.name for path in folder.glob("*.py") if not path.name.startswith("__")}
        named = listed[folder] | {f"{word}.py" for word in re.findall(r"\w+", described[folder])}
        if listed[folder]:
            assert not modules - named, folder
