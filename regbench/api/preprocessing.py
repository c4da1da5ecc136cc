"""Any picture -> what a network takes, as the images of data sets are made."""

import os
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from regbench.data.image_decoding import Unusable, convert, decode
from regbench.errors import UserError, one_line, printable
from regbench.training.device_data import pixels

ACCEPTED = "accepted: a path, an image of Pillow's, or uint8 [H, W], [H, W, 3 or 4] or [3, H, W] as an array or tensor"


def preprocess(picture: object, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Return a picture as numbers in [0, 1], [1, 3, 32, 32]; raises UserError for what is none."""
    try:
        if isinstance(picture, str | os.PathLike):
            found = decode(Path(picture).expanduser()).pixels
        else:
            found = convert(picture.copy() if isinstance(picture, Image.Image) else _from_array(picture)).pixels
    except Unusable as error:
        raise UserError(f"{printable(os.fspath(picture))} {error}; {ACCEPTED}") from error
    except (ValueError, OSError, RuntimeError) as error:
        raise UserError(f"the picture cannot be read ({one_line(error)}); {ACCEPTED}") from error
    return pixels(torch.from_numpy(np.array(found, order="C"))[None], dtype)


def _from_array(values: object) -> Image.Image:
    if isinstance(values, torch.Tensor) and values.dtype != torch.uint8:  # of some types NumPy has none
        raise UserError(f"the picture is of type {values.dtype}; give uint8, as by (255 * x).round(); {ACCEPTED}")
    array = np.asarray(values.detach().cpu() if isinstance(values, torch.Tensor) else values)
    shape = list(array.shape)
    if array.dtype != np.uint8:
        raise UserError(f"the picture is of type {array.dtype}; give uint8, as by (255 * x).round(); {ACCEPTED}")
    if array.ndim == 4 and len(array) == 1:
        array = array[0]
    if array.ndim == 3 and array.shape[2] not in (1, 3, 4) and array.shape[0] in (1, 3):
        array = array.transpose(1, 2, 0)
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if not array.size or array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (3, 4)):
        raise UserError(f"the picture has the shape {shape}; {ACCEPTED}, one at a time")
    return Image.fromarray(np.ascontiguousarray(array))
