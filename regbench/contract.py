"""What a regularizer promises, as checks: `python -m regbench check pkg.module:Class`, and before a plug-in is trained.

A rule is a function of a class that returns how the class breaks it, "" if it does not. Weights are p [K, ...] as in
training: matrices, convolutions and, as with scope=all, biases, in float32, without autograd.
"""

import inspect
from collections.abc import Callable, Iterator
from itertools import pairwise

import torch
from torch import Tensor

from regbench import regularizers
from regbench.errors import UserError, one_line
from regbench.regularizers import Regularizer

HOOKS = {"add_grad": ("p", "g", "lam"), "after_step": ("p", "lam", "tau"), "value": ("p", "lam")}
SHAPES = {"a matrix": (3, 6, 5), "a convolution": (3, 4, 2, 3, 3), "a bias": (3, 7)}
TAU = 0.1
LAM = 1e-3  # of a class that has no grid

Rule = Callable[[type[Regularizer]], str]


def check(cls: type[Regularizer]) -> Iterator[tuple[str, str]]:
    """Yield each rule's words and how `cls` breaks it, "" if it does not; the rest is left out if it cannot be called."""
    for rule in RULES:
        told = (rule.__doc__ or "").strip().rstrip(".")
        try:
            with torch.no_grad(), torch.random.fork_rng(devices=[]):
                broken = rule(cls)
        except Exception as error:  # a user's own code: anything can come out of it
            broken = f"{type(error).__name__}: {one_line(error)}"
        yield told, broken
        if broken and rule in FIRST:
            return


def require(name: str) -> None:
    """Raise UserError for the first rule that the regularizer called `name` breaks."""
    for rule, broken in check(regularizers.find(name)):
        if broken:
            raise UserError(
                f"reg={name!r} breaks a rule of regularizers: {rule}. Found: {broken}. "
                f"For all rules: python -m regbench check {name}"
            )


def is_callable(cls: type[Regularizer]) -> str:
    """The class is made without arguments, and its hooks take what they are given."""
    method = cls()
    for hook, names in HOOKS.items():
        try:
            inspect.signature(getattr(method, hook)).bind(*names)
        except TypeError as error:
            return f"{hook} is to be called as {hook}({', '.join(names)}): {error}"
    return ""


def runs(cls: type[Regularizer]) -> str:
    """The hooks run on matrices, convolutions and biases, also in float64."""
    for what, p, g, lam in _cases(cls):
        for kind in (torch.float32, torch.float64):
            try:
                _called(cls(), p.to(kind), g.to(kind), lam.to(kind))
            except Exception as error:
                return f"on {what} in {kind}: {type(error).__name__}: {one_line(error)}"
    return ""


def acts_in_place(cls: type[Regularizer]) -> str:
    """add_grad changes g, after_step changes p, in place; they return nothing and change nothing else."""
    acted = False
    for what, p, g, lam in _cases(cls):
        method, old_p, old_g, old_lam = cls(), p.clone(), g.clone(), lam.clone()
        if method.add_grad(p, g, lam) is not None or method.after_step(p.clone(), lam, TAU) is not None:
            return f"a hook returns something on {what}; write p.mul_(...) or p[...] = ..., and return nothing"
        if not torch.equal(p, old_p):
            return f"add_grad changes p on {what}"
        moved = p.clone()
        method.after_step(moved, lam, TAU)
        acted |= not lam.any() or not torch.equal(g, old_g) or not torch.equal(moved, p)
        method.value(p, lam)
        if not torch.equal(p, old_p):
            return f"value changes p on {what}"
        if not torch.equal(lam, old_lam):
            return f"lam is changed on {what}"
    return "" if acted else "neither add_grad nor after_step changes anything (names misspelt, or not in place?)"


def adds(cls: type[Regularizer]) -> str:
    """add_grad adds to g, the same whatever is in g."""
    for what, p, g, lam in _cases(cls):
        p, g, lam = p.double(), g.double(), lam.double()
        added, both = torch.zeros_like(g), g.clone()
        cls().add_grad(p, added, lam)
        cls().add_grad(p, both, lam)
        if not torch.allclose(both, g + added, rtol=1e-6, atol=1e-9 * _size(added)):
            return f"on {what} it is not g plus what a g of zeros becomes"
    return ""


def has_shapes(cls: type[Regularizer]) -> str:
    """value returns the penalty of each trial, [K], or a plain number; shapes stay as they are."""
    for what, p, g, lam in _cases(cls):
        for rows in (slice(None), slice(1)):
            here, slope = p[rows].clone(), g[rows].clone()
            shape = here.shape
            value = _called(cls(), here, slope, lam[rows])
            if not isinstance(value, Tensor | int | float):
                return f"value returns {type(value).__name__} on {what}"
            if isinstance(value, Tensor) and value.shape != shape[:1]:
                return f"value returns shape {list(value.shape)} on {what} {list(shape)}, expected {list(shape[:1])}"
            if here.shape != shape or slope.shape != shape:
                return f"p or g has another shape afterwards on {what}"
    return ""


