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

Rule = Callable[[type[Regularizer]], str]


def check(cls: type[Regularizer]) -> Iterator[tuple[str, str]]:
    """Yield each rule's words and how `cls` breaks it, "" if it does not; the rest is left out if it cannot be called."""
    for rule in RULES:
        told = (rule.__doc__ or rule.__name__.replace("_", " ")).strip().rstrip(".")  # python -OO leaves docstrings out
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
            for hook, given in _arguments(p.to(kind), g.to(kind), lam.to(kind)).items():
                try:
                    getattr(cls(), hook)(*given)
                except Exception as error:
                    return f"{hook} on {what} in {kind}: {type(error).__name__}: {one_line(error)}"
    return ""


def acts_in_place(cls: type[Regularizer]) -> str:
    """add_grad changes g, after_step changes p, in place; they return nothing, and no hook changes anything else."""
    acted = False
    for what, p, g, lam in _cases(cls):
        method, old_p, old_g, old_lam = cls(), p.clone(), g.clone(), lam.clone()
        if method.add_grad(p, g, lam) is not None or method.after_step(p.clone(), lam, TAU) is not None:
            return f"a hook returns something on {what}; write p.mul_(...) or p[...] = ..., and return nothing"
        if not torch.equal(p, old_p):
            return f"add_grad changes p on {what}"
        moved = p.clone()
        method.after_step(moved, lam, TAU)
        given = _network(p)
        kept = [x.clone() for x in given]
        loss, hidden, share, _ = _network_hooks(method, given, p, lam)
        acted |= not lam.any() or not torch.equal(g, old_g) or not torch.equal(moved, p)
        acted |= bool(loss.any()) or not torch.equal(hidden, given[0]) or bool(share.any())
        method.value(p, lam)
        if not torch.equal(p, old_p):
            return f"value or score changes p on {what}"
        if not all(torch.equal(x, old) for x, old in zip(given, kept, strict=True)):
            return f"hidden or add_loss changes what it is given on {what}"
        if not torch.equal(lam, old_lam):
            return f"lam is changed on {what}"
    return "" if acted else "no hook changes anything (names misspelt, or not in place?)"


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
    """value, add_loss and share return a number for each trial, [K], or a plain one; other shapes stay as they are."""
    for what, p, g, lam in _cases(cls):
        for rows in (slice(None), slice(1)):
            here, slope, method = p[rows].clone(), g[rows].clone(), cls()
            shape, some, (h, logits, labels, uniform, chance) = here.shape, lam[rows], _network(here)
            numbers = {
                "value": method.value(here, some),
                "add_loss": method.add_loss(logits, labels, _column(some, logits)),
                "share": method.share(some.flatten(), DONE[-1]),
            }
            _called(method, here, slope, some)
            for hook, found in numbers.items():
                if not isinstance(found, Tensor | int | float):
                    return f"{hook} returns {type(found).__name__} on {what}"
                if isinstance(found, Tensor) and found.shape != shape[:1]:
                    return (
                        f"{hook} returns shape {list(found.shape)} on {what} {list(shape)}, expected {list(shape[:1])}"
                    )
            if here.shape != shape or slope.shape != shape:
                return f"p or g has another shape afterwards on {what}"
            for hook, found, like in (
                ("hidden", method.hidden(h, _column(some, h), uniform), h),
                ("score", method.score(here, chance), here),
            ):
                if not isinstance(found, Tensor) or found.shape != like.shape:
                    shown = list(found.shape) if isinstance(found, Tensor) else type(found).__name__
                    return f"{hook} returns {shown} for {list(like.shape)}"
    return ""


def has_shares(cls: type[Regularizer]) -> str:
    """share returns 0 to 1, whatever part of the epochs is over."""
    for what, _, _, lam in _cases(cls):
        for done in DONE:
            share = torch.as_tensor(cls().share(lam.flatten(), done)).flatten()
            wrong = share[~((share >= 0) & (share <= 1))]
            if len(wrong):
                return f"it is {wrong[0].item():g} when {done:.0%} of the epochs are over, on {what}"
    return ""


def is_differentiable(cls: type[Regularizer]) -> str:
    """What add_loss and hidden return can be differentiated."""
    for what, p, _, lam in _cases(cls):
        h, logits, labels, uniform, _ = _network(p)
        with torch.enable_grad():
            h, logits = h.requires_grad_(), logits.requires_grad_()
            results = {
                "add_loss": (logits, cls().add_loss(logits, labels, _column(lam, logits))),
                "hidden": (h, cls().hidden(h, _column(lam, h), uniform)),
            }
            for hook, (x, found) in results.items():
                if not cls.has(hook):
                    continue
                if not (isinstance(found, Tensor) and found.requires_grad):
                    return f"{hook} on {what} is cut off from its input (a detach, an item, or a change in place?)"
                (slope,) = torch.autograd.grad(found.sum(), x)
                if not slope.isfinite().all():
                    return f"the gradient of {hook} has {slope[~slope.isfinite()][0].item():g} on {what}"
    return ""


def leaves_lam_zero(cls: type[Regularizer]) -> str:
    """A row whose lam is 0 is left bitwise as it is, beside rows that are not."""
    for what, p, g, lam in _cases(cls):
        lam[1] = 0
        p[1].view(-1)[:2] = 0
        for filled in ("", " of zeros"):
            if filled:
                p[1] = 0
            found, given = _results(cls(), p, g, lam), {"p": p, "g": g, "hidden": _network(p)[0]}
            for name, before in given.items():
                if not torch.equal(found[name][1], before[1]):
                    return f"{name} is changed on {what}{filled}"
            for name in ("value", "loss", "share"):
                if found[name][1] != 0:
                    return f"the {name} is {found[name][1].item():g} on {what}{filled}"
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
            for name, first in before.items():
                if not torch.equal(first[[0, 2]], after[name][[0, 2]]):
                    return f"{name} of the other rows changes with a row of {filled:g} on {what}"
    return ""


