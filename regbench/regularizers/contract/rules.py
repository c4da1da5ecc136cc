"""What a regularizer promises, as checks: `python -m regbench check pkg.module:Class`, and before a plug-in is trained.

A rule is a function of a class that returns how the class breaks it, "" if it does not. Weights are p [K, ...] as in
training: matrices, convolutions and, as with scope=all, biases, in float32, without autograd, and views of what is
trained, so that a hook that only gives the name p to another tensor is seen to do nothing.
"""

import inspect
import re
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from regbench import regularizers
from regbench.errors import UserError, one_line
from regbench.regularizers import Regularizer
from regbench.regularizers.combination import Combination
from regbench.regularizers.contract import hook_calls

SLOPE = 1e-3  # by which add_grad may differ from the gradient of value, relative to the largest

ALONE = "write one_by_one = True in the class, whose hooks are then called for one trial at a time, K = 1"
BOUNDED = "keep it finite, as by clamp(min=1e-12) of what is divided by or taken the root or logarithm of"
# pattern of an error -> what to write instead
HINTS = {
    r"converted to (a )?(Python )?scalar|Boolean value of Tensor|only one element tensors|only 0-dimensional": (
        f"lam is [K, 1, ...] and p is [K, ...], of K trials: calculate with them as they are, or {ALONE}"
    ),
    r"return a scalar tensor": "penalty returns one number: sum it up, as in w.abs().sum()",
    r"does not require grad": (
        "hooks are called without autograd: differentiate p.detach().requires_grad_() in `with torch.enable_grad():`"
    ),
    r"(same|expected) device|not compiled with CUDA|no NVIDIA driver|CUDA-capable": (
        "make tensors where p is, as in torch.zeros(3, device=p.device)"
    ),
    r"dtype|scalar type": "make tensors of p's type, as in torch.zeros(3, dtype=p.dtype)",
    r"'NoneType' object has no attribute|NoneType.* and 'Tensor'|'Tensor' and 'NoneType'": (
        "weights have no .grad here: the gradient is g, as in g.add_(...)"
    ),
    r"Dimension out of range|too many values to unpack|not enough values to unpack|at least 2 dim|2D tensor": (
        "p is [K, ...], a bias [K, n] with scope=all, and h is [K, N, ...]: take flatten(1), and return where p.ndim is "
        "not what a hook is for"
    ),
}

# hooks and attributes of earlier versions, which would be ignored silently
RENAMED = {"hidden": "dense_input", "share": "target_sparsity", "score": "importance", "below": "lam_upper_bound"}

# hook -> the argument that it changes in place
CHANGED = {"add_grad": "g", "before_step": "p", "after_step": "p"}

Rule = Callable[[type[Regularizer]], str]


def check(cls: type[Regularizer], rules: Sequence[Rule] | None = None) -> Iterator[tuple[str, str]]:
    """Yield the text of each rule (None: of all) and how `cls` breaks it, "" if it does not.

    The rest is left out if it cannot be called.
    """
    for rule in RULES if rules is None else rules:
        # python -OO leaves docstrings out
        words = (rule.__doc__ or rule.__name__.replace("_", " ")).strip().rstrip(".")
        try:
            with torch.no_grad(), torch.random.fork_rng(devices=[]):
                broken = rule(cls)
        except (Exception, SystemExit) as error:  # a user's own code: anything can come out of it
            broken = _format(error)
        yield words, broken
        if broken and rule in FIRST:
            return


def require(name: str, device: str = "cpu", rules: Sequence[Rule] | None = None) -> None:
    """Raise UserError for the first rule that the regularizer called `name` breaks, or if it does not run on `device`.

    Without `rules` they are those that hold with every optimizer.
    """
    cls = regularizers.find(name)
    for rule, broken in check(cls, ALWAYS if rules is None else rules):
        if broken:
            raise UserError(
                f"reg={name!r} breaks a rule of regularizers: {rule}. Found: {broken}. "
                f"For all rules: python -m regbench check {name}"
            )
    if device != "cpu":
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            broken = _first_error(cls, torch.device(device))
        if broken:
            raise UserError(f"reg={name!r} does not run on device={device}: {broken}")


