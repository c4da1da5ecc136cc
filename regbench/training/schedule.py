"""The learning rate of an epoch: a warm-up, then a schedule over the epochs that follow it."""

import math
from collections.abc import Callable

from regbench.trial import Recipe

# schedule -> the part of lr that is left where this part of its epochs is done, in [0, 1)
FACTORS: dict[str, Callable[[float], float]] = {
    "constant": lambda done: 1.0,
    "cosine": lambda done: (1 + math.cos(math.pi * done)) / 2,
    "linear": lambda done: 1 - done,
    "step": lambda done: 0.1 ** ((done >= 1 / 2) + (done >= 3 / 4)),
}


def lr(recipe: Recipe, epoch: int) -> float:
    """Return the learning rate in an epoch, counted from 1; it changes from epoch to epoch, not within one.

    In `warmup` epochs it rises in equal steps, lr * epoch / (warmup + 1), so that the next has all of it (Goyal et al.,
    Accurate, Large Minibatch SGD, 2017). Of the other epochs T, after t of them: constant lr; cosine
    lr * (1 + cos(pi t / T)) / 2 (SGDR, Loshchilov and Hutter, ICLR 2017, equation 5); linear lr * (1 - t / T); step a tenth
    from T / 2 on and a hundredth from 3 T / 4 on (He et al., CVPR 2016, section 4.2).
    """
    if epoch <= recipe.warmup:
        return recipe.lr * epoch / (recipe.warmup + 1)
    done = (epoch - 1 - recipe.warmup) / (recipe.epochs - recipe.warmup)
    return recipe.lr * FACTORS[recipe.schedule](done)
