"""The stacked engine against the sequential one."""

import dataclasses
import gc
import weakref

import psutil
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from regbench import data, regularizers
from regbench.engines import sequential, stacked
from regbench.errors import UserError
from regbench.regularizers import Regularizer, cells
from regbench.training import convolutions, stack, stack_check, stacked_networks
from regbench.training.device_data import DeviceData
from regbench.training.events import Epoch, Failed, Started, Trained
from regbench.training.optimizer import Optimizer, Product
from regbench.trial import Recipe, Trial, grid
from tests.conftest import TINY

CPU = torch.device("cpu")
STEPS = 24
# rounding differs between the engines, and training amplifies it; in float64 it stays too small to matter
TOLERANCE = {"float32": 1e-4, "float64": 1e-10}
STRENGTHS = {
    "l1": 1e-4,
    "l2": 1e-3,
    "weight_decay": 1e-3,
    "l1_prox": 1e-4,
    "decoupled_wd": 1e-3,
    "elastic_net": 1e-3,
    "group_lasso": 1e-4,
    "max_norm": 3.0,
    "hoyer_square": 1e-5,
    "one_shot": 0.8,
    "random_pruning": 0.8,
    "random_at_init": 0.8,
    "imp": 0.8,
    "dropout": 0.5,
    "label_smoothing": 0.2,
    "input_noise": 0.2,
    "cutout": 0.5,
    "mixup": 1.0,
    "l1+weight_decay@0.03+label_smoothing@0.1": 1e-3,
    "tests.plugins:SumOfSizes": 1e-3,
    "tests.plugins:Orthogonal": 1e-3,
}


@pytest.fixture
def recipe(images) -> Recipe:
    return Recipe(images.name, images.fingerprint, 120, 40, TINY, epochs=3, batch_size=32, lr=0.05)


def mixed(recipe: Recipe, count: int | None = None) -> list[Trial]:
    """Trials of all regularizers, each at two lams, seeds mixed; the first `count` of them."""
    cells = [("none", 0.0), *STRENGTHS.items(), *((name, lam / 10) for name, lam in STRENGTHS.items())]
    return [Trial(recipe, name, lam, seed) for seed, (name, lam) in enumerate(cells)][:count]


def trained(events) -> dict[Trial, Trained]:
    return {event.trial: event for event in events if isinstance(event, Trained)}


def furthest(ours: Trained, theirs: Trained) -> float:
    """Return the largest relative difference of any tensor: norm of the difference over norm; NaN if one is NaN."""
    differences = [
        torch.linalg.vector_norm(ours.weights[name].double() - w.double()) / torch.linalg.vector_norm(w.double())
        for name, w in theirs.weights.items()
        if w.is_floating_point()
    ]
    return torch.stack(differences).max().item()


@pytest.mark.parametrize(
    ("model", "precision", "steps", "alone"),
    [(TINY, "float32", STEPS, False), ("tests.networks:Normalized", "float64", 12, True)],
)
def test_a_stack_of_any_size_trains_as_the_sequential_engine_does(recipe, images, model, precision, steps, alone):
    """Every regularizer at two lams in one stack, and each in a stack of one."""
    recipe = dataclasses.replace(recipe, model=model, precision=precision, batch_size=20, epochs=steps // 4, lr=0.01)
    device_data = DeviceData(images, CPU)
    trials = mixed(recipe)
    assert {trial.regularizer for trial in trials} >= set(regularizers.REGISTRY)
    expected = trained(sequential.train(trials, device_data))
    once = trials[: len(regularizers.REGISTRY)]
    for some, size in ((trials, len(trials)), *([(once, 1)] if alone else [])):
        found = trained(stacked.train(some, device_data, size))
        for trial in some:
            assert furthest(found[trial], expected[trial]) <= TOLERANCE[precision], (size, trial.name)


@pytest.mark.parametrize(("precision", "steps"), [("float32", 3), ("float64", 2), ("bf16", 2)])
def test_the_notebooks_network_has_its_own_path(precision, steps, tmp_path):
    """It is the same function as vmap and as the module, gradients into the momentum included."""
    digits = data.load("digits", tmp_path)
    # each test image is looked at seven times, slowly in 16 bits
    digits = dataclasses.replace(digits, test_images=digits.test_images[:50], test_labels=digits.test_labels[:50])
    recipe = Recipe("digits", "", 50 * steps, 0, epochs=1, batch_size=50, precision=precision)
    cells = [("none", 0.0), ("l1", 1e-4), ("dropout", 0.5), ("one_shot", 0.5)]
    trials = [Trial(recipe, name, lam, 0) for name, lam in cells[: 2 if precision == "bf16" else 4]]
    device_data = DeviceData(digits, CPU)
    expected, found = (trained(engine.train(trials, device_data)) for engine in (sequential, stacked))
    tolerance = {"float32": 1e-4, "float64": 1e-10, "bf16": 3e-2}[precision]
    for trial in trials:
        assert furthest(found[trial], expected[trial]) <= tolerance, trial.name


def test_both_convolutions_are_torchs():
    generator = torch.Generator().manual_seed(0)
    x, weight, bias = (torch.randn(shape, generator=generator) for shape in ((3, 5, 4, 8, 8), (3, 6, 4, 3, 3), (3, 6)))
    for name, convolution in convolutions.CONVOLUTIONS.items():
        found = convolution(x, weight, bias)
        for row in range(3):
            y = torch.nn.functional.conv2d(x[row], weight[row], bias[row], padding=1)
            expected = torch.nn.functional.max_pool2d(y.relu(), 2)
            torch.testing.assert_close(found[row], expected, msg=name)


def test_a_gpus_convolution_stays_that_of_the_first_measurement(recipe, monkeypatch):
    """Two that are about as fast are rounded differently: what goes on in a later process must not take the other."""
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "a GPU")
    for slower in ("grouped", "unfolded"):
        convolutions._measured.cache_clear()
        monkeypatch.setattr(
            convolutions, "_seconds", lambda way, *_, slow=slower: float(way is convolutions.CONVOLUTIONS[slow])
        )
        assert convolutions.fastest_convolution(recipe, 8, torch.device("cuda")) == "unfolded"
    convolutions._measured.cache_clear()