def has_grid(cls: type[Regularizer]) -> str:
    """Its lams, if it has any, are different numbers above 0 and less than lam_upper_bound."""
    if getattr(cls, "lams", None) is None:
        return ""
    try:
        regularizers.grid(cls, cls.__name__)
    except UserError as error:
        return str(error)
    return ""


def is_callable(cls: type[Regularizer]) -> str:
    """The class is made without arguments, and its hooks take what they are given."""
    try:
        method = cls()
    except TypeError as error:
        return (
            f"{_format(error)}; it is made as {cls.__name__}(): give arguments a default, and abstract methods a body"
        )
    for old, new in RENAMED.items():
        if hasattr(cls, old):
            return f"{old} is called {new} now; rename it"
    for hook, names in hook_calls.HOOKS.items():
        if hook in getattr(method, "__dict__", {}):
            return f"{hook} is given to the instance; write it as a method of the class"
        called = getattr(method, hook)
        if any(kind(called) for kind in (inspect.iscoroutinefunction, inspect.isgeneratorfunction)):
            return f"{hook} is async or yields, so that calling it does nothing; write it without"
        try:
            inspect.signature(called).bind(*names)
        except TypeError as error:
            return f"{hook} is to be called as {hook}({', '.join(names)}): {error}"
    return ""


def runs(cls: type[Regularizer]) -> str:
    """The hooks run on matrices, convolutions and biases, also in float64."""
    return _first_error(cls, torch.device("cpu"))


def acts_in_place(cls: type[Regularizer]) -> str:
    """add_grad changes g, before_step and after_step p, in place; they return nothing, and no hook changes more."""
    own = {hook for hook in hook_calls.HOOKS if cls.has(hook)}
    if cls is not regularizers.REGISTRY[regularizers.BASELINE] and own <= {"value", "importance"}:
        return _missing_hooks(cls, own)
    if "before_step" in own and "after_step" not in own:
        return "before_step is for optimizer=adam alone, in place of after_step; write after_step too, for the others"
    acted: set[str] = set()
    for what, p, g, lam in hook_calls.cases(cls, hook_calls.SCALES, hook_calls.SHAPES | hook_calls.LARGE):
        method, old_p, old_g, old_lam = cls(), p.clone(), g.clone(), lam.clone()
        returned = {"add_grad": hook_calls.call_on_views(method.add_grad, p, g, lam)}
        if not torch.equal(p, old_p):
            return f"add_grad changes p on {what}"
        early, moved = p.clone(), p.clone()
        returned["before_step"] = hook_calls.call_on_views(method.before_step, early, lam, hook_calls.LR)
        returned["after_step"] = hook_calls.call_on_views(method.after_step, moved, lam, hook_calls.TAU)
        for hook, found in returned.items():
            if found is not None:
                name = CHANGED[hook]
                return (
                    f"{hook} returns a {type(found).__name__} on {what}, which is not used; write {name}.add_(...) or "
                    f"{name}[...] = ..., and return nothing"
                )
        given = hook_calls.network(p)
        copies = [x.clone() for x in given]
        others = hook_calls.network_hooks(method, given, p, lam)
        method.value(p[:], lam)
        if not torch.equal(p, old_p):
            return f"value or importance changes p on {what}"
        if not all(torch.equal(x, old) for x, old in zip(given, copies, strict=True)):
            return f"dense_input, augment or add_loss changes what it is given on {what}"
        if not torch.equal(lam, old_lam):
            return f"lam is changed on {what}"
        seen = {
            "add_grad": not torch.equal(g, old_g),
            "penalty": not torch.equal(g, old_g),
            "before_step": not torch.equal(early, p),
            "after_step": not torch.equal(moved, p),
            "add_loss": bool(others["loss"].any()),
            "dense_input": not torch.equal(others["dense_input"], given[0]),
            "augment": not all(torch.equal(others[name], x) for name, x in hook_calls.batch(given).items()),
            "target_sparsity": bool(others["target_sparsity"].any()),
        }
        acted |= {hook for hook, did in seen.items() if did}
    for hook, name in CHANGED.items():
        if hook in own - acted:
            return (
                f"{hook} does not change {name}; write {name}.add_(...), {name}.mul_(...) or {name}[...] = ..., since "
                f"{name} = ... and {name}.data = ... change another tensor, or leave it out"
            )
    for hook in ("penalty", "add_loss", "dense_input", "augment", "target_sparsity"):
        if hook in own - acted:
            return f"{hook} changes nothing; leave it out"
    return ""


