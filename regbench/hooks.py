"""What the checks of a regularizer call its hooks with, as training does, and what they make of it.

Weights are p [K, ...] of a few shapes, gradients g as many, lam [K, 1, ...].
"""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor

from regbench import regularizers
from regbench.regularizers import Regularizer

HOOKS = {
    "add_grad": ("p", "g", "lam"),
    "after_step": ("p", "lam", "tau"),
    "value": ("p", "lam"),
    "add_loss": ("logits", "labels", "lam"),
    "hidden": ("h", "lam", "uniform"),
    "share": ("lam", "done"),
    "score": ("p", "uniform"),
}
SHAPES = {"a matrix": (3, 6, 5), "a convolution": (3, 4, 2, 3, 3), "a bias": (3, 7)}
TAU = 0.1
DONE = (1 / 30, 0.25, 0.5, 0.75, 1.0)  # of the epochs
LAM = 1e-3  # of a class that has no grid
SCALES = (1.0, 0.01, 100.0)  # of weights: a method may leave small or large ones alone,
LARGE = {"a large matrix": (3, 256, 128)}  # or small layers


def cases(
    cls: type[Regularizer], scales: Sequence[float] = (1.0,), shapes: Mapping[str, tuple[int, ...]] = SHAPES
) -> Iterator[tuple[str, Tensor, Tensor, Tensor]]:
    """Yield words, p, g and lam [K, 1, ...] of each scale and shape; lams are the least, middle and largest of the grid.

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
    """Return what each hook is given."""
    h, logits, labels, uniform, chance = network(p)
    return {
        "add_grad": (p, g.clone(), lam),
        "after_step": (p.clone(), lam, TAU),
        "value": (p, lam),
        "add_loss": (logits, labels, column(lam, logits)),
        "hidden": (h, column(lam, h), uniform),
        "share": (lam.flatten(), DONE[-1]),
        "score": (p, chance),
    }


def act(hook: Callable, *given: object) -> object:
    """Call a hook on views, as a training step does; return what it returns, None for one of the views themselves."""
    views = [x[:] if isinstance(x, Tensor) else x for x in given]
    found = hook(*views)
    return None if any(found is view for view in views) else found


def called(method: Regularizer, p: Tensor, g: Tensor, lam: Tensor) -> Tensor | float:
    """Call the hooks as a training step does, in place; return the value."""
    value = method.value(p[:], lam)
    act(method.add_grad, p, g, lam)
    act(method.after_step, p, lam, TAU)
    return value


def slope(method: Regularizer, p: Tensor, lam: Tensor) -> Tensor | None:
    """Return the gradient of value at p, float64, by autograd or else by differences; None where value is 0 or float32."""
    value = method.value(p, lam)
    if not torch.as_tensor(value).any() or getattr(value, "dtype", None) == torch.float32:
        return None
    try:
        with torch.enable_grad(), warnings.catch_warnings(action="ignore"):
            q = p.clone().requires_grad_()
            (found,) = torch.autograd.grad(torch.as_tensor(method.value(q, lam)).sum(), q)
            return found
    except Exception:  # value is for the log: it may do what autograd does not know
        columns = range(p[0].numel())
        return torch.stack([_difference(method, p, lam, column) for column in columns], 1).view_as(p)


def _difference(method: Regularizer, p: Tensor, lam: Tensor, column: int, step: float = 1e-6) -> Tensor:
    """Return the slope [K] of value along one weight of each row."""
    values = []
    for sign in (1, -1):
        moved = p.clone()
        moved.flatten(1)[:, column] += sign * step
        values.append(torch.as_tensor(method.value(moved, lam), dtype=p.dtype).expand(len(p)))
    return (values[0] - values[1]) / (2 * step)


def network(p: Tensor, seed: int = 1) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return inputs of a dense layer [K, N, F], logits [K, N, C], labels [K, N], random numbers for the inputs and for p.

    The first two are made of what is in p. The random numbers are the same for each row, so that rows can be compared.
    """
    h = p[:, None].clone() if p.ndim < 3 else p.clone()
    logits = h.flatten(2)
    labels = torch.arange(logits.shape[1], device=p.device).expand(len(p), -1) % logits.shape[2]
    generator = torch.Generator().manual_seed(seed)
    uniform, chance = (torch.rand(x.shape[1:], generator=generator).to(x.device).expand(x.shape) for x in (h, p))
    return h, logits, labels, uniform, chance


def network_hooks(method: Regularizer, given: tuple[Tensor, ...], p: Tensor, lam: Tensor) -> list[Tensor]:
    """Return the added loss [K], the hidden inputs, the share [K] and the scores."""
    h, logits, labels, uniform, chance = given
    loss = method.add_loss(logits, labels, column(lam, logits))
    share = method.share(lam.flatten(), DONE[-1])
    numbers = [torch.as_tensor(x, dtype=p.dtype).expand(len(p)) for x in (loss, share)]
    return [numbers[0], method.hidden(h, column(lam, h), uniform), numbers[1], method.score(p, chance)]


def column(lam: Tensor, like: Tensor) -> Tensor:
    return lam.view(-1, *(1,) * (like.ndim - 1))


def results(method: Regularizer, p: Tensor, g: Tensor, lam: Tensor, seed: int = 1) -> dict[str, Tensor]:
    """Return what a step makes of copies: p, g, value [K], and what the other hooks give."""
    p, g = p.clone(), g.clone()
    loss, hidden, share, score = network_hooks(method, network(p, seed), p, lam)
    value = called(method, p, g, lam.clone())
    value = torch.as_tensor(value, dtype=p.dtype).expand(len(p))
    return {"p": p, "g": g, "value": value, "loss": loss, "hidden": hidden, "share": share, "score": score}