def test_the_events_are_those_of_the_sequential_engine(recipe, images):
    trials, device_data = mixed(recipe, 4), DeviceData(images, CPU)
    ours = list(stacked.train(trials, device_data, 4))
    theirs = list(sequential.train(trials, device_data))
    for trial in trials:
        mine, other = ([e for e in events if e.trial == trial] for events in (ours, theirs))
        assert [type(event) for event in mine] == [Started, *[Epoch] * 3, Trained] == [type(event) for event in other]
        for left, right in zip(mine[1:4], other[1:4], strict=True):
            assert left.metrics.keys() == right.metrics.keys()
            for name in set(left.metrics) - {"time/epoch"}:
                assert left.metrics[name] == pytest.approx(right.metrics[name], rel=1e-4), name
        assert mine[-1].parameters == other[-1].parameters
        torch.testing.assert_close(mine[-1].test_logits, other[-1].test_logits, rtol=1e-3, atol=1e-4)
        assert torch.equal(mine[-1].train_labels, other[-1].train_labels)


def test_a_trial_that_diverges_leaves_its_neighbours_bitwise_alone(recipe, images):
    device_data = DeviceData(images, CPU)
    good = [Trial(recipe, "l2", 1e-3, 0), Trial(recipe, "l2", 1e-4, 1)]
    bad = Trial(recipe, "l2", 1e36, 2)
    calm = trained(stacked.train([*good, Trial(recipe, "l2", 1e-5, 2)], device_data, 3))
    beside = list(stacked.train([*good, bad], device_data, 3))
    assert trained(beside)[bad].diverged.startswith("the training loss is nan in epoch")
    assert sum(isinstance(event, Epoch) and event.trial == bad for event in beside) < 3
    for trial in good:
        for name, w in calm[trial].weights.items():
            assert torch.equal(trained(beside)[trial].weights[name], w)


@pytest.mark.parametrize("model", [TINY, "notebook"])
def test_a_row_of_nan_is_not_noticed_by_any_regularizers_other_rows(recipe, images, model):
    """Two trials of each beside each other; the second ones have lost their weights. Pruning comes at the end."""
    recipe = dataclasses.replace(recipe, model=model, epochs=1)
    cells = [("none", 0.0), *STRENGTHS.items()] if model == TINY else [("dropout", 0.5), ("label_smoothing", 0.2)]
    trials = [Trial(recipe, name, lam, seed) for name, lam in cells for seed in (0, 1)]
    device_data = DeviceData(images, CPU)
    calm, beside = (stack.Training(trials, device_data) for _ in range(2))
    with torch.no_grad():
        for w in beside.stack.parameters.values():
            w[1::2] = torch.nan
    results, expected = beside.epoch(1), calm.epoch(1)
    for row, trial in enumerate(trials):
        if row % 2:
            assert results[row]["train/loss"] != results[row]["train/loss"]
            continue
        assert results[row] | {"time/epoch": 0} == expected[row] | {"time/epoch": 0}, trial.name
        for name, w in calm.stack.parameters.items():
            assert torch.equal(beside.stack.parameters[name][row], w[row]), (trial.name, name)


