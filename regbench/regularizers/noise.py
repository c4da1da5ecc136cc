"""Regularizers that change what the network computes or what it is asked for: dropout and label smoothing."""

from __future__ import annotations

from regbench.regularizers.base import Regularizer, Tensor


class Dropout(Regularizer):
    """Inverted dropout on the input of every dense layer (torch.nn.Linear): lam is the probability of a zero.

    What is kept is divided by 1 - lam, so that the mean stays; evaluation uses all. `scope` has no part in it. Source:
    Srivastava et al., Dropout, JMLR 15, 2014.
    """

    name = "dropout"
    lams = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.7)
    lam_upper_bound = 1.0

    def dense_input(self, h: Tensor, lam: Tensor, uniform: Tensor) -> Tensor:
        return h * ((uniform >= lam) / (1 - lam))


class LabelSmoothing(Regularizer):
    """Cross-entropy with targets (1 - lam) * label + lam / C for C classes, as torch's label_smoothing.

    `train/loss` stays the plain cross-entropy; what is added is lam * (mean over classes of -log p - cross-entropy).
    `scope` has no part in it. Source: Szegedy et al., Rethinking the Inception Architecture, CVPR 2016.
    """

    name = "label_smoothing"
    lams = (0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5)
    lam_upper_bound = 1.0

    def add_loss(self, logits: Tensor, labels: Tensor, lam: Tensor) -> Tensor:
        # -log p of the mean class, less that of the label: the normalizer cancels
        excess = logits.gather(2, labels[:, :, None])[:, :, 0] - logits.mean(2)
        return lam.flatten() * excess.mean(1)
