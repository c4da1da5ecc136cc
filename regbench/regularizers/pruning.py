"""Regularizers that zero weights for good, before training or in its midst: lam is the share of zeros at the end.

A pruned weight, its gradient and its momentum stay 0. All take the epochs of any other method, so that accuracies are
those of equal work.
"""

from __future__ import annotations

from regbench.regularizers.base import Regularizer, Tensor


class OneShot(Regularizer):
    """Magnitude pruning once, when half of the epochs are over: the smallest |w| of all layers together; then fine-tuning.

    With one epoch the zeros come at its end. Sources: Han et al., Learning both Weights and Connections, NIPS 2015;
    Blalock et al., What Is the State of Neural Network Pruning, MLSys 2020, whose "global magnitude" it is.
    """

    name = "one_shot"
    lams = (0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98)
    lam_upper_bound = 1.0
    elementwise = True
    dense = 0.5

    def target_sparsity(self, lam: Tensor, done: float) -> Tensor:
        return lam * (done >= self.dense)


class RandomPruning(OneShot):
    """The control of `one_shot`: as many weights are zeroed at the same time, chosen by chance.

    What a criterion is worth is its distance to this. The chance is the trial's seed's.
    """

    name = "random_pruning"

    def importance(self, p: Tensor, uniform: Tensor) -> Tensor:
        return uniform


class RandomAtInitialization(RandomPruning):
    """Random pruning at initialization: as many weights as `random_pruning` zeroes, but before the first step.

    The network is as sparse throughout its training as at its end. Weights of all layers have the same chance, and those
    left keep their initial values: "random" of Frankle et al., Pruning Neural Networks at Initialization: Why Are We
    Missing the Mark?, ICLR 2021. See also Liu et al., The Unreasonable Effectiveness of Random Pruning, ICLR 2022.
    """

    name = "random_at_init"
    dense = 0.0


class IterativeMagnitude(OneShot):
    """Iterative magnitude pruning: every epoch of the first two thirds zeroes the same fraction of what is left.

    The fraction is what ends at lam: after e of E epochs (1 - lam) ^ min(1, e / (2E / 3)) of the weights are left. The
    weights are not rewound to their initial values, which would cost a whole training per round. Sources: Han et al.,
    NIPS 2015; Frankle and Carbin, The Lottery Ticket Hypothesis, ICLR 2019; Zhu and Gupta, To Prune, or Not to Prune,
    2017, for the gradual schedule.
    """

    name = "imp"
    rounds = 2 / 3

    def target_sparsity(self, lam: Tensor, done: float) -> Tensor:
        # at the end lam itself, which the power would only round to
        return lam if done >= self.rounds else 1 - (1 - lam) ** (done / self.rounds)
