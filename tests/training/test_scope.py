"""What is regularized: by dimensions, by what a layer is, by patterns of names; alike in both engines."""

import dataclasses
from fnmatch import fnmatchcase

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from regbench import networks
from regbench.api import parsing
from regbench.commands import sweep
from regbench.engines import sequential, stacked
from regbench.errors import UserError
from regbench.results import Result, describe
from regbench.tracking.schema import trial_params
from regbench.training import scope, single, stack
from regbench.training.device_data import DeviceData
from regbench.training.events import Trained
from regbench.training.optimizer import Optimizer
from regbench.trial import SCOPES, Recipe, Sweep, Trial, grid
from tests.conftest import TINY

CPU = torch.device("cpu")
NET = "tests.golden:Net"
NORM = ["norm.weight", "norm.bias"]
EACH = ["weights", "all", "no_norm", "conv.*", "*.bias,out.weight"]


@pytest.fixture
def recipe(images) -> Recipe:
    return Recipe(
        images.name, images.fingerprint, 60, 20, NET, epochs=2, batch_size=20, lr=0.05, precision="float64"
    )  # fmt: skip


def names(text: str, spec: str = NET) -> list[str]:
    return [name for name, inside in scope.selected(text, networks.build(spec, 4)).items() if inside]


def test_what_a_scope_selects():
    every = names("all")
    assert every == [f"{layer}.{kind}" for layer in ("conv", "norm", "hidden", "out") for kind in ("weight", "bias")]
    assert names("weights") == ["conv.weight", "hidden.weight", "out.weight"]
    assert names("no_norm") == [name for name in every if name not in NORM]
    assert names("no_norm", TINY) == names("all", TINY)
    assert names("conv*,hidden.weight") == ["conv.weight", "conv.bias", "hidden.weight"]
    assert names("no*") == NORM
    assert [name for name in names("no_norm", "resnet8") if "bn" in name] == []
    assert len(names("no_norm", "resnet8")) == 9


@given(
    st.sets(st.sampled_from([f"{layer}.{kind}" for layer in ("conv", "norm", "out") for kind in ("weight", "bias")]))
)
def test_names_are_patterns_of_themselves(some):
    if some:
        assert set(names(",".join(some))) == some


@given(st.lists(st.text("abc.*?[]!1", min_size=1, max_size=4), min_size=1, max_size=4, unique=True))
def test_the_order_of_patterns_has_no_meaning(patterns):
    (found,) = parsing.scopes(", ".join(patterns))
    assert (found,) == parsing.scopes(",".join(reversed(patterns))) == parsing.scopes(found)
    for name in ("a.b", "c1", "abc.a"):
        assert any(fnmatchcase(name, one) for one in found.split(",")) == any(
            fnmatchcase(name, one) for one in patterns
        )


@pytest.mark.parametrize("text", SCOPES)
def test_words_are_taken_as_they_are(text):
    assert parsing.scopes(f" {text} ") == (text,)


def test_several_words_are_several_scopes():
    assert parsing.scopes("no_norm, all") == ("no_norm", "all")


def test_what_is_not_trained_is_in_no_scope():
    model = networks.build(NET, 4)
    model.hidden.requires_grad_(False)
    assert not [name for text in EACH for name in scope.selected(text, model) if name.startswith("hidden")]


@pytest.mark.parametrize("text", EACH)
def test_a_step_of_either_engine_regularizes_what_is_in_it(recipe, images, text):
    """The first step of l2 differs from that of `none` in what is in scope, and there alone."""
    device_data = DeviceData(images, CPU)
    base, other = Trial(recipe, "none", 0.0, 0), Trial(recipe, "l2", 0.5, 0, text)
    inside = set(names(text))
    alone = [single.Training(trial, device_data.num_classes, CPU) for trial in (base, other)]
    together = stack.Training([other, base], device_data)
    for w in (p for training in alone for p in training.parameters.values()):
        w.data.add_(0.1)  # a new bias of a norm is 0, which has no gradient by l2
    for w in together.stack.parameters.values():
        w.data.add_(0.1)
    chosen = together.train_part[:, :20]
    for training in alone:
        training.step(device_data.train_images[chosen[0]], device_data.train_labels[chosen[0]])
    together.batch(chosen)
    for name, w in alone[0].parameters.items():
        assert torch.equal(w, alone[1].parameters[name]) == (name not in inside), name
        rows = together.stack.parameters[name]
        assert torch.equal(rows[0], rows[1]) == (name not in inside), name


