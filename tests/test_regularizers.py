import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from regbench import regularizers
from regbench.engine.sequential import Training
from regbench.engine.step import Update
from regbench.errors import UserError
from regbench.sweep import Recipe, Trial
from tests.conftest import TINY
from tests.networks import Tiny

ALL = sorted(regularizers.REGISTRY)
tensors = st.integers(0, 2**31).map(lambda seed: torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(seed)))
lams = st.floats(1e-8, 1.0)
IMAGES = torch.randint(0, 256, (16, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
LABELS = torch.arange(16) % 10


def column(*values: float) -> torch.Tensor:
    return torch.tensor(values).view(-1, 1, 1)


@pytest.mark.parametrize("name", ALL)
@settings(max_examples=25, deadline=None)
@given(p=tensors, g=tensors)
def test_a_row_with_lam_zero_is_left_bitwise_as_it_was(name, p, g):
    method, lam = regularizers.find(name)(), column(0.1, 0.0, 0.2)
    new_p, new_g = p.clone(), g.clone()
    method.add_grad(new_p, new_g, lam)
    method.after_step(new_p, lam, 0.1)
    assert torch.equal(new_p[1], p[1])
    assert torch.equal(new_g[1], g[1])


@pytest.mark.parametrize("name", ALL)
@settings(max_examples=25, deadline=None)
@given(p=tensors, g=tensors, lam=lams)
def test_rows_are_independent(name, p, g, lam):
    """Three rows at once are the three rows one by one, also beside a row of NaN."""
    method, strengths = regularizers.find(name)(), column(lam, 2 * lam, lam)
    p[2] = torch.nan
    together = [p.clone(), g.clone()]
    method.add_grad(*together, strengths)
    method.after_step(together[0], strengths, 0.1)
    for row in range(2):
        alone = [p[row : row + 1].clone(), g[row : row + 1].clone()]
        method.add_grad(*alone, strengths[row : row + 1])
        method.after_step(alone[0], strengths[row : row + 1], 0.1)
        assert torch.equal(alone[0][0], together[0][row])
        assert torch.equal(alone[1][0], together[1][row])


@pytest.mark.parametrize("name", ["l1", "l2"])
@settings(max_examples=25, deadline=None)
@given(p=tensors, lam=lams)
def test_the_gradient_is_that_of_the_value(name, p, lam):
    method, strengths = regularizers.find(name)(), column(lam, 2 * lam, 3 * lam).double()
    p = p.double().requires_grad_()
    (expected,) = torch.autograd.grad(method.value(p, strengths).sum(), p)
    actual = torch.zeros_like(p)
    with torch.no_grad():
        method.add_grad(p, actual, strengths)
    torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-15)


def test_l1_leaves_a_zero_weight_alone():
    g = torch.zeros(1, 3)
    regularizers.L1().add_grad(torch.tensor([[0.0, -2.0, 3.0]]), g, torch.tensor([[0.5]]))
    assert g.tolist() == [[0.0, -0.5, 0.5]]


def test_weight_decay_adds_nothing_to_the_loss():
    assert regularizers.WeightDecay().value(torch.ones(2, 3), column(1.0, 1.0)) == 0.0


def trial(regularizer: str, lam: float, scope: str = "weights") -> Trial:
    return Trial(Recipe("none", "", 16, 0, TINY, lr=0.1), regularizer, lam, 0, scope)


def trained(regularizer: str, lam: float, scope: str = "weights", steps: int = 20) -> nn.Module:
    training = Training(trial(regularizer, lam, scope), 10, torch.device("cpu"))
    for _ in range(steps):
        training.step(IMAGES, LABELS)
    return training.model


def assert_same(first: nn.Module, second: nn.Module) -> None:
    for (name, ours), theirs in zip(first.named_parameters(), second.parameters(), strict=True):
        assert torch.equal(ours, theirs), name


def test_l2_is_weight_decay_at_twice_the_lam():
    """But for rounding: l2 rounds as autograd does for the notebook's penalty, weight_decay as torch's SGD does."""
    for ours, theirs in zip(trained("l2", 0.01).parameters(), trained("weight_decay", 0.02).parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "penalty"),
    [("l1", lambda p: p.abs().sum()), ("l2", lambda p: p.pow(2).sum()), ("l2", lambda p: (p * p).sum())],
)
def test_penalties_are_bitwise_those_of_autograd(name, penalty):
    ours = trained(name, 0.01, scope="all")
    torch.manual_seed(0)
    theirs = Tiny()
    optimizer = torch.optim.SGD(theirs.parameters(), lr=0.1, momentum=0.9)
    for _ in range(20):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(theirs(IMAGES.float() / 255), LABELS)
        (loss + 0.01 * sum(penalty(p) for p in theirs.parameters())).backward()
        optimizer.step()
    assert_same(ours, theirs)


def test_weight_decay_is_that_of_torch():
    ours = trained("weight_decay", 0.02, scope="all")
    torch.manual_seed(0)
    theirs = Tiny()
    optimizer = torch.optim.SGD(theirs.parameters(), lr=0.1, momentum=0.9, weight_decay=0.02)
    for _ in range(20):
        optimizer.zero_grad()
        nn.functional.cross_entropy(theirs(IMAGES.float() / 255), LABELS).backward()
        optimizer.step()
    assert_same(ours, theirs)


def test_scope_weights_leaves_biases_to_the_loss():
    zero = [torch.zeros_like(p)[None] for p in Tiny().parameters()]
    for scope, moved in (("weights", [True, False, True, False]), ("all", [True] * 4)):
        weights = [torch.ones_like(w) for w in zero]
        Update(weights, [trial("l2", 1.0, scope)])([w.clone() for w in zero])
        assert [bool((w < 1).all()) for w in weights] == moved


@pytest.mark.parametrize("name", ALL)
def test_lam_zero_is_none(name):
    assert_same(trained(name, 0.0), trained("none", 0.0))


def test_grids_have_equal_size_and_rise():
    grids = [cls.lams for cls in regularizers.REGISTRY.values() if cls.name != "none"]
    assert {len(grid) for grid in grids} == {7}
    assert all(list(grid) == sorted(set(grid)) for grid in grids)


def test_an_unknown_name_is_answered_with_the_known_ones():
    with pytest.raises(UserError, match=r"'l3' is unknown; accepted: none, l1, l2, weight_decay"):
        regularizers.find("l3")
