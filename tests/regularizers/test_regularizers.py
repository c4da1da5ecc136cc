import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from regbench import regularizers
from regbench.errors import UserError
from regbench.training.optimizer import Optimizer
from regbench.training.single import Training
from regbench.trial import OPTIMIZERS, Recipe, Trial
from tests.conftest import TINY
from tests.networks import Tiny
from tests.plugins import MatricesAlone, NuclearPenalty, Orthogonal

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


@pytest.mark.parametrize("name", ["l1", "l2", "hoyer_square"])
@settings(max_examples=25, deadline=None)
@given(p=tensors, lam=lams)
def test_the_gradient_is_that_of_the_value(name, p, lam):
    method, strengths = regularizers.find(name)(), column(lam, 2 * lam, 3 * lam).double()
    p = p.double().requires_grad_()
    (expected,) = torch.autograd.grad(method.value(p, strengths).sum(), p)
    actual = torch.zeros_like(p)
    with torch.no_grad():
        method.add_grad(p, actual, strengths)
    torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-15)


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
    [
        ("l1", lambda p: p.abs().sum()),
        ("l2", lambda p: p.pow(2).sum()),
        ("l2", lambda p: (p * p).sum()),
        ("tests.plugins:SumOfSizes", lambda p: p.abs().sum()),
    ],
)
def test_penalties_are_bitwise_those_of_autograd(name, penalty):
    assert_same(trained(name, 0.01, scope="all"), trained_by_autograd(penalty, 0.01))


@pytest.mark.parametrize("cls", [Orthogonal, NuclearPenalty, MatricesAlone])
def test_a_penalty_is_what_autograd_makes_of_it(cls):
    """But for rounding: lam multiplies the gradient, not the loss."""
    ours = trained(f"tests.plugins:{cls.__name__}", 0.01, scope="all")
    for p, q in zip(ours.parameters(), trained_by_autograd(cls().penalty, 0.01).parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-4, atol=1e-5)


def trained_by_autograd(penalty, lam: float) -> nn.Module:
    """Return the network after torch's own steps on the loss with lam times the penalty of every parameter."""
    torch.manual_seed(0)
    model = Tiny()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for _ in range(20):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(IMAGES.float() / 255), LABELS)
        (loss + lam * sum(penalty(p) for p in model.parameters())).backward()
        optimizer.step()
    return model


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
        Optimizer(weights, [trial("l2", 1.0, scope)]).step([w.clone() for w in zero])
        assert [bool((w < 1).all()) for w in weights] == moved


@pytest.mark.parametrize("name", ALL)
def test_lam_zero_is_none(name):
    assert_same(trained(name, 0.0), trained("none", 0.0))


def test_grids_have_equal_size_and_rise():
    grids = [cls.lams for cls in regularizers.REGISTRY.values() if cls.name != "none"]
    assert {len(grid) for grid in grids} == {7}
    assert all(list(grid) == sorted(set(grid)) for grid in grids)


def test_an_unknown_name_is_answered_with_the_known_ones():
    with pytest.raises(UserError, match=r"'l3' is unknown; accepted: none, cutout, decoupled_wd, dropout"):
        regularizers.find("l3")


# what is done after the step to p [K, ...] by strengths lam [K, 1, ...]
def stepped(name_or_class, p: torch.Tensor, lam: float, tau: float = 0.1) -> torch.Tensor:
    found = regularizers.find(name_or_class) if isinstance(name_or_class, str) else name_or_class
    moved = p.clone()
    found().after_step(moved, torch.full((len(p), *(1,) * (p.ndim - 1)), lam, dtype=p.dtype), tau)
    return moved


def soft(w: torch.Tensor, threshold: float) -> torch.Tensor:
    return w.sign() * (w.abs() - threshold).clamp(min=0)