def test_what_is_added_to_the_loss_makes_nothing_on_the_host(recipe):
    """A GPU would wait for the copy at each step, and refuse to record it."""

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, operation, types, given=(), named=None):
            assert operation is not torch.ops.aten.lift_fresh.default  # a Python number becomes a tensor
            return operation(*given, **(named or {}))

    optimizer = Optimizer(
        [torch.randn(2, 5, 4)], [Trial(recipe, "none", 0.0, 0), Trial(recipe, "label_smoothing", 0.2, 0)]
    )
    logits, labels = torch.randn(2, 8, 4), torch.arange(16).view(2, 8) % 4
    optimizer.added_loss(logits, labels)
    with Watch():
        first, second = optimizer.added_loss(logits, labels)
    assert first == 0 != second


class RaisesLate(Regularizer):
    """Raises at its tenth call."""

    name, lams = "raises_late", (1.0,)
    calls = 0

    def add_grad(self, p, g, lam):
        self.calls += 1
        if self.calls > 10:
            raise ValueError("no tenth time")


@pytest.mark.parametrize("engine", [sequential, stacked])
def test_a_regularizer_that_raises_fails_its_own_trials_only(recipe, images, monkeypatch, engine):
    monkeypatch.setitem(regularizers.REGISTRY, "raises_late", RaisesLate)
    device_data = DeviceData(images, CPU)
    good = [Trial(recipe, "l1", 1e-3, 0), Trial(recipe, "weight_decay", 1e-3, 0)]
    bad = [Trial(recipe, "raises_late", 1.0, seed) for seed in (0, 1)]
    expected = trained(engine.train(good, device_data))
    events = list(engine.train([good[0], *bad, good[1]], device_data))
    failed = {event.trial: event.reason for event in events if isinstance(event, Failed)}
    assert set(failed) == set(bad)
    assert set(failed.values()) == {"add_grad raised ValueError: no tenth time"}
    for trial, result in expected.items():
        assert furthest(trained(events)[trial], result) <= 1e-5


@pytest.mark.parametrize("when", [1, 7])
def test_a_stack_that_does_not_fit_is_halved_until_it_does(recipe, images, monkeypatch, when):
    """Out of memory in a step; each trial still ends once, and no epoch is told twice."""
    step, sizes = stack.Training.step, []

    def limited(training, pictures, labels):
        sizes.append(len(training.trials))
        if len(training.trials) > 2 and sizes.count(len(training.trials)) >= when:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return step(training, pictures, labels)

    monkeypatch.setattr(stack.Training, "step", limited)
    trials = mixed(recipe, 7)
    events = list(stacked.train(trials, DeviceData(images, CPU), 7))
    told = [(event.trial, type(event), getattr(event, "epoch", 0)) for event in events]
    assert len(told) == len(set(told)) == 7 * 5
    assert set(trained(events)) == set(trials)
    assert list(dict.fromkeys(sizes)) == [7, 3, 1]


def test_one_trial_without_room_is_failed(recipe, images, monkeypatch):
    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(stack.Training, "step", full)
    events = list(stacked.train(mixed(recipe, 3), DeviceData(images, CPU), 3))
    assert [event.reason for event in events if isinstance(event, Failed)] == [
        "OutOfMemoryError: CUDA out of memory"
    ] * 3


def test_trials_of_several_recipes_go_into_several_stacks(recipe, images):
    other = dataclasses.replace(recipe, batch_size=10)
    sweep = [*grid(recipe, cells(["l1"], [1e-3]), [0]).trials, *grid(other, cells(["l1"], [1e-3]), [0]).trials]
    assert set(trained(stacked.train(sweep, DeviceData(images, CPU), 4))) == set(sweep)


def test_what_draws_random_numbers_is_refused(recipe, images):
    with pytest.raises(UserError, match=r"engine='stacked' cannot train model='tests.networks:Noisy' .*sequential"):
        stack_check.check(dataclasses.replace(recipe, model="tests.networks:Noisy"), images)
    stack_check.check(recipe, images)
    stack_check.check(dataclasses.replace(recipe, model="notebook"), images)


@pytest.mark.parametrize("model", ["notebook", TINY])
def test_an_exception_in_backward_leaves_nothing_of_the_stack(recipe, images, model, monkeypatch):
    """Where memory runs out there, the halves of the stack find it free again."""
    alive, sizes = [], []
    make = stacked_networks.build

    def build(trials, *rest):
        gc.collect()
        assert not [stack for stack in alive if stack() is not None], "an earlier stack is still there"
        stack = make(trials, *rest)
        alive.append(weakref.ref(stack))
        sizes.append(len(trials))
        forward = stack._forward

        def out_of_memory(_):
            raise torch.OutOfMemoryError("CUDA out of memory")

        def guarded(x):
            logits = forward(x)
            if logits.requires_grad and len(trials) > 1:
                next(iter(stack.parameters.values())).register_hook(out_of_memory)
            return logits

        stack._forward = guarded
        return stack

    monkeypatch.setattr(stacked_networks, "build", build)
    recipe = dataclasses.replace(recipe, model=model, epochs=1)
    trials = [Trial(recipe, "none", 0.0, seed) for seed in (0, 1)]
    found = trained(stacked.train(trials, DeviceData(images, CPU), 2))
    assert set(found) == set(trials)
    assert sizes == [2, 1, 1]


