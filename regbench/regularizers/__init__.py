"""Regularizers: one small class each, found by name."""

from regbench.regularizers.after_step import DecoupledWeightDecay, ElasticNet, GroupLasso, L1Prox, MaxNorm
from regbench.regularizers.base import Regularizer
from regbench.regularizers.gradient import L1, L2, HoyerSquare, Unregularized, WeightDecay
from regbench.regularizers.network import Dropout, LabelSmoothing
from regbench.regularizers.pruning import IterativeMagnitude, OneShot, RandomPruning
from regbench.regularizers.registry import (
    REGISTRY,
    accepted,
    check_lam,
    find,
    grid,
    is_known,
    is_plugin,
    own_lams,
    wrong_lam,
)

__all__ = [
    "L1",
    "L2",
    "REGISTRY",
    "DecoupledWeightDecay",
    "Dropout",
    "ElasticNet",
    "GroupLasso",
    "HoyerSquare",
    "IterativeMagnitude",
    "L1Prox",
    "LabelSmoothing",
    "MaxNorm",
    "OneShot",
    "RandomPruning",
    "Regularizer",
    "Unregularized",
    "WeightDecay",
    "accepted",
    "check_lam",
    "find",
    "grid",
    "is_known",
    "is_plugin",
    "own_lams",
    "wrong_lam",
]
