"""Regularizers of the images: their distributions, by closed forms, and mixup's loss."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch.nn import functional as F

from regbench import regularizers
from regbench.training import single
from regbench.training.optimizer import Optimizer
from regbench.trial import Recipe, Trial
from tests.conftest import TINY

NAMES = ["input_noise", "cutout", "mixup"]
CPU = torch.device("cpu")


def augmented(name: str, lams: list[float], n: int = 5, seed: int = 0, kind: torch.dtype = torch.float32):
    """Return images and targets before and after, and the random numbers."""
    generator = torch.Generator().manual_seed(seed)
    images, uniform = (torch.rand(len(lams), n, 3, 32, 32, generator=generator) for _ in range(2))
    images = images.to(kind)
    targets = F.one_hot(torch.randint(0, 4, (len(lams), n), generator=generator), 4).to(kind)
    lam = torch.tensor(lams, dtype=kind).view(-1, 1, 1, 1, 1)
    found = regularizers.find(name)().augment(images.clone(), targets.clone(), lam, uniform)
    return (images, targets), found, uniform


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31), lam=st.floats(2**-10, 1 - 2**-10, width=32), n=st.integers(1, 6))
def test_a_row_of_lam_zero_is_as_it_was_and_each_row_as_alone(name, seed, lam, n):
    before, after, uniform = augmented(name, [lam, 0.0, lam], n, seed)
    for given_, found in zip(before, after, strict=True):
        assert torch.equal(found[1], given_[1])
        assert found.isfinite().all()
    for row in (0, 2):
        images, targets = (x[row : row + 1] for x in before)
        alone = regularizers.find(name)().augment(
            images, targets, torch.full((1, 1, 1, 1, 1), lam), uniform[row : row + 1]
        )
        assert torch.equal(alone[0][0], after[0][row])
        assert torch.equal(alone[1][0], after[1][row])


@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
def test_noise_is_gaussian_of_its_standard_deviation(kind):
    (images, targets), (noisy, same), _ = augmented("input_noise", [0.2], 40, kind=kind)
    assert stats.kstest(((noisy - images) / 0.2).flatten().numpy(), "norm").pvalue > 1e-3
    assert torch.equal(same, targets)


def test_noise_is_finite_at_the_ends_of_the_random_numbers():
    ends = torch.tensor([0.0, 2**-24, 0.5, 1 - 2**-24]).view(1, 1, 1, 1, 4)
    found, _ = regularizers.InputNoise().augment(torch.zeros(ends.shape), torch.ones(1, 1, 1), torch.ones(()), ends)
    assert found.flatten().tolist() == pytest.approx([-5.42, -5.29, 0, 5.29], abs=0.1)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**31), side=st.integers(1, 31))
def test_cutout_hides_a_clipped_square_by_the_images_mean(seed, side):
    """As the paper's code: rows y - side // 2 to y + (side + 1) // 2 of a random y, within the image."""
    (images, targets), (found, same), uniform = augmented("cutout", [(side - 0.5) / 32], 4, seed)
    assert torch.equal(same, targets)
    for image, changed, numbers in zip(images[0], found[0], uniform[0], strict=True):
        y, x = (int(32 * numbers[0, 0, axis]) for axis in (0, 1))
        expected = image.clone()
        rows, columns = (slice(max(0, c - side // 2), c - side // 2 + side) for c in (y, x))
        expected[:, rows, columns] = image.mean((1, 2), keepdim=True)
        torch.testing.assert_close(changed, expected, rtol=0, atol=1e-6)
        assert (changed != image).any(0).sum() == expected[0, rows, columns].numel()


def test_every_pixel_is_as_often_the_squares_centre():
    """At a side of one pixel."""
    (images, _), (found, _), _ = augmented("cutout", [1 / 32], 20_480)
    counts = (images != found).any(2).sum(1).flatten()
    assert counts.sum() == 20_480
    # chi squared of 1,023 degrees of freedom: mean 1,023 and standard deviation 45
    assert ((counts - 20) ** 2 / 20).sum() < 1023 + 4 * 45


@pytest.mark.parametrize("lam", [0.05, 0.4, 1.0, 2.0, 50.0])
def test_the_shares_of_mixup_are_those_of_a_beta_distribution(lam):
    """The smaller of B and 1 - B is below s with twice the chance of B."""
    count = 4000
    uniform = torch.rand(count, 2, 3, 1, 1, generator=torch.Generator().manual_seed(0))
    uniform[:, :, 0] = torch.tensor([0.9, 0.1]).view(2, 1, 1)  # they change places
    images = torch.tensor([0.0, 1.0], dtype=torch.float64).view(1, 2, 1, 1, 1).expand(count, 2, 3, 1, 1)
    targets = torch.eye(2, dtype=torch.float64).expand(count, 2, 2)
    strengths = torch.full((count, 1, 1, 1, 1), lam, dtype=torch.float64)
    mixed, shares = regularizers.Mixup().augment(images, targets, strengths, uniform)
    share = mixed[:, 0, 0, 0, 0]
    torch.testing.assert_close(mixed[:, 1, 0, 0, 0], 1 - share)
    torch.testing.assert_close(shares[:, 0], torch.stack([1 - share, share], 1))
    assert share.min() >= 0 and share.max() <= 0.5
    assert stats.kstest(share.numpy(), lambda s: 2 * stats.beta.cdf(s, lam, lam)).pvalue > 1e-3


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_mixup_pairs_each_image_with_one_of_its_batch(seed):
    (images, targets), (mixed, shares), uniform = augmented("mixup", [1.0, 0.3], 6, seed, torch.float64)
    for row in range(2):
        order = uniform[row].flatten(1)[:, 0].argsort()
        assert sorted(order.tolist()) == list(range(6))
        other = images[row][order] - images[row]
        moved = other != 0
        share = ((mixed[row] - images[row])[moved] / other[moved]).flatten()
        if len(share):
            assert share.max() - share.min() < 1e-6 and share.min() > -1e-6 and share.max() < 0.5 + 1e-6
            expected = targets[row] + share.mean() * (targets[row][order] - targets[row])
            torch.testing.assert_close(shares[row], expected, rtol=1e-6, atol=1e-6)


def test_a_step_of_mixup_is_that_of_its_cross_entropy():
    """Of mixed images and soft labels, by torch; and the plain cross-entropy stays in train/loss."""
    recipe = Recipe("", "", 16, 0, TINY, lr=0.1, momentum=0.0, precision="float64")
    images = torch.randint(0, 256, (16, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    labels = torch.arange(16) % 10
    ours, theirs = (single.Training(Trial(recipe, "mixup", 1.0, 0), 10, CPU) for _ in range(2))
    for training in (ours, theirs):
        training.optimizer.begin_epoch(1)
    x, targets = theirs.optimizer.augment(images.double()[None] / 255, labels[None], 10)
    logits = theirs.model(x[0])
    objective = F.cross_entropy(logits, targets[0])
    gradients = torch.autograd.grad(objective, list(theirs.parameters.values()))
    loss, _, penalty = ours.step(images, labels)
    assert (targets.max(2).values < 1).any()  # most partners are of another class
    torch.testing.assert_close(loss, F.cross_entropy(logits, labels).detach())
    torch.testing.assert_close(loss + penalty, objective.detach())
    for name, gradient in zip(theirs.parameters, gradients, strict=True):
        moved = theirs.parameters[name].detach() - 0.1 * gradient
        torch.testing.assert_close(ours.parameters[name].detach(), moved, rtol=1e-10, atol=1e-13)


def test_only_mixup_has_a_loss_of_its_own():
    recipe = Recipe("", "", 16, 0, TINY)
    for name, own in (("input_noise", False), ("cutout", False), ("mixup", True)):
        optimizer = Optimizer([torch.zeros(1, 2, 2)], [Trial(recipe, name, 0.5, 0)])
        optimizer.begin_epoch(1)
        labels = torch.arange(8)[None] % 4
        _, targets = optimizer.augment(torch.rand(1, 8, 3, 32, 32), labels, 4)
        added = optimizer.added_loss(torch.randn(1, 8, 4), labels, targets)
        assert (targets is not None, added is not None) == (own, own)
