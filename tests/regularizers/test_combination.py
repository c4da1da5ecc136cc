import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from regbench import identity, regularizers
from regbench.api import parsing
from regbench.errors import UserError
from regbench.regularizers.contract import rules
from regbench.training.optimizer import Optimizer
from regbench.trial import Recipe, Trial
from tests.regularizers.test_regularizers import assert_same, trained, trained_by_autograd

THREE = "l1+weight_decay@0.01+label_smoothing@0.1"


@pytest.mark.parametrize("name", ["l1+weight_decay@1e-4", "l1_prox+decoupled_wd@1e-3", "one_shot+dropout@0.5", THREE,
                                  "mixup+l1@1e-4", "tests.plugins:Nuclear+tests.plugins:SumOfSizes@1e-4"])  # fmt: skip
def test_a_combination_keeps_every_rule(name):
    assert not [rule for rule, broken in rules.check(regularizers.find(name)) if broken]


def test_penalties_add_up():
    """The combination of two penalties is the training that autograd makes of their sum."""
    ours = trained("l1+l2@0.02", 0.01, scope="all")
    theirs = trained_by_autograd(lambda p: p.abs().sum() + 2 * p.square().sum(), 0.01)
    for ours_p, theirs_p in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(ours_p, theirs_p, rtol=1e-5, atol=1e-6)


@given(st.floats(1e-3, 1), st.floats(1e-3, 1))
def test_soft_thresholding_then_decay_is_the_elastic_net(first, second):
    """With alpha = first / (first + second), of which Zou and Hastie show the proximal step."""
    p = torch.linspace(-1, 1, 31, dtype=torch.float64)[None]
    combined, net = p.clone(), p.clone()
    lam = torch.full((1, 1), first, dtype=torch.float64)
    regularizers.find(f"l1_prox+decoupled_wd@{second!r}")().after_step(combined, lam, 0.5)
    method = regularizers.find("elastic_net")()
    method.alpha = first / (first + second)
    method.after_step(net, torch.full((1, 1), first + second, dtype=torch.float64), 0.5)
    torch.testing.assert_close(combined, net, rtol=1e-12, atol=1e-12)


def test_with_adam_each_part_acts_as_it_does_alone():
    """AdamW's decay before the step, the gradient's penalty in it, and the thresholds of each weight after it."""
    recipe = Recipe("none", "", 16, 0, lr=0.01, optimizer="adam", schedule="constant")
    w = torch.randn(1, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected, g = w.clone(), torch.linspace(-1, 1, 12, dtype=torch.float64).view(1, 3, 4)
    optimizer = Optimizer([w], [Trial(recipe, "l1_prox+decoupled_wd@2+l2@0.5+max_norm@1", 3.0, 0)])
    assert optimizer.groups[0].regularizer.goes_with_adam()
    adam = torch.optim.AdamW([expected], 0.01, betas=(0.9, 0.999), weight_decay=2)
    for count in (1, 2, 3):
        expected.grad = g + expected
        adam.step()
        average = adam.state[expected]["exp_avg_sq"] / (1 - 0.999**count)
        threshold = 3 * 0.01 / (average.sqrt() + 1e-8)
        expected.sub_(torch.minimum(torch.maximum(expected, -threshold), threshold))
        expected.div_(expected.norm(dim=2, keepdim=True).clamp(min=1))
        optimizer.step([g.clone()])
        torch.testing.assert_close(w, expected, rtol=1e-10, atol=1e-12)
    assert (w == 0).any() and not optimizer.failed
    assert not regularizers.find("l1+group_lasso@1e-4").goes_with_adam()
    assert not rules.takes_a_tau_per_weight(regularizers.find("l1_prox+decoupled_wd@2"))
    assert rules.takes_a_tau_per_weight(regularizers.find("l1+tests.plugins:MeanTau@1e-3"))


def test_what_is_fixed_does_not_act_where_lam_is_zero():
    assert_same(trained(THREE, 0.0), trained("none", 0.0))


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("l1+weight_decay", "its first part's lam is swept, and each of the others has its own after an @"),
        ("l1@1e-4+weight_decay", "its first part's lam is swept"),
        ("l1@1e-4", "its first part's lam is swept"),
        ("l1+", "each part is a regularizer other than none"),
        ("l1+none@1", "each part is a regularizer other than none"),
        ("l1+l1@1e-4", "each part is in it once"),
        ("l1+l3@1e-4", "'l3' is unknown"),
        ("l1+weight_decay@x", "'x' after an @ is not a number"),
        ("l1+weight_decay@-1", "weight_decay@-1 is not a finite number above 0"),
        ("l1+dropout@1", "dropout@1 is too large"),
        ("cutout+mixup@0.2", "more than one of its parts has augment; leave one of them out"),
        ("mixup+label_smoothing@0.1", "one of its parts changes the labels to which another adds a loss; leave one"),
        ("one_shot+imp@0.5", "more than one of its parts has target_sparsity; leave one of them out"),
    ],
)
def test_what_is_no_combination_is_told(name, told):
    with pytest.raises(UserError, match=told) as raised:
        parsing.names(name)
    assert name in str(raised.value) or "l3" in str(raised.value)


def test_a_lam_can_be_written_in_several_ways():
    assert parsing.names("l1+weight_decay@0.0001,l2 + dropout@.5") == ("l1+weight_decay@1e-4", "l2+dropout@0.5")
    assert parsing.names("l1+weight_decay@1e+2") == ("l1+weight_decay@100",)


def test_its_grid_is_that_of_the_first_and_its_code_that_of_all_parts():
    found = regularizers.find("dropout+l1@1e-4")
    assert found.lams == regularizers.find("dropout").lams and found.lam_upper_bound == 1
    assert found.elementwise and not regularizers.find("l1+hoyer_square@1e-4").elementwise
    assert regularizers.is_plugin("l1+tests.plugins:Log@1") and not regularizers.is_plugin("l1+l2@1")
    assert "tests.plugins" in identity.files("l1+tests.plugins:Log@1e-4", "notebook")
    assert identity.files("l1+l2@1e-4", "notebook") == {}