PROXES = ["l1_prox", "elastic_net", "group_lasso"]
SHAPES = [(3, 5, 4), (3, 4, 2, 3, 3), (3, 6)]


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("shape", SHAPES)
def test_lam_zero_is_a_no_op_on_zeros_and_infinities_too(name, shape):
    """A row of zeros has norm 0, one that has diverged an infinite one: 0 / 0 and 0 * inf."""
    # what multiplies the weights themselves is a no-op for finite ones only
    filled = 1e30 if name in ("l2", "weight_decay", "decoupled_wd", "elastic_net", "hoyer_square") else torch.inf
    p = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    p[1, 0], p[1, 1] = 0.0, filled
    p[0, 0] = 0.0
    g = torch.ones_like(p)
    lam = torch.tensor([0.1, 0.0, 1e9]).view(-1, *(1,) * (len(shape) - 1))
    method, moved, added = regularizers.find(name)(), p.clone(), g.clone()
    method.add_grad(moved, added, lam)
    method.after_step(moved, lam, 0.1)
    assert torch.equal(moved[1], p[1])
    assert torch.equal(added[1], g[1])
    assert moved[0].isfinite().all()


def test_a_decay_near_the_last_digit_of_one_is_not_off_for_all_weights_alike():
    """1 - 1e-7 is 1 - 1.2e-7 in float32; subtracted from each weight the decay is right on average."""
    p = torch.rand(1, 100_000, generator=torch.Generator().manual_seed(0))
    lost = (p.double() - stepped("decoupled_wd", p, 1e-6).double()).sum() / p.double().sum()
    assert lost.item() == pytest.approx(1e-7, rel=0.05)


