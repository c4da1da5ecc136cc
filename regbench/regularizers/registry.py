"""Which regularizers there are, by name."""

from regbench.errors import UserError
from regbench.regularizers.after_step import DecoupledWeightDecay, ElasticNet, GroupLasso, L1Prox, MaxNorm
from regbench.regularizers.base import Regularizer
from regbench.regularizers.gradient import L1, L2, Unregularized, WeightDecay

REGISTRY: dict[str, type[Regularizer]] = {
    cls.name: cls
    for cls in (
        Unregularized,
        L1,
        L2,
        WeightDecay,
        L1Prox,
        DecoupledWeightDecay,
        ElasticNet,
        GroupLasso,
        MaxNorm,
    )
}


def find(name: str) -> type[Regularizer]:
    """Return the regularizer called `name`; raises UserError if there is none."""
    if name not in REGISTRY:
        raise UserError(f"reg={name!r} is unknown; accepted: {', '.join(REGISTRY)}")
    return REGISTRY[name]