def adds(cls: type[Regularizer]) -> str:
    """add_grad adds to g, the same whatever is in g."""
    for what, p, g, lam in hook_calls.cases(cls):
        p, g, lam = p.double(), g.double(), lam.double()
        added, both = torch.zeros_like(g), g.clone()
        hook_calls.call_on_views(cls().add_grad, p, added, lam)
        hook_calls.call_on_views(cls().add_grad, p, both, lam)
        if not torch.allclose(both, g + added, rtol=1e-6, atol=1e-9 * _size(added)):
            return f"on {what} it is not g plus what a g of zeros becomes"
    return ""


def has_shapes(cls: type[Regularizer]) -> str:
    """penalty returns a number; value, add_loss and target_sparsity one for each trial, [K]; other shapes stay."""
    for what, p, g, lam in hook_calls.cases(cls):
        found = cls().penalty(p[0])
        if not isinstance(found, int | float) and getattr(found, "shape", None) != ():
            shown = f"shape {list(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
            return f"penalty returns {shown} on {what}, expected one number: sum it up, as in w.abs().sum()"
        for rows in (slice(None), slice(1)):
            here, slope, method = p[rows].clone(), g[rows].clone(), cls()
            shape, given = here.shape, hook_calls.arguments(here, slope, lam[rows])
            # of one trial a number without an axis is as good
            fitting = (shape[:1], ()) if cls.one_by_one else (shape[:1],)
            numbers = {hook: getattr(method, hook)(*given[hook]) for hook in ("value", "add_loss", "target_sparsity")}
            hook_calls.step(method, here, slope, lam[rows])
            for hook, found in numbers.items():
                if not isinstance(found, Tensor | int | float):
                    return f"{hook} returns {type(found).__name__} on {what}, expected a tensor {list(shape[:1])}"
                if isinstance(found, Tensor) and found.shape not in fitting:
                    return (
                        f"{hook} returns shape {list(found.shape)} on {what} {list(shape)}, expected {list(shape[:1])}"
                    )
            if here.shape != shape or slope.shape != shape:
                return f"p or g has another shape afterwards on {what}"
            for hook in ("dense_input", "importance"):
                like, found = given[hook][0], getattr(method, hook)(*given[hook])
                if not isinstance(found, Tensor) or found.shape != like.shape:
                    shown = list(found.shape) if isinstance(found, Tensor) else type(found).__name__
                    return f"{hook} returns {shown} for {list(like.shape)}"
            like, found = given["augment"][:2], method.augment(*given["augment"])
            shapes = [list(x.shape) for x in like]
            if not isinstance(found, tuple | list) or [list(getattr(x, "shape", ())) for x in found] != shapes:
                return f"augment returns {_shown(found)}, expected images and targets, tensors {shapes}"
    return ""


def has_shares(cls: type[Regularizer]) -> str:
    """target_sparsity returns 0 to 1, whatever part of the epochs is over."""
    for what, _, _, lam in hook_calls.cases(cls):
        for done in hook_calls.DONE:
            share = torch.as_tensor(cls().target_sparsity(lam.flatten(), done)).flatten()
            wrong = share[~((share >= 0) & (share <= 1))]
            if len(wrong):
                return f"it is {wrong[0].item():g} when {done:.0%} of the epochs are over, on {what}"
    return ""


