"""Which of a network's trained parameters a scope selects: what is regularized."""

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

from torch import Tensor, nn

from regbench import networks
from regbench.errors import UserError
from regbench.training import normalization
from regbench.training.randomness import initial_model
from regbench.trial import SCOPES, Trial

# names that are shown
MOST_NAMES = 20
MOST_LEFT_OUT = 4


def selected(scope: str, model: nn.Module) -> dict[str, bool]:
    """Return for each trained parameter of a network, by its name, whether it is in a scope.

    weights: those of two dimensions and more. all: every one. no_norm: every one but the weights and biases of torch's
    normalization layers (normalization.LAYERS), which scale what is normalized. Else a comma list of patterns as of
    fnmatch, of names as `named_parameters` gives them. A regularizer of what dense layers take in, or of the loss, is not
    asked for a scope.
    """
    parameters = _trained(model)
    if scope == "weights":
        return {name: p.ndim >= 2 for name, p in parameters.items()}
    if scope == "all":
        return dict.fromkeys(parameters, True)
    if scope == "no_norm":
        norms = normalization.parameters(model)
        return {name: name not in norms for name in parameters}
    return {name: any(fnmatchcase(name, pattern) for pattern in scope.split(",")) for name in parameters}


def covered(trials: Sequence[Trial], model: nn.Module) -> dict[str, list[bool]]:
    """Return for each scope of `trials`, whose network this is, which of the trained parameters it has, in their order."""
    return {scope: list(selected(scope, model).values()) for scope in dict.fromkeys(trial.scope for trial in trials)}


def check(scope: str, spec: str, num_classes: int) -> tuple[str, ...]:
    """Return the names of the parameters in a scope; see `networks.build` for `spec`.

    Raises UserError if a pattern matches none that is trained.
    """
    model = _in_training(spec, num_classes)
    names = list(_trained(model))
    for pattern in () if scope in SCOPES else scope.split(","):
        if not any(fnmatchcase(name, pattern) for name in names):
            raise UserError(
                f"scope={scope!r}: {pattern!r} matches no parameter of model={spec!r}; accepted: {', '.join(SCOPES)}, or "
                f"patterns of {_some(names, MOST_NAMES)}"
            )
    return tuple(name for name, chosen in selected(scope, model).items() if chosen)


def describe(scope: str, spec: str, num_classes: int) -> str:
    """Return what a scope has of a network, and what it leaves out, in tensors and numbers."""
    model = _in_training(spec, num_classes)
    parameters, chosen = _trained(model), selected(scope, model)
    inside, outside = (
        {name: parameters[name] for name in parameters if chosen[name] is wanted} for wanted in (True, False)
    )
    left_out = f"; left out {_count(outside)} ({_some(list(outside), MOST_LEFT_OUT)})" if outside else ""
    return f"scope {scope}: {_count(inside, ' weights')}{left_out}"


def _in_training(spec: str, num_classes: int) -> nn.Module:
    model = initial_model(spec, num_classes, 0)
    networks.set_mode(model, True)  # some freeze a part there
    return model


def _trained(model: nn.Module) -> dict[str, Tensor]:
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def _count(parameters: Mapping[str, Tensor], what: str = "") -> str:
    tensors = "1 tensor" if len(parameters) == 1 else f"{len(parameters)} tensors"
    return f"{tensors} with {sum(p.numel() for p in parameters.values()):,}{what}"


def _some(names: Sequence[str], most: int) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f"{', '.join(names[:most])}{more}"