def test_as_many_trials_as_the_memory_takes(recipe, images, monkeypatch):
    device_data, trial = DeviceData(images, CPU), Trial(recipe, "none", 0.0, 0)
    size = stacked.bytes_per_trial(trial, device_data)
    kept = sum(p.nbytes for p in stacked_networks.build([trial], 4, CPU).state.values())
    assert size > 4 * kept  # activations are counted too
    for fit in (0.5, 3.5, 1000):
        memory = type("Memory", (), {"total": fit * size / stacked.SHARE})
        monkeypatch.setattr(stacked.psutil, "virtual_memory", lambda memory=memory: memory)
        assert stacked.capacity(trial, device_data) == min(stacked.LARGEST["cpu"], max(1, int(fit)))


@pytest.mark.parametrize("model", ["notebook", TINY])
def test_measuring_a_trials_memory_leaves_nothing_of_it(recipe, images, model, monkeypatch):
    weights, make = [], stacked_networks.build

    def build(*given):
        stack = make(*given)
        weights.extend(map(weakref.ref, stack.parameters.values()))
        return stack

    monkeypatch.setattr(stacked_networks, "build", build)
    trial = Trial(dataclasses.replace(recipe, model=model), "none", 0.0, 0)
    assert stacked.bytes_per_trial(trial, DeviceData(images, CPU)) > 0
    gc.collect()
    assert weights and not [w for w in weights if w() is not None]


def test_the_same_stacks_are_made_whatever_else_the_machine_does(recipe, images, monkeypatch):
    """By the memory that there is: with what is free, a sweep that is started again would round otherwise."""
    device_data, trial = DeviceData(images, CPU), Trial(recipe, "none", 0.0, 0)
    found = psutil.virtual_memory()
    monkeypatch.setattr(stacked.psutil, "virtual_memory", lambda: found._replace(available=1))
    assert stacked.capacity(trial, device_data) == stacked.LARGEST["cpu"]


def test_a_network_that_runs_nowhere_fails_as_trials_and_the_others_go_on(recipe, images, monkeypatch):
    """As one that mixes devices on a GPU, which is first seen where stacks are sized."""
    bad = dataclasses.replace(recipe, model="tests.networks:RaisesInTraining", epochs=1)
    good = dataclasses.replace(recipe, epochs=1)
    trials = [Trial(each, "none", 0.0, seed) for each in (bad, good) for seed in (0, 1)]
    events = list(stacked.train(trials, DeviceData(images, CPU)))
    assert {event.trial for event in events if isinstance(event, Failed)} == set(trials[:2])
    assert set(trained(events)) == set(trials[2:])
    assert {event.together for event in events if isinstance(event, Trained)} == {2}


def test_a_gpu_that_refuses_everything_ends_trials_and_not_the_sweep(recipe, images, monkeypatch):
    def refuse(*_):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    device_data = DeviceData(images, CPU)
    device_data.device = torch.device("cuda")
    monkeypatch.setattr(stacked, "_train_stack", refuse)
    monkeypatch.setattr(stacked, "recordable", lambda *_: False)
    monkeypatch.setattr(stacked.checkpoint, "stacks", lambda *_: [])
    monkeypatch.setattr(torch.cuda, "empty_cache", refuse)
    trials = mixed(recipe, 3)
    events = list(stacked.train(trials, device_data, 3))
    assert {event.trial for event in events if isinstance(event, Failed)} == set(trials)


def test_a_product_is_the_gradient_that_it_stands_for(recipe):
    generator = torch.Generator().manual_seed(0)
    trials = mixed(recipe, 7)
    weight = torch.randn(7, 6, 5, generator=generator, dtype=torch.float64)
    weights = [weight.clone(), weight.clone()]
    optimizers = [Optimizer([w], trials) for w in weights]
    for _ in range(3):
        left, right = (torch.randn(7, 4, n, generator=generator, dtype=torch.float64) for n in (6, 5))
        optimizers[0].step([Product(left, right)])
        optimizers[1].step([left.mT @ right])
    torch.testing.assert_close(*weights, rtol=1e-12, atol=1e-14)