def is_differentiable(cls: type[Regularizer]) -> str:
    """What add_loss and dense_input return can be differentiated."""
    for what, p, g, lam in hook_calls.cases(cls):
        given = hook_calls.arguments(p, g, lam)
        with torch.enable_grad():
            for hook in filter(cls.has, ("add_loss", "dense_input")):
                x = given[hook][0].requires_grad_()
                found = getattr(cls(), hook)(*given[hook])
                if not (isinstance(found, Tensor) and found.requires_grad):
                    return f"{hook} on {what} is cut off from its input (a detach, an item, or a change in place?)"
                (slope,) = torch.autograd.grad(found.sum(), x)
                if not slope.isfinite().all():
                    return f"the gradient of {hook} has {slope[~slope.isfinite()][0].item():g} on {what}"
    return ""


def leaves_lam_zero(cls: type[Regularizer]) -> str:
    """A row whose lam is 0 is left bitwise as it is, beside rows that are not."""
    if cls.one_by_one:  # and its hooks are not called at lam 0
        return ""
    times = "multiply what is done with lam, or choose by torch.where(lam > 0, ..., ...)"
    for what, p, g, lam in hook_calls.cases(cls):
        lam[1] = 0
        p[1].view(-1)[:2] = 0
        for filled in ("", " of zeros"):
            if filled:
                p[1] = 0
            found, given = (
                hook_calls.results(cls(), p, g, lam),
                {"p": p, "p before Adam's step": p, "g": g, "dense_input": hook_calls.network(p)[0]}
                | hook_calls.batch(hook_calls.network(p)),
            )
            for name, before in given.items():
                if found[name][1].isnan().any():
                    return f"{name} becomes NaN on {what}{filled}, as 0 times infinity does; {BOUNDED}"
                if not torch.equal(found[name][1], before[1]):
                    return f"{name} is changed on {what}{filled}; {times}"
            for name in ("value", "loss", "target_sparsity"):
                if found[name][1] != 0:
                    return f"the {name} is {found[name][1].item():g} on {what}{filled}; {times}"
    return ""


def keeps_rows_apart(cls: type[Regularizer]) -> str:
    """A row does not notice what is in the others, not even NaN or infinity."""
    if cls.one_by_one:
        return ""
    for what, p, g, lam in hook_calls.cases(cls):
        before, other_lam = hook_calls.results(cls(), p, g, lam), lam.clone()
        other_lam[1] = 3 * lam[1]
        for filled in (0.5, torch.nan, torch.inf):
            other_p, other_g = p.clone(), g.clone()
            other_p[1] = other_g[1] = filled
            try:
                after = hook_calls.results(cls(), other_p, other_g, other_lam)
            except Exception as error:
                return (
                    f"a row of {filled:g} on {what} gives {_format(error)}; make what is not finite finite first, as by "
                    f"torch.nan_to_num, or {ALONE}"
                )
            for name, first in before.items():
                if not torch.equal(first[[0, 2]], after[name][[0, 2]]):
                    return (
                        f"{name} of the other rows changes with a row of {filled:g} on {what}; do not sum over the first "
                        f"axis, or {ALONE}"
                    )
    return ""


def is_same_alone(cls: type[Regularizer]) -> str:
    """One trial alone (K = 1) is treated as in a stack."""
    if cls.one_by_one:
        return ""
    for what, p, g, lam in hook_calls.cases(cls):
        together = hook_calls.results(cls(), p, g, lam)
        for row in range(len(p)):
            one = slice(row, row + 1)
            alone = hook_calls.results(cls(), p[one], g[one], lam[one])
            for name, first in together.items():
                if not torch.allclose(first[one], alone[name], rtol=1e-5, atol=1e-6 * _size(first), equal_nan=True):
                    return f"{name} differs on {what}; do not let the number of rows matter, or {ALONE}"
    return ""


