"""The report's messages in the code, and the catalogues of their translations.

Run `python -m tests.report.messages` after a change of what the report says: it brings the catalogues up to date. What is
new in them is then to be translated by hand.
"""

from io import BytesIO
from pathlib import Path

from babel.messages.catalog import Catalog
from babel.messages.extract import DEFAULT_KEYWORDS, extract_from_dir
from babel.messages.pofile import read_po, write_po

from regbench.report import language
from tests.conftest import PROJECT

CODE = PROJECT / "regbench" / "report"
TRANSLATIONS = tuple(name for name in language.LANGUAGES if name != language.ENGLISH)
METHODS = [("**.py", "python"), ("**.j2", "jinja2")]
# as the templates are read, and an error in one is not passed over
OPTIONS = {"**.j2": {"trimmed": "true", "trim_blocks": "true", "lstrip_blocks": "true", "silent": "false"}}
KEYWORDS = DEFAULT_KEYWORDS | {"figure": None}  # whose first argument is a caption


def path(translation: str) -> Path:
    return language.LOCALE / translation / "LC_MESSAGES" / "regbench.po"


def extracted() -> Catalog:
    """Return the messages of the code."""
    found = Catalog(charset="utf-8")
    for name, _, message, _, context in extract_from_dir(CODE, METHODS, OPTIONS, KEYWORDS):
        found.add(message, locations=[(f"{CODE.relative_to(PROJECT)}/{name}", 1)], context=context)
    return found


def read(translation: str) -> Catalog:
    with path(translation).open("rb") as file:
        return read_po(file, locale=translation)


def updated(translation: str) -> bytes:
    """Return the catalogue's file with the messages of the code: without those that are gone, new ones untranslated."""
    header, _, _ = path(translation).read_bytes().partition(b"\n\n")
    catalogue, written = read(translation), BytesIO()
    catalogue.update(extracted(), no_fuzzy_matching=True)
    for message in catalogue:
        message.flags &= {"fuzzy"}  # others are Babel's guesses, which differ with its version, as its header does
    write_po(written, catalogue, width=120, omit_header=True, ignore_obsolete=True, include_lineno=False)
    return header + b"\n\n" + written.getvalue()


if __name__ == "__main__":
    for name in TRANSLATIONS:
        path(name).write_bytes(updated(name))
        missing = sum(not message.string or not all(message.string) for message in read(name) if message.id)
        print(f"{path(name).relative_to(PROJECT)}: {missing} to be translated")
