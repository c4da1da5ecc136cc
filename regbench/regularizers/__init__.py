"""Regularizers: one small class each, found by name."""

from regbench.regularizers.after_step import DecoupledWeightDecay, ElasticNet, GroupLasso, L1Prox, MaxNorm
from regbench.regularizers.base import Regularizer
from regbench.regularizers.gradient import L1, L2, Unregularized, WeightDecay
from regbench.regularizers.registry import REGISTRY, accepted, find, is_plugin, own_lams

__all__ = [
    "L1",
    "L2",
    "REGISTRY",
    "DecoupledWeightDecay",
    "ElasticNet",
    "GroupLasso",
    "L1Prox",
    "MaxNorm",
    "Regularizer",
    "Unregularized",
    "WeightDecay",
    "accepted",
    "find",
    "is_plugin",
    "own_lams",
]