def is_finite(cls: type[Regularizer]) -> str:
    """Finite weights give finite results, also where all are zero."""
    for what, p, g, lam in hook_calls.cases(cls):
        for factor, filled in ((1, ""), (0, " of zeros")):
            for name, found in hook_calls.results(cls(), factor * p, factor * g, lam).items():
                if not found.isfinite().all():
                    return f"{name} has {found[~found.isfinite()][0].item():g} on {what}{filled}; {BOUNDED}"
    return ""


def is_deterministic(cls: type[Regularizer]) -> str:
    """The same call gives the same result, whatever was called before."""
    for what, p, g, lam in hook_calls.cases(cls):
        method, random = cls(), torch.get_rng_state()
        # as it may be in an epoch before, where a schedule had another learning rate
        hook_calls.results(method, 1 - p, g, lam, seed=2, tau=hook_calls.OTHER_TAU)
        found = [hook_calls.results(m, p, g, lam) for m in (method, method, cls())]
        if not torch.equal(torch.get_rng_state(), random):
            return f"torch's random state changes on {what}; hooks must not draw random numbers, nor set the seed"
        for name in found[0]:
            if not all(torch.equal(a[name], b[name]) for a, b in pairwise(found)):
                return f"{name} differs from call to call on {what}; hooks must not draw random numbers or keep a state"
    return ""


def matches_value(cls: type[Regularizer]) -> str:
    """add_grad adds the gradient of value, or of penalty, where there are both and no after_step that value may be of."""
    # in a combination one may add to the gradient what is not in the value, as `weight_decay` does
    classes = [part for part, _ in cls.parts] if issubclass(cls, Combination) else [cls]
    if cls.has("after_step") or not all(
        (one.has("add_grad") and one.has("value")) or one.has("penalty") for one in classes
    ):
        return ""
    for what, p, g, lam in hook_calls.cases(cls, (1.0, 0.05)):
        # away from 0, where |w| has no gradient
        p, lam, added = p.double() + 0.01 * p.double().sign(), lam.double(), torch.zeros_like(g).double()
        expected = hook_calls.slope(cls(), p, lam)
        if expected is None:
            continue
        hook_calls.call_on_views(cls().add_grad, p, added, lam)
        # the rows have lams of their own
        allowed = SLOPE * expected.abs().flatten(1).amax(1).view(lam.shape)
        wrong = (added - expected).abs() > allowed
        if wrong.any():
            index = tuple(wrong.nonzero()[0])
            return (
                f"on {what} add_grad adds {added[index].item():g} at a weight of {p[index].item():g}, where value rises "
                f"by {expected[index].item() + 0.0:g} per 1; correct one of them, or leave value out"
            )
    return ""


def is_elementwise_if_it_says_so(cls: type[Regularizer]) -> str:
    """With elementwise = True, a part of the weights is treated as in the whole, and values add up."""
    if not cls.elementwise:
        return ""
    for what, p, g, lam in hook_calls.cases(cls, shapes=hook_calls.SHAPES | hook_calls.LARGE):
        whole, parted, added, values = hook_calls.results(cls(), p, g, lam), p.clone(), g.clone(), []
        for rows in (slice(2), slice(2, None)):
            values.append(torch.as_tensor(hook_calls.step(cls(), parted[:, rows], added[:, rows], lam), dtype=p.dtype))
        for name, found in (("p", parted), ("g", added)):
            if not torch.allclose(whole[name], found, rtol=1e-5, atol=1e-6 * _size(whole[name])):
                return f"{name} differs on {what} if it comes in two parts; leave elementwise out"
        if not torch.allclose(whole["value"], sum(values), rtol=1e-4, equal_nan=True):
            return f"value is not the sum of those of two parts on {what}; leave elementwise out"
    return ""


