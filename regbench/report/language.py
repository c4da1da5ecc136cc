"""The language of a report: its messages are English in the code, and are looked up in a catalogue for another language.

A catalogue is `regbench/locale/<language>/LC_MESSAGES/regbench.po`; `python -m tests.report.messages` brings it up to date
with the code. A message is found if it is written out in a call of these functions, or in the templates.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from gettext import GNUTranslations, NullTranslations
from io import BytesIO
from pathlib import Path

ENGLISH, JAPANESE = "en", "ja"
LANGUAGES = (ENGLISH, JAPANESE)
LOCALE = Path(__file__).parent.parent / "locale"
_language: ContextVar[str] = ContextVar("language", default=ENGLISH)


def gettext(message: str) -> str:
    """Return a message in the language of the report."""
    return catalogue(_language.get()).gettext(message)


def ngettext(one: str, many: str, number: int) -> str:
    """Return the message for this number of things."""
    return catalogue(_language.get()).ngettext(one, many, number)


def current() -> str:
    """Return the language of the report, one of `LANGUAGES`."""
    return _language.get()


@contextmanager
def use(language: str) -> Iterator[None]:
    """Have the block, or the function that this decorates, write in one of `LANGUAGES`; else it is English."""
    token = _language.set(language)
    try:
        yield
    finally:
        _language.reset(token)


@cache
def catalogue(language: str) -> NullTranslations:
    """Return a language's messages; what is not among them stays English."""
    if language == ENGLISH:
        return NullTranslations()
    # late: most who import this write English
    from babel.messages.mofile import write_mo
    from babel.messages.pofile import read_po

    with (LOCALE / language / "LC_MESSAGES" / "regbench.po").open("rb") as file:
        messages = read_po(file, locale=language)
    compiled = BytesIO()
    write_mo(compiled, messages)
    compiled.seek(0)
    return GNUTranslations(compiled)