CURVATURE = (lambda m: m @ m.T / 12 + torch.eye(12, dtype=torch.float64) / 2)(
    torch.randn(12, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
)
TARGET = torch.linspace(-1.5, 1.5, 12, dtype=torch.float64) ** 3
LAM = 0.4


def slope(w: torch.Tensor) -> torch.Tensor:
    """The gradient of (w - TARGET)' CURVATURE (w - TARGET) / 2."""
    return CURVATURE @ (w - TARGET)


def minimized(name: str, momentum: float, steps: int = 4000, optimizer: str = "sgd") -> torch.Tensor:
    """Minimize a quadratic with the regularizer, in float64, by the step that trains networks."""
    recipe = Recipe("none", "", 16, 0, lr=0.02, momentum=momentum, optimizer=optimizer)
    w = torch.zeros(1, 12, dtype=torch.float64)
    optimizer = Optimizer([w], [Trial(recipe, name, LAM, 0, "all")])
    for _ in range(steps):
        optimizer.step([slope(w[0])[None]])
    assert not optimizer.failed
    return w[0]


def ista(alpha: float = 1.0) -> torch.Tensor:
    """Return the minimum with the penalty of `elastic_net`, for alpha = 1 the lasso's."""
    w, step = torch.zeros(12, dtype=torch.float64), 1 / torch.linalg.eigvalsh(CURVATURE)[-1]
    for _ in range(4000):
        w = soft(w - step * slope(w), step * LAM * alpha) / (1 + step * LAM * (1 - alpha))
    return w


RIDGE = torch.linalg.solve(CURVATURE + LAM * torch.eye(12, dtype=torch.float64), CURVATURE @ TARGET)


@pytest.mark.parametrize(
    ("optimizer", "momentum"), [("sgd", 0.0), ("sgd", 0.5), ("sgd", 0.9), ("nesterov", 0.5), ("nesterov", 0.9)]
)
def test_a_lam_is_the_same_problem_at_every_momentum(optimizer, momentum):
    """With lr in tau's place it would be the problem of (1 - momentum) * lam."""
    lasso = ista()
    solutions = {"l1_prox": lasso, "group_lasso": lasso, "decoupled_wd": RIDGE, "weight_decay": RIDGE}
    for name, expected in solutions.items():
        assert (minimized(name, momentum, optimizer=optimizer) - expected).abs().max() < 1e-10, name


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
@pytest.mark.parametrize(("name", "alpha"), [("l1_prox", 1.0), ("elastic_net", 0.5)])
def test_a_lam_is_the_same_problem_with_adam(name, alpha, momentum):
    """With lr, or one tau for all weights, in the place of each weight's own it would be another problem for each."""
    w = minimized(name, momentum, optimizer="adam")
    assert (w - ista(alpha)).abs().max() < 1e-10
    zero = w == 0
    assert 0 < zero.sum() < 12
    found = slope(w) + LAM * (1 - alpha) * w
    assert (found[zero].abs() <= LAM * alpha).all()
    assert (found[~zero] + LAM * alpha * w[~zero].sign()).abs().max() < 1e-10


def test_decoupled_decay_is_another_problem_than_weight_decay_with_adam():
    """AdamW ends at the minimum among |w| <= 1 / lam, as Xie and Li show; Adam with weight_decay at that of the penalty.

    Of a loss whose weights do not act on each other the first is the target, cut off; it is come near to slowly.
    """
    curvature = torch.linspace(0.5, 2, 12, dtype=torch.float64)
    recipe = Recipe("none", "", 16, 0, epochs=4000, lr=0.2, optimizer="adam", schedule="cosine")
    ridge, cut = curvature * TARGET / (curvature + LAM), TARGET.clamp(-1 / LAM, 1 / LAM)
    assert (ridge - cut).abs().max() > 0.5
    for name, end, near in (("weight_decay", ridge, 1e-10), ("decoupled_wd", cut, 0.1)):
        w = torch.zeros(1, 12, dtype=torch.float64)
        optimizer = Optimizer([w], [Trial(recipe, name, LAM, 0, "all")])
        for epoch in range(1, recipe.epochs + 1):
            optimizer.begin_epoch(epoch)
            optimizer.step([curvature * (w - TARGET)])
        assert (w[0] - end).abs().max() < near, name


def test_what_moves_rows_by_tau_does_not_go_with_a_step_for_each_weight():
    refused = [name for name, cls in regularizers.REGISTRY.items() if not cls.goes_with_adam()]
    assert refused == ["group_lasso"]


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_max_norm_bounds_rows_with_every_optimizer(optimizer):
    w = torch.full((1, 4, 5), 3.0)
    recipe = Recipe("none", "", 16, 0, lr=0.1, optimizer=optimizer)
    made = Optimizer([w], [Trial(recipe, "max_norm", 0.5, 0)])
    for _ in range(3):
        made.step([torch.linspace(-1, 1, 20).view(1, 4, 5)])
    assert not made.failed
    assert (w.norm(dim=2) <= 2 * (1 + 1e-6)).all()


def test_l1_prox_satisfies_the_conditions_of_a_minimum():
    w = minimized("l1_prox", 0.9)
    zero = w == 0
    assert 0 < zero.sum() < 12
    assert (slope(w)[zero].abs() <= LAM + 1e-8).all()
    assert (slope(w)[~zero] + LAM * w[~zero].sign()).abs().max() < 1e-8


def test_l1_leaves_no_exact_zero_where_l1_prox_does():
    counts = {name: int((minimized(name, 0.9) == 0).sum()) for name in ("l1", "l1_prox")}
    assert counts["l1"] == 0
    assert counts["l1_prox"] == int((ista() == 0).sum()) > 0


@pytest.mark.parametrize("name", PROXES)
def test_a_huge_lam_makes_everything_zero(name):
    assert torch.equal(stepped(name, torch.randn(2, 3, 4), 1e9), torch.zeros(2, 3, 4))
    model = trained(name, 1e9, scope="all", steps=2)
    assert all(bool((p == 0).all()) for p in model.parameters())
    loss = nn.functional.cross_entropy(model(IMAGES.float() / 255), LABELS)
    torch.testing.assert_close(loss, torch.tensor(10.0).log())


class Alpha1(regularizers.ElasticNet):
    alpha = 1.0


class Alpha0(regularizers.ElasticNet):
    alpha = 0.0


@settings(max_examples=50, deadline=None)
@given(p=tensors, lam=lams)
def test_elastic_net_has_l1_and_ridge_at_its_ends(p, lam):
    assert torch.equal(stepped(Alpha1, p, lam), stepped("l1_prox", p, lam))
    assert torch.equal(stepped(Alpha0, p, lam), stepped("decoupled_wd", p, lam))
    torch.testing.assert_close(stepped(Alpha0, p.double(), lam), p.double() / (1 + 0.1 * lam), rtol=1e-14, atol=0)


@pytest.mark.parametrize("lam", [0.1, 1.0, 5.0])
@pytest.mark.parametrize("name", ["l1_prox", "elastic_net"])
def test_a_prox_is_the_minimum_that_a_search_finds(name, lam):
    """Of (x - w)^2 / 2 + tau * penalty(x)."""
    x = torch.linspace(-3, 3, 6_000_001, dtype=torch.float64)
    penalty = regularizers.find(name)().value(x[:, None], torch.full((len(x), 1), lam, dtype=torch.float64))
    for w in (-1.7, -0.03, 0.0, 0.2, 2.4):
        found = stepped(name, torch.tensor([[w]], dtype=torch.float64), lam).item()
        assert abs(x[((x - w).square() / 2 + 0.1 * penalty).argmin()].item() - found) < 1e-6 + 1e-9


def test_the_prox_of_a_group_is_a_minimum():
    """Nothing near it, and not zero, is better."""
    p = torch.randn(50, 2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    lam = torch.full((50, 1, 1), 3.0, dtype=torch.float64)
    method = regularizers.GroupLasso()

    def objective(x: torch.Tensor) -> torch.Tensor:
        return (x - p).square().sum((1, 2)) / 2 + 0.1 * method.value(x, lam)

    best = stepped("group_lasso", p, 3.0)
    assert (best == 0).any() and (best != 0).any()
    for seed in range(50):
        noise = torch.randn(p.shape, dtype=p.dtype, generator=torch.Generator().manual_seed(seed))
        assert (objective(best + 1e-3 * noise) >= objective(best) - 1e-14).all()


@settings(max_examples=50, deadline=None)
@given(p=tensors, lam=lams)
def test_groups_of_one_weight_are_l1_prox(p, lam):
    for shaped in (p.reshape(3, 20), p.reshape(3, 20, 1), p.reshape(3, 20, 1, 1, 1)):
        torch.testing.assert_close(
            stepped("group_lasso", shaped, lam), stepped("l1_prox", shaped, lam), rtol=1e-7, atol=1e-6
        )
    exact = p.double().reshape(3, 20)
    torch.testing.assert_close(stepped("group_lasso", exact, lam), stepped("l1_prox", exact, lam), rtol=0, atol=1e-14)


@pytest.mark.parametrize("shape", [(3, 40, 7), (3, 40, 2, 3, 3)])
def test_a_group_is_zero_as_a_whole_or_not_at_all(shape):
    p = torch.randn(shape, generator=torch.Generator().manual_seed(0)) * torch.linspace(0, 1, 40).view(
        1, 40, *(1,) * (len(shape) - 2)
    )
    zero = stepped("group_lasso", p, 5.0).flatten(2) == 0
    assert torch.equal(zero.any(2), zero.all(2))
    assert 0 < zero.all(2).sum() < 120
    assert zero[:, 0].all()  # was zero before: 0 / 0


@pytest.mark.parametrize("shape", [(2, 30, 7), (2, 30, 2, 3, 3)])
@pytest.mark.parametrize("c", [3.0, 1.0, 0.5])
def test_max_norm_shortens_long_rows_and_leaves_the_others_alone(shape, c):
    p = torch.randn(shape, generator=torch.Generator().manual_seed(0)) * torch.linspace(0, 1, 30).view(
        1, 30, *(1,) * (len(shape) - 2)
    )
    moved, before = stepped("max_norm", p, 1 / c), p.flatten(2).norm(dim=2)
    assert (moved.flatten(2).norm(dim=2) <= c * (1 + 1e-5)).all()
    torch.testing.assert_close(stepped("max_norm", moved, 1 / c), moved, rtol=1e-5, atol=0)
    assert torch.equal(moved[before < c * 0.9999], p[before < c * 0.9999])
    for row in range(2):
        torch.testing.assert_close(moved[row], torch.renorm(p[row], 2, 0, c), rtol=1e-5, atol=1e-7)


def test_max_norm_without_rows_bounds_each_bias():
    assert stepped("max_norm", torch.tensor([[-3.0, 0.5, 0.0, 1.0]]), 1.0).tolist() == [[-1.0, 0.5, 0.0, 1.0]]


@pytest.mark.parametrize("name", [*PROXES, "max_norm"])
@settings(max_examples=50, deadline=None)
@given(a=tensors, b=tensors, lam=st.floats(1e-3, 30.0))
def test_a_prox_is_odd_does_not_expand_and_keeps_signs(name, a, b, lam):
    a, b = a.double(), b.double()
    moved, other = stepped(name, a, lam), stepped(name, b, lam)
    assert torch.equal(stepped(name, -a, lam), -moved)
    distances = [(x - y).flatten(1).norm(dim=1) for x, y in ((moved, other), (a, b))]
    assert (distances[0] <= distances[1] * (1 + 1e-12)).all()
    assert (moved * a >= 0).all()
    assert (moved.abs() <= a.abs()).all()


@pytest.mark.parametrize(
    ("name", "p", "expected"),
    [
        ("l1_prox", [[1.0, -2.0]], 6.0),
        ("elastic_net", [[1.0, -2.0]], 2 * (0.5 * 3 + 0.25 * 5)),
        ("group_lasso", [[3.0, -4.0], [0.0, 1.0]], 2 * 2**0.5 * (5 + 1)),
        ("decoupled_wd", [[1.0, -2.0]], 0.0),
        ("max_norm", [[1.0, -2.0]], 0.0),
    ],
)
def test_the_value_is_the_penalty(name, p, expected):
    value = regularizers.find(name)().value(torch.tensor([p]), column(2.0))
    torch.testing.assert_close(torch.as_tensor(value).flatten(), torch.tensor([expected]))


def test_hoyer_square_does_not_see_the_scale_and_leaves_a_layer_of_zeros():
    method, lam = regularizers.HoyerSquare(), column(1.0, 1.0)
    p = torch.randn(2, 5, 4, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(method.value(p, lam), method.value(3 * p, lam))
    p[1] = 0
    g = torch.zeros_like(p)
    method.add_grad(p, g, lam)
    assert g[0].any() and not g[1].any()
    assert method.value(p, lam)[1] == 0


@settings(max_examples=50, deadline=None)
@given(logits=tensors, lam=st.floats(1e-3, 0.99))
def test_label_smoothing_is_that_of_torch(logits, lam):
    labels = torch.arange(15).view(3, 5) % 4
    logits = logits.double()
    added = regularizers.LabelSmoothing().add_loss(logits, labels, column(lam, lam, lam).double())
    for row in range(3):
        plain, smoothed = (
            nn.functional.cross_entropy(logits[row], labels[row], label_smoothing=e) for e in (0.0, float(lam))
        )
        torch.testing.assert_close(plain + added[row], smoothed, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("p", [0.1, 0.5, 0.7])
def test_dropout_keeps_the_mean(p):
    h = torch.ones(1, 400, 500)
    uniform = torch.rand(h.shape, generator=torch.Generator().manual_seed(0))
    dropped = regularizers.Dropout().dense_input(h, torch.full((1, 1, 1), p), uniform)
    standard_error = (p / (1 - p) / h.numel()) ** 0.5
    assert abs(dropped.mean().item() - 1) < 4 * standard_error
    assert dropped.unique().tolist() == pytest.approx([0.0, 1 / (1 - p)])


@pytest.mark.parametrize(
    ("name", "lam"), [("dropout", 1.0), ("dropout", 0.99999999), ("one_shot", 1.5), ("label_smoothing", 1.0)]
)
def test_what_is_a_share_must_be_below_one(name, lam):
    regularizers.cells([name], [0.99])
    with pytest.raises(UserError, match=rf"lam={lam:g} is too large for reg='{name}'; accepted: .* below 1"):
        regularizers.cells([name], [lam])


def test_one_gradient_of_two_weights_is_not_regularized_twice():
    """Autograd gives one and the same tensor for both of u + v, and views of one where they differ in shape."""
    for shape in ((1, 3, 4), (1, 12)):
        u, v = torch.ones(1, 3, 4), -torch.ones(shape)
        shared = torch.zeros(1, 3, 4)
        Optimizer([u, v], [trial("l1", 1.0)]).step([shared, shared.view(shape)])
        assert torch.equal(u, torch.full_like(u, 0.9))
        assert torch.equal(v, torch.full_like(v, -0.9 if len(shape) > 2 else -1.0))


@pytest.mark.parametrize("name", ["l1", "l1_prox", "tests.plugins:Flattens"])
def test_gradients_come_to_hooks_in_plain_order(name):
    """They may be expanded, or in channels-last order, as those of convolutions on a CPU are."""
    moved = []
    for layout in (torch.contiguous_format, torch.channels_last):
        w = torch.linspace(-1, 1, 54).view(1, 2, 3, 3, 3)
        g = torch.linspace(-2, 3, 54).view(2, 3, 3, 3).contiguous(memory_format=layout)[None]
        for gradient in (g, torch.ones(1, 1, 1, 1, 1).expand(w.shape)):
            optimizer = Optimizer([w], [trial(name, 0.1)])
            optimizer.step([gradient])
            assert not optimizer.failed
        moved.append(w)
    assert torch.equal(*moved)


@pytest.mark.parametrize("name", ALL)
def test_a_scalar_parameter_is_a_bias_of_one(name):
    trials = [trial(name, lam, "all") for lam in (0.1, 0.2)]
    results = []
    for shape in ((2,), (2, 1)):
        w = torch.tensor([0.5, -2.0]).view(shape)
        optimizer = Optimizer([w], trials)
        optimizer.step([torch.tensor([0.1, 0.2]).view(shape)])
        optimizer.end_epoch(1)
        assert not optimizer.failed
        results.append(w.flatten())
    assert torch.equal(*results)


def test_what_takes_one_trial_at_a_time_gets_it_in_a_stack():
    """One that has diverged raises in torch.linalg.svd; that is for its loss to tell, and the others go on."""
    together = torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(0))
    together[1] = torch.nan
    trials = [trial("tests.plugins:Nuclear", lam) for lam in (0.1, 0.2, 0.3)]
    apart = together.clone().split(1)
    optimizer = Optimizer([together], trials)
    penalties = optimizer.step([torch.zeros(3, 4, 5)])
    assert [group.rows for group in optimizer.groups] == [slice(0, 1), slice(1, 2), slice(2, 3)]
    assert not optimizer.failed
    assert together[1].isnan().all()
    for row in (0, 2):
        (alone,) = Optimizer([apart[row]], [trials[row]]).step([torch.zeros(1, 4, 5)])
        assert torch.equal(together[row], apart[row][0])
        assert penalties[row] == alone > 0


def test_a_hook_that_exits_fails_its_trials_alone():
    w = torch.ones(2, 3, 4)
    optimizer = Optimizer([w], [trial("tests.plugins:Exits", 0.1), trial("l1", 0.1)])
    optimizer.step([torch.zeros(2, 3, 4)])
    assert [group.reason for group in optimizer.failed] == ["add_grad raised SystemExit: 3"]
    assert (w[1] < 1).all()
