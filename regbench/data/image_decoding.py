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

# to be raised with every change to decoding, so that caches of older ways are not read
VERSION = 3
# tags of TIFF
BITS, PHOTOMETRIC, WHITE_IS_ZERO = 258, 262, 0
SIXTEEN_BITS = 2**16 - 1


class Unusable(Exception):
    """A file that cannot be made an image; the message continues a sentence that begins with its name."""


@dataclass(frozen=True)
class Picture:
    """`pixels` is uint8 [3, 32, 32]; `frames`: it is the first of several; `brightest`: of 16 bits, 0 to 1, else None."""

    pixels: np.ndarray
    frames: bool
    brightest: float | None


def decode(path: Path) -> Picture:
    """Return the image in a file, by its content and not by its name; raises Unusable if there is none.

    It is turned as its EXIF orientation says. What is transparent becomes white. 16-bit values are scaled to 8
    bits, floats from [0, 1] to 0 to 255. Of an animation, or of several pages, the first is taken.
    """
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # a pipe would be waited for
            raise Unusable("cannot be read (not a regular file)")
        with open(path, "rb") as file:
            if not file.read(1):
                raise Unusable("is not a readable image (it is empty)")
    except OSError as error:
        raise Unusable(f"cannot be read ({error.strerror or one_line(error)})") from error
    try:
        # what Pillow only warns of, such as damaged tags, does not make a file unusable
        with warnings.catch_warnings(action="ignore"), Image.open(path) as image:
            return convert(image)
    except UnidentifiedImageError as error:
        raise Unusable("is not a readable image (of no format that Pillow knows)") from error
    except Exception as error:  # on a damaged file Pillow's decoders raise whatever they run into
        raise Unusable(f"is not a readable image ({one_line(error)})") from error


def convert(image: Image.Image) -> Picture:
    """Return what `decode` makes of an opened image, which is turned in place; raises what Pillow does, or ValueError."""
    image.load()
    with suppress(Exception):  # a damaged EXIF has no orientation
        ImageOps.exif_transpose(image, in_place=True)
    picture, brightest = image, None
    if image.mode == "F" or image.mode.startswith("I"):
        picture, brightest = _to_8_bits(image)
    elif image.has_transparency_data:
        picture = _on_white(image)
    picture = picture.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    return Picture(np.asarray(picture).transpose(2, 0, 1), _has_frames(image), brightest)


def _to_8_bits(image: Image.Image) -> tuple[Image.Image, float | None]:
    """Return a grey image of more than 8 bits as one of 8, and its brightest value, 0 to 1, if it has 16.

    Pillow's own conversion clips at 255. Raises ValueError where it is unknown which value is white.
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


def _on_white(image: Image.Image) -> Image.Image:
    """Return an image on white where it is transparent."""
    picture = image.convert("RGBA")
    if picture.getchannel("A").getextrema() == (0, 0):  # from programs that leave alpha empty, in BMP above all
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
