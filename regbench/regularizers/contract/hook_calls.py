"""How the checks of a regularizer call its hooks: the arguments, as in training, and what comes of them.

Weights are p [K, ...] of a few shapes, gradients g as many, lam [K, 1, ...].
"""

import inspect
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor

from regbench import regularizers
from regbench.regularizers import Regularizer

# hook -> its arguments: the methods of the base class
METHODS = {name: method for name, method in vars(Regularizer).items() if inspect.isfunction(method)}
HOOKS = {name: tuple(inspect.signature(method).parameters)[1:] for name, method in METHODS.items()}
SHAPES = {"a matrix": (3, 6, 5), "a convolution": (3, 4, 2, 3, 3), "a bias": (3, 7)}
TAU, OTHER_TAU, LR = 0.1, 0.01, 0.01
# N, channels and sides of a batch
IMAGES = torch.Size((4, 3, 32, 32))
DONE = (0.0, 1 / 30, 0.25, 0.5, 0.75, 1.0)  # of the epochs
LAM = 1e-3  # of a class that has no grid
# a method may leave small or large weights alone, or small layers
SCALES = (1.0, 0.01, 100.0)
LARGE = {"a large matrix": (3, 256, 128)}


def cases(
    cls: type[Regularizer], scales: Sequence[float] = (1.0,), shapes: Mapping[str, tuple[int, ...]] = SHAPES
) -> Iterator[tuple[str, Tensor, Tensor, Tensor]]:
    """Yield name, p, g and lam [K, 1, ...] of each scale and shape; lams are the least, middle and largest of the grid.

    Where a class takes one trial at a time, K is 1 and each of the lams comes by itself.
    """
    lams = (LAM,) if getattr(cls, "lams", None) is None else sorted(regularizers.grid(cls, cls.__name__))
    strengths = [lams[0], lams[len(lams) // 2], lams[-1]]
    generator = torch.Generator().manual_seed(0)
    for scale in scales:
        for what, shape in shapes.items():
            p, g = (torch.randn(shape, generator=generator) for _ in range(2))
            lam = torch.tensor(strengths).view(-1, *(1,) * (len(shape) - 1))
            for rows in [slice(row, row + 1) for row in range(3)] if cls.one_by_one else [slice(None)]:
                yield what, scale * p[rows], g[rows].clone(), lam[rows].clone()


def arguments(p: Tensor, g: Tensor, lam: Tensor) -> dict[str, tuple]:
    """Return hook -> its arguments."""
    h, logits, labels, uniform, chance, images, targets, chances = network(p)
    return {
        "penalty": (p[0],),
        "add_grad": (p, g.clone(), lam),
        "before_step": (p.clone(), lam, LR),
        "after_step": (p.clone(), lam, TAU),
        "value": (p, lam),
        "add_loss": (logits, labels, column(lam, logits)),
        "dense_input": (h, column(lam, h), uniform),
        "augment": (images, targets, column(lam, images), chances),
        "target_sparsity": (lam.flatten(), DONE[-1]),
        "importance": (p, chance),
    }


def call_on_views(hook: Callable, *given: object) -> object:
    """Call a hook on views, as a training step does; return what it returns, None for one of the views themselves."""
    views = [x[:] if isinstance(x, Tensor) else x for x in given]
    returned = hook(*views)
    return None if any(returned is view for view in views) else returned


def step(method: Regularizer, p: Tensor, g: Tensor, lam: Tensor, tau: float = TAU) -> Tensor | float:
    """Call the hooks as a training step by SGD does, in place; return the value."""
    value = method.value(p[:], lam)
    call_on_views(method.add_grad, p, g, lam)
    call_on_views(method.after_step, p, lam, tau)
    return value


def stepped(method: Regularizer, p: Tensor, lam: Tensor, tau: float | Tensor) -> Tensor:
    """Return what after_step makes of a copy of p."""
    moved = p.clone()
    call_on_views(method.after_step, moved, lam.clone(), tau)
    return moved


def slope(method: Regularizer, p: Tensor, lam: Tensor) -> Tensor | None:
    """Return the gradient of value at p, float64, by autograd or else by differences; None where value is 0 or float32."""
    value = method.value(p, lam)
    if not torch.as_tensor(value).any() or getattr(value, "dtype", None) == torch.float32:
        return None
    try:
        with torch.enable_grad(), warnings.catch_warnings(action="ignore"):
            q = p.clone().requires_grad_()
            return torch.autograd.grad(torch.as_tensor(method.value(q, lam)).sum(), q)[0]
    except Exception:  # value is for the log: it may do what autograd does not know
        return torch.stack([_difference(method, p, lam, i) for i in range(p[0].numel())], 1).view_as(p)


def _difference(method: Regularizer, p: Tensor, lam: Tensor, i: int, delta: float = 1e-6) -> Tensor:
    """Return the derivative [K] of value along weight `i` of each row."""
    values = []
    for sign in (1, -1):
        moved = p.clone()
        moved.flatten(1)[:, i] += sign * delta
        values.append(_per_row(method.value(moved, lam), p))
    return (values[0] - values[1]) / (2 * delta)


def network(p: Tensor, seed: int = 1) -> tuple[Tensor, ...]:
    """Return inputs of a dense layer [K, N, F], logits [K, N, C], labels [K, N], random numbers for the inputs and for p.

    After them come images [K, N, 3, S, S], targets [K, N, C] and random numbers for the images. Inputs, logits and images
    are made of the numbers in p. The random numbers are the same for each row, so that rows can be compared.
    """
    h = p[:, None].clone() if p.ndim < 3 else p.clone()
    logits = h.flatten(2)
    labels = torch.arange(logits.shape[1], device=p.device).expand(len(p), -1) % logits.shape[2]
    numbers = torch.arange(IMAGES.numel(), device=p.device) % p[0].numel()
    images = p.flatten(1)[:, numbers].sigmoid().view(len(p), *IMAGES)
    targets = torch.eye(IMAGES[0], dtype=p.dtype, device=p.device).repeat(len(p), 1, 1)
    generator = torch.Generator().manual_seed(seed)
    uniform, chance, chances = (
        torch.rand(x.shape[1:], generator=generator).to(x.device).expand(x.shape) for x in (h, p, images)
    )
    return h, logits, labels, uniform, chance, images, targets, chances


def batch(given: tuple[Tensor, ...]) -> dict[str, Tensor]:
    """Return the images and targets of what `network` returns."""
    return {"images": given[5], "targets": given[6]}


def network_hooks(method: Regularizer, given: tuple[Tensor, ...], p: Tensor, lam: Tensor) -> dict[str, Tensor]:
    """Return the added loss [K], the dense layer's inputs, the target sparsity [K], the importances, images and targets."""
    h, logits, labels, uniform, chance, images, targets, chances = given
    images, targets = method.augment(images, targets, column(lam, images), chances)
    return {
        "loss": _per_row(method.add_loss(logits, labels, column(lam, logits)), p),
        "dense_input": method.dense_input(h, column(lam, h), uniform),
        "target_sparsity": _per_row(method.target_sparsity(lam.flatten(), DONE[-1]), p),
        "importance": method.importance(p, chance),
        "images": images,
        "targets": targets,
    }


def _per_row(number: Tensor | float, p: Tensor) -> Tensor:
    """Return a number, or one for each row, as [K] of p's type."""
    return torch.as_tensor(number, dtype=p.dtype).expand(len(p))


def column(lam: Tensor, like: Tensor) -> Tensor:
    """Return lam with as many axes as `like` has."""
    return lam.view(-1, *(1,) * (like.ndim - 1))


def results(
    method: Regularizer, p: Tensor, g: Tensor, lam: Tensor, seed: int = 1, tau: float = TAU
) -> dict[str, Tensor]:
    """Return what a step makes of copies of p and g, the value [K], and what the other hooks return."""
    early, p, g = p.clone(), p.clone(), g.clone()
    others = network_hooks(method, network(p, seed), p, lam) | {"p before Adam's step": early}
    call_on_views(method.before_step, early, lam.clone(), LR)
    return {"p": p, "g": g, "value": _per_row(step(method, p, g, lam.clone(), tau), p)} | others