def leaves_lam_zero(cls: type[Regularizer]) -> str:
    """A row whose lam is 0 is left bitwise as it is, beside rows that are not."""
    for what, p, g, lam in _cases(cls):
        lam[1] = 0
        p[1].view(-1)[:2] = 0
        for filled in ("", " of zeros"):
            if filled:
                p[1] = 0
            moved, slope = p.clone(), g.clone()
            value = _called(cls(), moved, slope, lam)
            if not torch.equal(slope[1], g[1]):
                return f"g is changed on {what}{filled}"
            if not torch.equal(moved[1], p[1]):
                return f"p is changed on {what}{filled}"
            if isinstance(value, Tensor) and value[1] != 0:
                return f"the value is {value[1].item():g} on {what}{filled}"
    return ""


def keeps_rows_apart(cls: type[Regularizer]) -> str:
    """A row does not notice what is in the others, not even NaN or infinity."""
    for what, p, g, lam in _cases(cls):
        before, other_lam = _results(cls(), p, g, lam), lam.clone()
        other_lam[1] = 3 * lam[1]
        for filled in (0.5, torch.nan, torch.inf):
            other_p, other_g = p.clone(), g.clone()
            other_p[1] = other_g[1] = filled
            after = _results(cls(), other_p, other_g, other_lam)
            for name, first, second in zip(("p", "g", "value"), before, after, strict=True):
                if not torch.equal(first[[0, 2]], second[[0, 2]]):
                    return f"{name} of the other rows changes with a row of {filled:g} on {what}"
    return ""


def is_same_alone(cls: type[Regularizer]) -> str:
    """One trial alone (K = 1) is treated as in a stack."""
    for what, p, g, lam in _cases(cls):
        together = _results(cls(), p, g, lam)
        for row in range(len(p)):
            one = slice(row, row + 1)
            alone = _results(cls(), p[one], g[one], lam[one])
            for name, first, second in zip(("p", "g", "value"), together, alone, strict=True):
                if not torch.allclose(first[one], second, rtol=1e-5, atol=1e-6 * _size(first), equal_nan=True):
                    return f"{name} differs on {what}"
    return ""


def is_finite_at_zero(cls: type[Regularizer]) -> str:
    """Weights that are all zero give finite results."""
    for what, p, g, lam in _cases(cls):
        for name, found in zip(("p", "g", "value"), _results(cls(), 0 * p, 0 * g, lam), strict=True):
            if not found.isfinite().all():
                return f"{name} has {found[~found.isfinite()][0].item():g} on {what}"
    return ""


def is_deterministic(cls: type[Regularizer]) -> str:
    """The same call gives the same result, whatever was called before."""
    for what, p, g, lam in _cases(cls):
        method = cls()
        first, second, fresh = (_results(m, p, g, lam) for m in (method, method, cls()))
        for name, *found in zip(("p", "g", "value"), first, second, fresh, strict=True):
            if not all(torch.equal(a, b) for a, b in pairwise(found)):
                return f"{name} differs from call to call on {what}; hooks must not draw random numbers or keep a state"
    return ""


def is_elementwise_if_it_says_so(cls: type[Regularizer]) -> str:
    """With elementwise = True, a part of the weights is treated as in the whole."""
    if not cls.elementwise:
        return ""
    for what, p, g, lam in _cases(cls):
        for name, whole, part in zip(
            ("p", "g"), _results(cls(), p, g, lam), _results(cls(), p[:, :2], g[:, :2], lam), strict=False
        ):
            if not torch.allclose(whole[:, :2], part, rtol=1e-5, atol=1e-6 * _size(whole)):
                return f"{name} of the first two rows differs on {what}; leave elementwise out"
    return ""


# without these the others would only repeat what is wrong
FIRST = (is_callable, runs)
RULES: tuple[Rule, ...] = (
    *FIRST,
    acts_in_place,
    adds,
    has_shapes,
    leaves_lam_zero,
    keeps_rows_apart,
    is_same_alone,
    is_finite_at_zero,
    is_deterministic,
    is_elementwise_if_it_says_so,
)


def _cases(cls: type[Regularizer]) -> Iterator[tuple[str, Tensor, Tensor, Tensor]]:
    """Yield words, p, g and lam [K, 1, ...] of each shape; lams are the smallest, middle and largest of the grid."""
    lams = sorted(getattr(cls, "lams", None) or (LAM,))
    strengths = [float(lams[0]), float(lams[len(lams) // 2]), float(lams[-1])]
    generator = torch.Generator().manual_seed(0)
    for what, shape in SHAPES.items():
        p, g = (torch.randn(shape, generator=generator) for _ in range(2))
        yield what, p, g, torch.tensor(strengths).view(-1, *(1,) * (len(shape) - 1))


def _called(method: Regularizer, p: Tensor, g: Tensor, lam: Tensor) -> Tensor | float:
    """Call the hooks as a training step does, in place; return the value."""
    value = method.value(p, lam)
    method.add_grad(p, g, lam)
    method.after_step(p, lam, TAU)
    return value


def _results(method: Regularizer, p: Tensor, g: Tensor, lam: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return p, g and value [K] of a step on copies."""
    p, g = p.clone(), g.clone()
    value = _called(method, p, g, lam.clone())
    return p, g, torch.as_tensor(value, dtype=p.dtype).expand(len(p))


def _size(x: Tensor) -> float:
    """Return the largest absolute value, 1 if there is none above 0: the scale of a tolerance."""
    return x.abs().max().item() or 1.0