def test_scopes_beside_each_other_train_as_alone(recipe, images):
    trials = [Trial(recipe, name, lam, seed, text) for seed, text in enumerate(EACH) for name, lam in
              (("group_lasso", 1e-2), ("imp", 0.5))]  # fmt: skip
    device_data = DeviceData(images, CPU)
    alone = {event.trial: event for event in sequential.train(trials, device_data) if isinstance(event, Trained)}
    together = [event for event in stacked.train(trials, device_data, len(trials)) if isinstance(event, Trained)]
    assert len(together) == len(alone) == len(trials)
    for event in together:
        for name, w in alone[event.trial].weights.items():
            torch.testing.assert_close(event.weights[name], w, rtol=1e-9, atol=1e-11, msg=f"{event.trial.name} {name}")
        if event.trial.regularizer == "imp":
            inside = names(event.trial.scope)
            zeros = sum(int((event.weights[name] == 0).sum()) for name in inside)
            assert zeros == pytest.approx(0.5 * sum(event.weights[name].numel() for name in inside), abs=1)


def test_a_gpu_takes_a_tensor_at_once_and_the_same_ones(recipe):
    """Its one piece of a tensor holds the trials that have it in scope, and no others."""
    model = networks.build(NET, 4)
    trials = [Trial(recipe, "l1", 1e-3, 0, text) for text in EACH]
    weights = [p.detach().expand(len(EACH), *p.shape) for p in model.parameters()]
    optimizer = Optimizer(weights, trials, scope.covered(trials, model))
    optimizer.weights = [w.to("meta") for w in weights]
    for index, (name, _) in enumerate(model.named_parameters()):
        (piece,) = optimizer._pieces(index)
        found = [EACH[row] for term in piece.terms for row in range(term.rows.start, term.rows.stop)]
        assert found == [text for text in EACH if name in names(text)], name


def test_a_pattern_of_nothing_names_the_parameters():
    with pytest.raises(UserError) as refused:
        scope.check("conv.*,l1.*", NET, 4)
    assert str(refused.value).startswith(
        f"scope='conv.*,l1.*': 'l1.*' matches no parameter of model={NET!r}; accepted: "
    )
    assert "conv.weight, conv.bias, norm.weight" in str(refused.value)
    scope.check("conv.*,out.*", NET, 4)


def test_what_is_in_it_and_what_is_left_out_is_told():
    assert scope.describe("no_norm", "notebook_bn", 10) == (
        "scope no_norm: 6 tensors with 3,161,018 weights; left out 8 tensors with 4,192 "
        "(bn1.weight, bn1.bias, bn2.weight, bn2.bias and 4 more)"
    )
    assert scope.describe("l3.bias", "notebook", 10).startswith(
        "scope l3.bias: 1 tensor with 10 weights; left out 9 ten"
    )
    assert scope.describe("no_norm", "notebook", 10) == "scope no_norm: 10 tensors with 3,163,114 weights"


def test_trials_carry_it(recipe):
    one, other = (Trial(recipe, "l1", 1e-3, 0, text) for text in ("conv*", "conv*,l1.weight"))
    assert other.name == "l1 lam=1e-3 scope=conv*,l1.weight seed=0"
    assert other.method == "l1 scope=conv*,l1.weight"
    assert trial_params(other)["scope"] == "conv*,l1.weight"
    assert len({one.key, other.key, *(dataclasses.replace(one, scope=text).key for text in SCOPES)}) == 5


def test_a_sweeps_description_shows_its_stars(recipe):
    trial = Trial(recipe, "l1", 1e-3, 0, "conv*,l*")
    text = describe(Sweep((trial,)), {trial.key: Result(trial, "ok", {"test/accuracy": 0.5})}, {})
    assert r"| l1 lam=1e-3 scope=conv\*,l\* |" in text


@pytest.mark.usefixtures("database")
def test_a_sweep_of_patterns_says_so_and_trains(run_here):
    options = {
        "dataset": "digits",
        "train_size": 120,
        "epochs": 1,
        "seeds": "0",
        "reg": "l1",
        "lam": "0.1",
        "model": TINY,
    }
    code, out = run_here(sweep.main, scope="out.*, body.0.weight", **options)
    assert code == 0, out
    assert "scope body.0.weight,out.*: 3 tensors with 2,678 weights; left out 1 tensor with 4 (body.0.bias)" in out
    assert "l1 lam=0.1 scope=body.0.weight,out.*" in out
    code, out = run_here(sweep.main, scope="body.0.weight,out.*", dry_run=True, **options)
    assert code == 0 and "2 finished already, 0 to train" in out


def test_none_serves_every_scope(recipe):
    trials = grid(recipe, [("none", 0.0), ("l1", 1e-3)], [0], "conv*").trials
    assert [trial.scope for trial in trials] == ["weights", "conv*"]


def test_a_scope_is_of_what_is_trained_in_training():
    """A part that train() freezes is in no scope, nor in the plan."""
    with pytest.raises(UserError, match=r"'body\*' matches no parameter of model='tests.networks:FreezesInTraining'"):
        scope.check("body*", "tests.networks:FreezesInTraining", 10)
    assert "body" not in scope.describe("all", "tests.networks:FreezesInTraining", 10)