def takes_a_tau_per_weight(cls: type[Regularizer]) -> str:
    """Where it goes with optimizer=adam, after_step takes a tau for each weight, a tensor as p; a projection needs none."""
    if issubclass(cls, Combination):
        return next(filter(None, (takes_a_tau_per_weight(part) for part, _ in cls.parts)), "")
    if not (cls.acts_after_adam() and cls.goes_with_adam()):
        return ""
    for what, p, _, lam in hook_calls.cases(cls):
        near, far = (hook_calls.stepped(cls(), p, lam, tau) for tau in (hook_calls.OTHER_TAU, hook_calls.TAU))
        if cls.projection and not cls.elementwise:
            if not torch.equal(near, far):
                return f"p goes by tau on {what}; leave projection out"
            continue
        every_other = (torch.arange(p.numel(), device=p.device) % 2 == 0).view_as(p)
        tau = torch.where(every_other, hook_calls.OTHER_TAU, hook_calls.TAU).to(p)
        try:
            mixed = hook_calls.stepped(cls(), p, lam, tau)
        except Exception as error:
            return (
                f"{type(error).__name__}: {one_line(error)} on {what}; calculate with tau as with lam, as in tau * lam"
            )
        if not torch.allclose(mixed, torch.where(every_other, near, far), rtol=1e-5, atol=1e-6 * _size(p)):
            return f"p differs on {what} from what each weight's own tau gives; calculate with tau as with lam"
    return ""


# without these the others would only repeat what is wrong
FIRST = (has_grid, is_callable, runs, has_shapes)
# of all optimizers
ALWAYS: tuple[Rule, ...] = (
    *FIRST,
    # next those that, if broken, break others too, which would suggest another cause
    is_finite,
    is_deterministic,
    acts_in_place,
    adds,
    has_shares,
    is_differentiable,
    keeps_rows_apart,
    is_same_alone,
    leaves_lam_zero,
    matches_value,
    is_elementwise_if_it_says_so,
)
WITH_ADAM: tuple[Rule, ...] = (takes_a_tau_per_weight,)
RULES = ALWAYS + WITH_ADAM


def _first_error(cls: type[Regularizer], device: torch.device) -> str:
    """Return the first error of any hook on tensors there, and which and where; "" if there is none."""
    for what, p, g, lam in hook_calls.cases(cls):
        for kind in (torch.float32, torch.float64):
            given = (x.to(device, kind) for x in (p, g, lam))
            for hook, arguments in hook_calls.arguments(*given).items():
                try:
                    hook_calls.call_on_views(getattr(cls(), hook), *arguments)
                except (Exception, SystemExit) as error:
                    return f"{hook} on {what} in {kind}: {_format(error)}"
    return ""


def _missing_hooks(cls: type[Regularizer], own: set[str]) -> str:
    """Return what a class that cannot change anything should have."""
    if "value" in own:
        return (
            "value is only for the log; write penalty(self, w) in its place, as in `return w.abs().sum()`: one network's "
            "tensor w, no lam, and autograd takes its gradient; or add_grad(self, p, g, lam) too, which adds it to g"
        )
    names = [name for name in dir(cls) if not hasattr(Regularizer, name) and callable(getattr(cls, name))]
    found = ", ".join(names) or "no methods"
    return f"no hook changes anything (names misspelt?): it has {found}; hooks are {', '.join(hook_calls.HOOKS)}"


def _format(error: BaseException) -> str:
    """Return an error on one line, with what to write instead where that is known."""
    text = f"{type(error).__name__}: {one_line(error)}"
    hints = [hint for pattern, hint in HINTS.items() if re.search(pattern, text, re.IGNORECASE)]
    return f"{text} ({hints[0]})" if hints else text


def _shown(found: object) -> str:
    """Return the shapes of what a hook returns, or their types."""
    if not isinstance(found, tuple | list):
        return f"a {type(found).__name__}"
    return f"[{', '.join(str(list(x.shape)) if isinstance(x, Tensor) else type(x).__name__ for x in found)}]"


def _size(x: Tensor) -> float:
    """Return the largest absolute value, 1 if there is none above 0: the scale of a tolerance."""
    return x.abs().max().item() or 1.0
