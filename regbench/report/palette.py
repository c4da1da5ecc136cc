"""The colours of regularizers on a page, which may be light or dark: those of the figures, as far as they can be seen."""

from collections.abc import Sequence

from matplotlib.colors import to_rgb

from regbench.report.figures import colours
from regbench.trial import BASELINE

CONTRAST = 3.0  # of a mark with its background: WCAG 2.2, success criterion 1.4.11
BACKGROUNDS = {"light": "#ffffff", "dark": "#16181d"}  # as in page.css


def palettes(count: int) -> dict[str, list[str]]:
    """Return the colours of `none` and `count` regularizers on a light and on a dark background."""
    found = colours([BASELINE, *map(str, range(count))]).values()
    return {name: [_visible(to_rgb(one), to_rgb(ground)) for one in found] for name, ground in BACKGROUNDS.items()}


def contrast(first: Sequence[float], second: Sequence[float]) -> float:
    """Return the contrast of two colours (RGB in [0, 1]) by WCAG 2.2: 1 to 21."""

    def luminance(colour: Sequence[float]) -> float:
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour]
        return sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    low, high = sorted((luminance(first), luminance(second)))
    return (high + 0.05) / (low + 0.05)


def _visible(colour: Sequence[float], ground: Sequence[float]) -> str:
    """Return a colour in hex, as far from its own as it takes to be seen on its background."""
    towards = 0.0 if contrast(ground, (1, 1, 1)) < contrast(ground, (0, 0, 0)) else 1.0
    for step in range(21):
        mixed = [round(255 * (c + (towards - c) * step / 20)) for c in colour]
        if contrast([c / 255 for c in mixed], ground) >= CONTRAST:
            break
    return "#" + "".join(f"{c:02x}" for c in mixed)
