"""Measures of weights: identities that hold exactly, and what is told of tensors of one element, of zeros, of NaN."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from regbench.measures import weights as sparsity
from regbench.measures.multiplications import Work, per_image
from regbench.networks.notebook import NotebookCNN
from tests.conftest import TINY


def of(*values: float, shape: tuple[int, ...] | None = None, dtype: torch.dtype = torch.float64) -> dict[str, object]:
    """Return the measures of one tensor."""
    w = torch.tensor(values, dtype=dtype).reshape(shape or (1, len(values)))
    total, (row,) = sparsity.measure({"w": w})
    assert {name: row[name] for name in total if name in row} == pytest.approx(
        {name: value for name, value in total.items() if name in row}, nan_ok=True
    )
    return total


def test_sparsity_counts_weights_and_not_biases():
    weights = {
        "a.weight": torch.tensor([[0.0, -0.0, 5e-4, 1.0]]),
        "a.bias": torch.zeros(3),
        "steps": torch.tensor(7),
    }
    found, _ = sparsity.measure(weights)
    assert found["sparsity/exact"] == 0.5  # minus zero is zero
    assert found["sparsity/abs_1e-3"] == 0.75
    assert found["sparsity/abs_1e-4"] == 0.5
    assert found["compression_ratio"] == pytest.approx(7 / 2)  # all floating parameters, biases too
    assert found["norm/max"] == 1.0


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_all_and_layers_agree_with_numpy(seed):
    random = np.random.default_rng(seed)
    arrays = [random.normal(size=(7, 3)), random.normal(scale=1e-2, size=(2, 3, 4))]
    found, rows = sparsity.measure(dict(zip(("one", "two"), map(torch.from_numpy, arrays), strict=True)))
    flat = np.abs(np.concatenate([a.flatten() for a in arrays]))
    assert found["norm/l1"] == pytest.approx(flat.sum(), rel=1e-12)
    assert found["norm/l2"] == pytest.approx(np.linalg.norm(flat), rel=1e-12)
    assert found["norm/max"] == flat.max()
    assert found["n_eff"] == pytest.approx((flat.sum() / np.linalg.norm(flat)) ** 2, rel=1e-12)
    # half the mean difference of all pairs, over the mean
    assert found["gini"] == pytest.approx(np.abs(flat[:, None] - flat).mean() / 2 / flat.mean(), rel=1e-10)
    for threshold in ("1e-2", "1e-3"):
        assert found[f"sparsity/abs_{threshold}"] == (flat < float(threshold)).mean()
    small = sum((np.abs(a) <= 0.01 * np.sqrt((a**2).mean())).sum() for a in arrays)  # each by its own scale
    assert found["sparsity/rel_1e-2"] == small / flat.size
    assert [(row["layer"], row["shape"], row["weights"]) for row in rows] == [("one", "7x3", 21), ("two", "2x3x4", 24)]


@given(size=st.integers(2, 500), place=st.integers(0, 499), value=st.floats(1e-3, 1e3))
def test_one_that_is_not_zero(size, place, value):
    found = of(*(value * (i == place % size) for i in range(size)))
    assert found["gini"] == pytest.approx(1 - 1 / size, abs=1e-12)
    assert found["hoyer"] == pytest.approx(1, abs=1e-12)
    assert found["n_eff"] == pytest.approx(1, abs=1e-12)


@given(size=st.integers(2, 500), value=st.floats(1e-3, 1e3))
def test_all_of_one_size(size, value):
    found = of(*(value * (-1) ** i for i in range(size)))
    assert found["gini"] == pytest.approx(0, abs=1e-12)
    assert found["hoyer"] == pytest.approx(0, abs=1e-12)
    assert found["n_eff"] == pytest.approx(size, rel=1e-12)


@given(st.lists(st.floats(-1, 1).filter(lambda x: x == 0 or abs(x) > 1e-6), min_size=1, max_size=50),
       st.floats(1e-3, 1e3))  # fmt: skip
def test_a_factor_changes_nothing_and_the_ranges_hold(values, factor):
    one, other = of(*values), of(*(factor * value for value in values))
    for name in ("gini", "hoyer", "n_eff"):
        assert other[name] == pytest.approx(one[name], rel=1e-12, abs=1e-12)
    assert -1e-12 <= one["gini"] <= 1 - 1 / len(values) + 1e-12
    assert -1e-12 <= one["hoyer"] <= 1 + 1e-12
    assert (one["n_eff"] == 0 and not any(values)) or 1 - 1e-12 <= one["n_eff"] <= len(values) * (1 + 1e-12)
    assert of(*(8 * value for value in values))["sparsity/rel_1e-2"] == one["sparsity/rel_1e-2"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("values", [(0.5,), (0.0,), (0.0,) * 6])
def test_one_element_and_all_zero_are_finite(values, dtype):
    found = of(*values, dtype=dtype)
    undefined = {"sparsity/filters"} | ({"compression_ratio"} if not any(values) else set())
    assert {name for name, value in found.items() if math.isnan(value)} == undefined
    assert all(math.isfinite(value) for name, value in found.items() if name not in undefined)
    assert found["sparsity/exact"] == found["sparsity/rel_1e-2"] == found["sparsity/neurons"] == (not any(values))
    assert found["n_eff"] == any(values)


def test_a_network_without_matrices_and_one_with_an_empty_one():
    assert sparsity.measure({"b": torch.ones(3)}) == ({"compression_ratio": 1.0}, [])
    found, rows = sparsity.measure({"a": torch.ones(2, 2), "none": torch.zeros(0, 3)})
    assert (found["norm/l1"], len(rows)) == (4.0, 1)


def test_nan_and_infinity_do_not_pass_for_sparsity():
    found = of(*[math.nan] * 9, 0.0, 1e-4, 1.0)
    assert (found["sparsity/exact"], found["sparsity/abs_1e-3"]) == (1 / 12, 2 / 12)
    for bad in (math.nan, math.inf):
        found = of(bad, 0.0, 1e-4, 1.0)
        for name in ("sparsity/rel_1e-2", "gini", "hoyer", "n_eff"):
            assert math.isnan(found[name]), name
        assert not math.isfinite(found["norm/max"])


def test_rows_of_convolutions_are_filters_and_of_dense_layers_neurons():
    conv, dense = torch.ones(4, 2, 3, 3), torch.ones(5, 6)
    conv[:3] = 0
    conv[2, 1, 1, 1] = 1e-9
    dense[1] = 0
    dense[2, 1:] = -0.0
    found, rows = sparsity.measure({"conv": conv, "dense": dense})
    assert (found["sparsity/filters"], found["sparsity/neurons"]) == pytest.approx((0.5, 0.2))
    assert rows[0]["sparsity/filters"] == 0.5 and math.isnan(rows[0]["sparsity/neurons"])
    assert rows[1]["sparsity/neurons"] == pytest.approx(0.2) and math.isnan(rows[1]["sparsity/filters"])


def test_the_multiplications_of_the_notebooks_network():
    assert per_image("notebook", 10).weights == {
        "conv1.weight": 16 * 32 * 32 * 3 * 9,  # 0.44 M
        "conv2.weight": 32 * 16 * 16 * 16 * 9,  # 1.18 M
        "l1.weight": 2048 * 1024, "l2.weight": 1024 * 1024, "l3.weight": 1024 * 10,  # 3.16 M
    }  # fmt: skip
    assert per_image(TINY, 4).weights == {"body.0.weight": 32 * 32 * 4 * 27, "out.weight": 256 * 4}


def test_the_speedup_of_the_notebooks_network():
    """The convolutions hold 0.16 % of the weights and a third of the multiplications: that bounds what zeros can save."""
    counts = per_image("notebook", 10).weights
    # of three million initial weights one may be 0 by chance
    weights = {name: torch.ones_like(w) for name, w in NotebookCNN().state_dict().items()}
    assert sparsity.speedup(weights, counts) == 1.0
    for name in ("l1.weight", "l2.weight", "l3.weight"):
        weights[name].zero_()
    assert sparsity.speedup(weights, counts) == pytest.approx(4_777_984 / 1_622_016)
    assert sparsity.speedup(weights, counts) == pytest.approx(2.95, abs=0.005)
    weights["conv2.weight"][:16] = 0
    assert sparsity.speedup(weights, counts) == pytest.approx(4_777_984 / (442_368 + 589_824))
    for w in weights.values():
        w.zero_()
    assert math.isnan(sparsity.speedup(weights, counts))
    assert math.isnan(sparsity.speedup(weights, {}))


class Odd(torch.nn.Module):
    """A strided and a grouped convolution, a transposed one, a dense layer used twice, and a product of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.strided = torch.nn.Conv2d(3, 8, 5, stride=2)
        self.grouped = torch.nn.Conv2d(8, 4, 3, groups=4)
        self.up = torch.nn.ConvTranspose2d(4, 2, 2, stride=2)
        self.same = torch.nn.Linear(24, 24)
        self.own = torch.nn.Parameter(torch.ones(24, 5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.same(self.same(self.up(self.grouped(self.strided(x))))).mean((1, 2))
        return x @ self.own


def test_the_multiplications_of_other_layers_are_counted_by_their_true_outputs():
    before = torch.get_rng_state()
    assert per_image("tests.measures.test_weights:Odd", 5).weights == {
        "strided.weight": 8 * 14 * 14 * 3 * 25, "grouped.weight": 4 * 12 * 12 * 2 * 9, "up.weight": 4 * 12 * 12 * 2 * 4,
        "same.weight": 2 * 2 * 24 * 24 * 24, "own": 24 * 5,
    }  # fmt: skip
    assert torch.equal(before, torch.get_rng_state())


HEADS, WIDTH, PLACES = 4, 64, 16


class Attends(torch.nn.Module):
    """On 16 places of 64 channels; need_weights=False is another kernel."""

    def __init__(self, num_classes: int = 10, need_weights: bool = True) -> None:
        super().__init__()
        self.need_weights = need_weights
        self.attention = torch.nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)
        self.out = torch.nn.Linear(WIDTH, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.flatten(1)[:, : PLACES * WIDTH].unflatten(1, (PLACES, WIDTH))
        return self.out(self.attention(x, x, x, need_weights=self.need_weights)[0].mean(1))


class AttendsFast(Attends):
    def __init__(self, num_classes: int = 10) -> None:
        super().__init__(num_classes, need_weights=False)


@pytest.mark.parametrize("network", ["Attends", "AttendsFast"])
def test_attention_is_counted_and_only_its_weights_can_be_left_out(network):
    """Products of images with each other are in both sums of the speed-up: no zero takes them away."""
    work = per_image(f"tests.measures.test_weights:{network}", 10)
    projections, inside = PLACES * WIDTH * WIDTH, 2 * PLACES * PLACES * WIDTH
    assert work == Work(
        {
            "attention.in_proj_weight": 3 * projections,
            "attention.out_proj.weight": projections,
            "out.weight": WIDTH * 10,
        },
        inside,
    )
    weights = Attends().state_dict()
    weights["attention.in_proj_weight"].zero_()
    weights["attention.out_proj.weight"].zero_()
    left = WIDTH * 10 + inside
    assert sparsity.speedup(weights, work.weights, work.others) == (4 * projections + left) / left


class Remembers(torch.nn.Module):
    """An LSTM there and back, a GRU cell by cell, and a dense layer with the weight of another."""

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        self.both = torch.nn.LSTM(96, 5, bidirectional=True)
        self.cell = torch.nn.GRUCell(10, 6)
        self.one, self.other = torch.nn.Linear(6, 6), torch.nn.Linear(6, 6)
        self.other.weight = self.one.weight
        self.out = torch.nn.Linear(6, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x, _ = self.both(x.transpose(1, 2).flatten(2).transpose(0, 1))
        h = x.new_zeros(x.shape[1], 6)
        for step in x[:3]:
            h = self.cell(step, h)
        return self.out(self.other(self.one(h)))


def test_recurrent_and_shared_weights_are_counted():
    assert per_image("tests.measures.test_weights:Remembers", 10).weights == {
        "both.weight_ih_l0": 32 * 20 * 96, "both.weight_hh_l0": 32 * 20 * 5,
        "both.weight_ih_l0_reverse": 32 * 20 * 96, "both.weight_hh_l0_reverse": 32 * 20 * 5,
        "cell.weight_ih": 3 * 18 * 10, "cell.weight_hh": 3 * 18 * 6, "one.weight": 2 * 36, "out.weight": 60,
    }  # fmt: skip


class Computed(torch.nn.Linear):
    def __init__(self, num_classes: int = 10) -> None:
        super().__init__(3, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.linear(x.mean((2, 3)), self.weight / self.weight.norm(), self.bias)


class ByHand(Computed):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x.mean((2, 3))[:, None] * self.weight).sum(2)


class InOneGo(Computed):
    def __init__(self, num_classes: int = 10) -> None:
        super().__init__(num_classes)
        self.pairs = torch.nn.Bilinear(3, 3, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = x.mean((2, 3))
        return self.pairs(h, h)


@pytest.mark.parametrize(
    ("network", "why"),
    [
        ("tests.measures.test_weights:Computed", "addmm takes what is computed from weight"),
        ("tests.measures.test_weights:ByHand", "mul takes weight"),
        ("tests.measures.test_weights:InOneGo", "trilinear takes pairs.weight"),
        ("tests.networks:NeedsArgument", "it does not run by itself"),
    ],
)
def test_what_cannot_be_told_is_said_and_has_no_speedup(network, why, caplog):
    per_image.cache_clear()
    for _ in range(2):
        assert why in per_image(network, 10).unknown
    assert caplog.text.count("has no theoretical_speedup") == 1 and network in caplog.text
