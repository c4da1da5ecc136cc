"""The language of a report: its messages are English, and are looked up in a catalogue for another."""


def gettext(message: str) -> str:
    """Return a message in the language of the report."""
    return message


def ngettext(one: str, many: str, number: int) -> str:
    """Return the message for this number of things."""
    return one if number == 1 else many
