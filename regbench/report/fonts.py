"""Fonts for figures in a language whose letters matplotlib's own font lacks."""

from contextlib import suppress
from functools import cache

from matplotlib import font_manager

from regbench.report.language import JAPANESE, gettext

# language -> families that have its letters, the best first: Linux and Colab, macOS, Windows
FAMILIES = {
    JAPANESE: (
        "Noto Sans CJK JP", "Noto Sans JP", "Source Han Sans JP", "IPAexGothic", "IPAPGothic", "IPAGothic",
        "TakaoPGothic", "TakaoGothic", "VL PGothic", "Hiragino Sans", "Hiragino Kaku Gothic ProN",
        "Hiragino Maru Gothic Pro", "Yu Gothic", "BIZ UDGothic", "Meiryo", "MS Gothic",
    ),
}  # fmt: skip


def can_write(language: str) -> bool:
    """Return whether figures can be labelled in a language here."""
    return language not in FAMILIES or family(language) is not None


def family(language: str) -> str | None:
    """Return the best installed family of a language's, None if there is none, or if matplotlib's own will do."""
    wanted = FAMILIES.get(language, ())
    for names in (font_manager.get_font_names, _all_names) if wanted else ():
        installed = names()
        if found := next((name for name in wanted if name in installed), None):
            return found
    return None


def describe_missing(language: str) -> str:
    """Return what is to be done for figures in a language; "" if they are in it."""
    if can_write(language):
        return ""
    return gettext(
        "The pictures (PNG, SVG) are labelled in English, since no font of this language is installed here: install one, "
        "as with `apt-get install fonts-noto-cjk` (Debian, Ubuntu, Colab), and make the report again."
    )


def look_again() -> None:
    """Have the next report see what was installed since the last one was made in this process."""
    _all_names.cache_clear()


@cache
def _all_names() -> list[str]:
    """Return the names of all installed fonts, also of those that were installed since matplotlib last looked."""
    known = {entry.fname for entry in font_manager.fontManager.ttflist}
    for path in font_manager.findSystemFonts():
        if path not in known:
            with suppress(OSError, RuntimeError):  # one that cannot be read
                font_manager.fontManager.addfont(path)
    return font_manager.get_font_names()
