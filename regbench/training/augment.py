"""Data augmentation of a recipe: the training images of an epoch, flipped and cropped, the same for a seed everywhere."""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from regbench.training.randomness import MOVES
from regbench.trial import Recipe

# zeros around an image, on each side
PADDING = 4


def moves(recipe: Recipe, count: int, seed: int, epoch: int) -> np.ndarray | None:
    """Return how each of `count` training images is moved in an epoch, for `flip_crop`; None where the recipe moves none.

    int64 [count, 3]: whether it is flipped (0 or 1), and the crop's first row and column in the padded image (0 to 8).
    They depend on the seed and the epoch alone, so that a training that was cut off goes on with the same.
    """
    if recipe.augment == "none":
        return None
    return np.random.default_rng([seed, MOVES, epoch]).integers(0, (2, 2 * PADDING + 1, 2 * PADDING + 1), (count, 3))


def flip_crop(images: Tensor, moves: Tensor) -> Tensor:
    """Return images [..., 3, S, S] of any type, each padded with zeros, cropped to its size again and flipped sideways.

    `moves` are int64 [..., 3], as by `moves`. Numbers are only put elsewhere, so that every device and engine has the same.
    Source: He et al., Deep Residual Learning for Image Recognition, CVPR 2016, section 4.2.
    """
    side = images.shape[-1]
    flipped, top, left = moves[..., None].unbind(-2)
    places = torch.arange(side, device=images.device)
    columns = torch.where(flipped > 0, places.flip(0), places) + left
    index = ((places + top) * (side + 2 * PADDING))[..., :, None] + columns[..., None, :]
    padded = F.pad(images, [PADDING] * 4).flatten(-2)
    index = index.flatten(-2)[..., None, :].expand(*images.shape[:-2], -1)
    return padded.gather(-1, index).view_as(images)