def is_same_alone(cls: type[Regularizer]) -> str:
    """One trial alone (K = 1) is treated as in a stack."""
    for what, p, g, lam in _cases(cls):
        together = _results(cls(), p, g, lam)
        for row in range(len(p)):
            one = slice(row, row + 1)
            alone = _results(cls(), p[one], g[one], lam[one])
            for name, first in together.items():
                if not torch.allclose(first[one], alone[name], rtol=1e-5, atol=1e-6 * _size(first), equal_nan=True):
                    return f"{name} differs on {what}"
    return ""


def is_finite_at_zero(cls: type[Regularizer]) -> str:
    """Weights that are all zero give finite results."""
    for what, p, g, lam in _cases(cls):
        for name, found in _results(cls(), 0 * p, 0 * g, lam).items():
            if not found.isfinite().all():
                return f"{name} has {found[~found.isfinite()][0].item():g} on {what}"
    return ""


def is_deterministic(cls: type[Regularizer]) -> str:
    """The same call gives the same result, whatever was called before."""
    for what, p, g, lam in _cases(cls):
        method = cls()
        _results(method, 1 - p, g, lam)
        calls = [_results(m, p, g, lam) for m in (method, method, cls())]
        for name in calls[0]:
            if not all(torch.equal(a[name], b[name]) for a, b in pairwise(calls)):
                return f"{name} differs from call to call on {what}; hooks must not draw random numbers or keep a state"
    return ""


def is_elementwise_if_it_says_so(cls: type[Regularizer]) -> str:
    """With elementwise = True, a part of the weights is treated as in the whole, and values add up."""
    if not cls.elementwise:
        return ""
    for what, p, g, lam in _cases(cls):
        whole, part, rest = (
            _results(cls(), p[:, rows], g[:, rows], lam) for rows in (slice(None), slice(2), slice(2, None))
        )
        for name in ("p", "g"):
            if not torch.allclose(whole[name][:, :2], part[name], rtol=1e-5, atol=1e-6 * _size(whole[name])):
                return f"{name} of the first two rows differs on {what}; leave elementwise out"
        if not torch.allclose(whole["value"], part["value"] + rest["value"], rtol=1e-4, equal_nan=True):
            return f"value is not the sum of those of two parts on {what}; leave elementwise out"
    return ""


# without these the others would only repeat what is wrong
FIRST = (is_callable, runs, has_shapes)
RULES: tuple[Rule, ...] = (
    *FIRST,
    acts_in_place,
    adds,
    has_shares,
    is_differentiable,
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


def _arguments(p: Tensor, g: Tensor, lam: Tensor) -> dict[str, tuple]:
    """Return what each hook is given."""
    h, logits, labels, uniform, chance = _network(p)
    return {
        "add_grad": (p, g.clone(), lam),
        "after_step": (p.clone(), lam, TAU),
        "value": (p, lam),
        "add_loss": (logits, labels, _column(lam, logits)),
        "hidden": (h, _column(lam, h), uniform),
        "share": (lam.flatten(), DONE[-1]),
        "score": (p, chance),
    }


def _called(method: Regularizer, p: Tensor, g: Tensor, lam: Tensor) -> Tensor | float:
    """Call the hooks as a training step does, in place; return the value."""
    value = method.value(p, lam)
    method.add_grad(p, g, lam)
    method.after_step(p, lam, TAU)
    return value


def _network(p: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return inputs of a dense layer [K, N, F], logits [K, N, C], labels [K, N], random numbers for the inputs and for p.

    The first two are made of what is in p. The random numbers are the same for each row, so that rows can be compared.
    """
    h = p[:, None].clone() if p.ndim < 3 else p.clone()
    logits = h.flatten(2)
    labels = torch.arange(logits.shape[1]).expand(len(p), -1) % logits.shape[2]
    generator = torch.Generator().manual_seed(1)
    uniform, chance = (torch.rand(x.shape[1:], generator=generator).expand(x.shape) for x in (h, p))
    return h, logits, labels, uniform, chance


def _network_hooks(method: Regularizer, given: tuple[Tensor, ...], p: Tensor, lam: Tensor) -> list[Tensor]:
    """Return the added loss [K], the hidden inputs, the share [K] and the scores."""
    h, logits, labels, uniform, chance = given
    loss = method.add_loss(logits, labels, _column(lam, logits))
    share = method.share(lam.flatten(), DONE[-1])
    numbers = [torch.as_tensor(x, dtype=p.dtype).expand(len(p)) for x in (loss, share)]
    return [numbers[0], method.hidden(h, _column(lam, h), uniform), numbers[1], method.score(p, chance)]


def _column(lam: Tensor, like: Tensor) -> Tensor:
    return lam.view(-1, *(1,) * (like.ndim - 1))


def _results(method: Regularizer, p: Tensor, g: Tensor, lam: Tensor) -> dict[str, Tensor]:
    """Return what a step makes of copies: p, g, value [K], and what the other hooks give."""
    p, g = p.clone(), g.clone()
    loss, hidden, share, score = _network_hooks(method, _network(p), p, lam)
    value = _called(method, p, g, lam.clone())
    value = torch.as_tensor(value, dtype=p.dtype).expand(len(p))
    return {"p": p, "g": g, "value": value, "loss": loss, "hidden": hidden, "share": share, "score": score}


def _size(x: Tensor) -> float:
    """Return the largest absolute value, 1 if there is none above 0: the scale of a tolerance."""
    return x.abs().max().item() or 1.0
