"""The accuracy of pruned networks: what is zeroed, and that the weights come back."""

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from regbench.engines import sequential, stacked
from regbench.measures import SHARES
from regbench.measures import weights as sparsity
from regbench.measures.logits import classification
from regbench.measures.pruned import curves
from regbench.training import single
from regbench.training.device_data import DeviceData
from regbench.training.events import Trained
from regbench.trial import Recipe, Trial
from tests.conftest import TINY

CPU = torch.device("cpu")
LABELS = torch.tensor([0, 1])


@settings(max_examples=50, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    zeros=st.sampled_from([0.0, 0.3, 0.97]),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_the_smallest_of_each_network_are_zeroed_and_put_back(seed, zeros, dtype):
    generator = torch.Generator().manual_seed(seed)
    weights = {
        name: torch.randn(3, *shape, generator=generator, dtype=dtype)
        for name, shape in {"a": (5, 4), "b": (2, 3, 3), "bias": (7,)}.items()
    }
    weights["a"] *= torch.rand(3, 5, 4, generator=generator, dtype=dtype) > zeros
    before = {name: w.clone() for name, w in weights.items()}
    seen: list[dict[str, torch.Tensor]] = []
    logits = torch.zeros(3, 2, 2, dtype=dtype)

    def predict() -> torch.Tensor:
        seen.append({name: w.clone() for name, w in weights.items()})
        return logits

    found = curves(weights, logits, predict, LABELS)
    assert found == [dict.fromkeys(SHARES, 0.5)] * 3
    for name, w in weights.items():
        # as integers, so that minus zero is told from zero
        integers = torch.int32 if dtype == torch.float32 else torch.int64
        assert torch.equal(w.view(integers), before[name].view(integers)), name
    assert len(seen) == len(SHARES) - 1
    for row in range(3):
        flat = torch.cat([before[name][row].flatten() for name in ("a", "b")])
        last = 0
        for share, state in zip(SHARES[1:], seen, strict=True):
            now = torch.cat([state[name][row].flatten() for name in ("a", "b")])
            zero = now == 0
            count = int(zero.sum())
            assert count == max(round(share * len(flat)), int((flat == 0).sum())) >= last
            assert torch.equal(now[~zero], flat[~zero])
            if 0 < count < len(flat):
                assert flat[zero].abs().max() < flat[~zero].abs().min()
            last = count
            assert torch.equal(state["bias"], before["bias"])


def test_networks_that_are_not_finite_have_no_curve_and_the_others_do():
    weights = {"w": torch.randn(4, 6, 2), "b": torch.zeros(4, 2)}
    logits = torch.zeros(4, 2, 2)
    weights["w"][1, 0, 0] = torch.nan
    weights["b"][2, 0] = torch.inf
    logits[3, 0, 0] = torch.nan
    found = curves(weights, logits, lambda: logits, LABELS)
    assert [bool(curve) for curve in found] == [True, False, False, False]
    assert weights["w"][1, 0, 0].isnan()
    assert curves({"b": torch.zeros(1, 2)}, logits[:1], lambda: logits[:1], LABELS) == [{}]


def test_the_weights_come_back_if_the_prediction_fails():
    weights = {"w": torch.randn(1, 6, 2)}
    before = weights["w"].clone()
    with pytest.raises(RuntimeError, match="no"):
        curves(weights, torch.zeros(1, 2, 2), lambda: (_ for _ in ()).throw(RuntimeError("no")), LABELS)
    assert torch.equal(weights["w"], before)


@pytest.fixture
def recipe(images) -> Recipe:
    return Recipe(images.name, images.fingerprint, 120, 40, TINY, epochs=3, batch_size=32, lr=0.05, precision="float64")


@pytest.mark.parametrize("model", [TINY, "tests.networks:Normalized"])
def test_both_engines_tell_the_curve_that_the_weights_they_return_have(recipe, images, model):
    trials = [Trial(dataclasses.replace(recipe, model=model), "l2", lam, 0) for lam in (1e-3, 1e-5)]
    device_data = DeviceData(images, CPU)
    for events in (sequential.train(trials, device_data), stacked.train(trials, device_data, 2)):
        trained = [event for event in events if isinstance(event, Trained)]
        assert len(trained) == 2
        for event in trained:
            training = single.Training(event.trial, device_data.num_classes, CPU)
            training.model.load_state_dict(event.weights)
            dense = classification(training.predict(device_data.test_images), device_data.test_labels)["accuracy"]
            assert event.pruned[0.0] == dense
            for share in SHARES[1:]:
                state = dict(event.weights)
                matrices = sparsity.regularized({name: state[name] for name in event.parameters})
                cut = sparsity.ascending(torch.cat([w.flatten() for w in matrices.values()]))
                cut = cut[round(share * len(cut)) - 1]
                state |= {name: torch.where(w.abs() <= cut, 0, w) for name, w in matrices.items()}
                training.model.load_state_dict(state)
                found = classification(training.predict(device_data.test_images), device_data.test_labels)
                assert event.pruned[share] == pytest.approx(found["accuracy"]), share


def test_a_trial_that_diverges_has_no_curve_and_its_neighbour_has(recipe, images):
    trials = [Trial(dataclasses.replace(recipe, precision="float32"), "l2", lam, 0) for lam in (1e36, 1e-5)]
    device_data = DeviceData(images, CPU)
    for events in (sequential.train(trials, device_data), stacked.train(trials, device_data, 2)):
        found = {event.trial: event.pruned for event in events if isinstance(event, Trained)}
        assert found[trials[0]] == {}
        assert tuple(found[trials[1]]) == SHARES
