"""Regularizers that change the images a network trains on: noise, hidden squares, mixtures. Evaluation sees the images.

All take pixels in [0, 1]; `scope` has no part in them.
"""

from __future__ import annotations

import math

from regbench.regularizers.base import Regularizer, Tensor


class InputNoise(Regularizer):
    """Gaussian noise on every pixel: lam is its standard deviation, of pixels in [0, 1]; what leaves [0, 1] stays so.

    For small lam and squared errors it is a penalty on the network's gradient by its input. Sources: Goodfellow et al.,
    Deep Learning, 2016, section 7.5; Bishop, Training with Noise is Equivalent to Tikhonov Regularization, Neural
    Computation 7, 1995.
    """

    name = "input_noise"
    lams = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5)

    def augment(self, images: Tensor, targets: Tensor, lam: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
        # the inverse of the normal distribution, kept from its pole at 0 by half of the least step of float32 below 1
        normal = math.sqrt(2) * (2 * uniform.to(images).clamp(min=2**-25) - 1).erfinv()
        return images + lam * normal, targets


class Cutout(Regularizer):
    """A square of each image is hidden: lam is its side as a share of the image's, rounded up to whole pixels.

    Its centre is any pixel, each as likely; what is outside the image is lost. It is filled with the image's own mean of
    each channel: the paper's 0 is the mean of normalized images, ours would be black. Source: DeVries and Taylor, Improved
    Regularization of Convolutional Neural Networks with Cutout, 2017.
    """

    name = "cutout"
    lams = (0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875)
    lam_upper_bound = 1.0

    def augment(self, images: Tensor, targets: Tensor, lam: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
        import torch

        hidden = []
        for axis, size in enumerate(images.shape[-2:]):
            side = (lam.flatten(1) * size).ceil()
            first = (uniform[..., 0, 0, axis] * size).floor() - (side / 2).floor()
            places = torch.arange(size, device=images.device) - first[..., None]
            hidden.append((places >= 0) & (places < side[..., None]))
        square = hidden[0][:, :, None, :, None] & hidden[1][:, :, None, None, :]
        return torch.where(square, images.mean((-2, -1), keepdim=True), images), targets


class Mixup(Regularizer):
    """Images and labels of a batch are mixed in pairs: (1 - s) x_i + s x_j, and likewise their one-hot labels.

    One s a batch, the smaller of B and 1 - B, where B is from Beta(lam, lam); the j are a permutation of the batch. With
    the larger one batches would be distributed alike, with i and j exchanged: so the label of an image is that of its
    larger part, and by it are `train/loss` and `train/accuracy`. Sources: Zhang et al., mixup: Beyond Empirical Risk
    Minimization, ICLR 2018, whose alpha is lam; for B, Devroye, Random Variate Generation in One Line of Code, 1996.
    """

    name = "mixup"
    lams = (0.05, 0.1, 0.2, 0.4, 0.7, 1.0, 2.0)
    changes_targets = True

    def augment(self, images: Tensor, targets: Tensor, lam: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
        numbers = uniform.flatten(2)
        # 2 B - 1 is t / sqrt(1 + t^2), where sqrt(2 lam) t has Student's distribution of 2 lam degrees of freedom; in
        # float64, whose last digit, which may depend on how many are computed at once, is not seen in the result
        first, second = numbers[:, 0, 1:3].double().unbind(1)
        squared = (-first.log() / lam.flatten()).expm1() * (2 * math.pi * second).cos().square()
        root = (1 + 1 / squared).sqrt()
        share = (1 / (2 * squared * root * (1 + root))).to(images)
        partners = numbers[:, :, 0].argsort(dim=1, stable=True)
        return _mixed(images, partners, share), _mixed(targets, partners, share)


def _mixed(x: Tensor, partners: Tensor, share: Tensor) -> Tensor:
    """Return x [K, N, ...] with a share [K] of what is at `partners` [K, N]."""
    import torch

    other = x[torch.arange(len(x), device=x.device)[:, None], partners]
    return x + share.view(-1, *(1,) * (x.ndim - 1)) * (other - x)
