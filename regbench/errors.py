"""Errors that a user sees as one line, without a traceback."""

import re


class UserError(Exception):
    """A mistake of the user's: the message names the value, what is accepted and the way out."""

    def _render_traceback_(self) -> list[str]:
        """Return what IPython shows instead of a traceback."""
        return [f"{type(self).__name__}: {without_password(str(self))}"]


class TrackingError(Exception):
    """The tracking store failed while trials were running."""


def without_password(text: str) -> str:
    """Return `text` without the passwords in its addresses, scheme://name:password@host."""
    return re.sub(r"(\w://[^\s/:@]*):[^\s/@]*@", r"\1:***@", text)


def printable(text: object) -> str:
    """Return a name or path as a message shows it: on one line, with what is not a letter spelt out."""
    # names of files that are not UTF-8 come with lone surrogates
    read = str(text).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in read)


def one_line(error: BaseException) -> str:
    """Return an error's text on one line, or its type's name if it has none; what no store takes is shown as "?"."""
    # names of files that are not UTF-8 come with lone surrogates
    text = str(error).encode("utf-8", "replace").decode()
    return " ".join(text.split()) or type(error).__name__
