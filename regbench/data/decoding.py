"""One image file, whatever is in it -> RGB, 32x32, 8 bits."""

import os
import stat
import warnings
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from regbench.data.images import SIDE
from regbench.errors import one_line

# raised with every change of how a file becomes an image, so that no cache of another way is read
VERSION = 3
# tags of TIFF
BITS, PHOTOMETRIC, WHITE_IS_ZERO = 258, 262, 0
SIXTEEN_BITS = 2**16 - 1


class Unusable(Exception):
    """A file that becomes no image; the message goes on from its name."""


@dataclass(frozen=True)
class Picture:
    """`pixels` is uint8 [3, 32, 32]; `frames`: it is the first of several; `brightest`: of 16 bits, 0 to 1, else None."""

    pixels: np.ndarray
    frames: bool
    brightest: float | None


def decode(path: Path) -> Picture:
    """Return the image in a file, by its content and not by its name; raises Unusable if there is none.

    It is turned as its EXIF orientation says. What is transparent shows white. Numbers of 16 bits are scaled to 8, floats
    from 0 to 1 to 0 to 255. Of an animation, or of several pages, it is the first.
    """
    try:
        about = os.stat(path)
        if not stat.S_ISREG(about.st_mode):  # a pipe would be waited for
            raise Unusable("cannot be read (not a regular file)")
        with open(path, "rb") as file:
            file.read(1)
    except OSError as error:
        raise Unusable(f"cannot be read ({error.strerror or one_line(error)})") from error
    if not about.st_size:
        raise Unusable("is not a readable image (it is empty)")
    try:
        # what Pillow only warns of, such as tags that are damaged, is no reason to refuse the picture
        with warnings.catch_warnings(action="ignore"), Image.open(path) as image:
            return _picture(image)
    except UnidentifiedImageError as error:
        raise Unusable("is not a readable image (of no format that Pillow knows)") from error
    except Exception as error:  # of a damaged file each of Pillow's decoders raises what it happens to run into
        raise Unusable(f"is not a readable image ({one_line(error)})") from error


def _picture(image: Image.Image) -> Picture:
    image.load()
    with suppress(Exception):  # a damaged EXIF tells no orientation
        ImageOps.exif_transpose(image, in_place=True)
    brightest = None
    if image.mode == "F" or image.mode.startswith("I"):
        picture, brightest = _shallow(image)
    else:
        picture = _opaque(image) if image.has_transparency_data else image
    picture = picture.convert("RGB")
    if picture.size != (SIDE, SIDE):
        picture = picture.resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    return Picture(np.asarray(picture).transpose(2, 0, 1), _has_frames(image), brightest)


def _shallow(image: Image.Image) -> tuple[Image.Image, float | None]:
    """Return a grey image of more than 8 bits in 8, and its brightest value from 0 to 1 if it has 16.

    Pillow's own conversion clips at 255. Raises ValueError for numbers of which it is not known how much is white.
    """
    values, tags = np.asarray(image), getattr(image, "tag_v2", {})
    if image.mode == "F":
        white, low, high = 1.0, values.min(), values.max()
        if not (low >= 0 and high <= 1):  # nor is NaN
            raise ValueError(f"its floats go from {low:g} to {high:g}, accepted: 0 to 1; save it with 8 or 16 bits")
    elif image.mode.startswith("I;16"):
        white = float(2 ** tags[BITS][0] - 1) if BITS in tags else SIXTEEN_BITS
    elif image.format in ("PNG", "PPM"):  # as Pillow scales them
        white = SIXTEEN_BITS
    else:
        raise ValueError(
            "its numbers are signed or of 32 bits, which leaves open what is white; save it with 8 or 16 bits"
        )
    share = values / white
    if tags.get(PHOTOMETRIC) == WHITE_IS_ZERO:
        share = 1 - share
    share = np.where(values == image.info.get("transparency"), 1, share)
    return Image.fromarray(np.rint(255 * share).astype(np.uint8)), None if image.mode == "F" else float(share.max())


def _opaque(image: Image.Image) -> Image.Image:
    """Return an image on white, where it is transparent."""
    picture = image.convert("RGBA")
    if picture.getchannel("A").getextrema() == (0, 0):  # written by programs that leave it empty, BMP above all
        return image
    ground = Image.new("RGBA", picture.size, "white")
    ground.alpha_composite(picture)
    return ground


def _has_frames(image: Image.Image) -> bool:
    # a camera's MPO holds the same picture again, smaller
    if image.format == "MPO":
        return False
    try:
        return getattr(image, "is_animated", False)
    except Exception:  # a later frame is damaged
        return True
