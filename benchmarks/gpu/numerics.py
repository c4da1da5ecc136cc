"""Does a GPU compute the right thing: convolutions, engines, recorded steps, and nothing that waits for the device."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.gpu.setting import Setting, alone, difference, furthest, require, row, together, trials, within
from regbench.errors import one_line
from regbench.regularizers import BASELINE, REGISTRY
from regbench.training import precision, single, stack
from regbench.training.convolutions import CONVOLUTIONS
from regbench.training.device_data import DeviceData
from regbench.training.randomness import noise
from regbench.trial import Trial

# channels in and out, and the side of the image, of the notebook's two
LAYERS = ((3, 16, 32), (16, 32, 16))
# norm of the difference over norm: of values, of the median row's gradient, and of all gradients. A rounding that makes
# another of four pixels the largest moves a whole gradient to it: in few rows, but where factors have 8 bits
CONVOLUTION_TOLERANCE = {
    "float64": (1e-12, 1e-11, 1e-11),
    "float32": (3e-5, 3e-5, 3e-2),
    "tf32": (2e-3, 0.1, 0.1),
    "bf16": (1e-2, 0.2, 0.2),
}
# after some steps in float64
ENGINE_TOLERANCE = 1e-9
# with each of the recipes beside the plain one, in a stack of their own
PLAIN = (BASELINE, "l1", "decoupled_wd")
OTHERS = {
    "nesterov": {"optimizer": "nesterov"},
    "adam": {"optimizer": "adam", "lr": 1e-3},
    "ema": {"average": "ema"},
    "flip_crop": {"augment": "flip_crop"},
    "cosine": {"schedule": "cosine"},
    "notebook_bn": {"model": "notebook_bn"},
    "resnet8": {"model": "resnet8"},
}


def convolutions(setting: Setting, found: dict) -> None:
    """Compare both convolutions with float64 on the CPU, and with themselves: values and gradients."""
    problems, sizes = [], setting.sizes
    found["tolerance of values, the median row's gradient, gradients"] = CONVOLUTION_TOLERANCE
    for count in sizes.stacks:
        for layer in LAYERS:
            given = _layer(count, sizes.images, *layer)
            expected = [torch.stack(rows).to(setting.device) for rows in zip(*map(_reference, *given), strict=True)]
            for kind in setting.precisions:
                moved = [x.to(setting.device, precision.dtype(kind)) for x in given]
                for name, convolution in CONVOLUTIONS.items():
                    what = f"K={count} {layer[0]}->{layer[1]} {kind} {name}"
                    try:
                        with precision.settings(kind, setting.device):
                            once, again = (_with_gradients(convolution, kind, *moved) for _ in range(2))
                    except torch.OutOfMemoryError:
                        found[what] = "does not fit"
                        continue
                    values, *gradients = map(difference, once, expected)
                    medians = map(_median_difference, once[1:], expected[1:])
                    apart = found[what] = [values, max(medians), max(gradients)]
                    if not all(map(within, apart, CONVOLUTION_TOLERANCE[kind])):
                        problems.append(f"{what} is off by {', '.join(f'{value:.1e}' for value in apart)}")
                    if not all(map(torch.equal, once, again)):
                        problems.append(f"{what} is not the same twice")
    require(problems)


def _layer(count: int, images: int, channels: int, out: int, side: int) -> list[Tensor]:
    """Return pixels, weights, biases and the gradient of what comes out, [K, ...] in float64 on the CPU."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(count, images, channels, side, side, generator=generator)
    weight = torch.randn(count, out, channels, 3, 3, generator=generator) / (3 * channels**0.5)
    bias = torch.randn(count, out, generator=generator) / 10
    gradient = torch.randn(count, images, out, side // 2, side // 2, generator=generator)
    return [some.double() for some in (x, weight, bias, gradient)]


def _with_gradients(convolution: Callable, kind: str, *given: Tensor) -> list[Tensor]:
    *inputs, gradient = given
    inputs = [x.detach().requires_grad_() for x in inputs]
    with precision.autocast(kind, gradient.device):
        y = convolution(*inputs)
    return [y.detach(), *torch.autograd.grad(y, inputs, gradient.to(y))]


def _median_difference(found: Tensor, expected: Tensor) -> float:
    """Return the median over the rows [K, n, ...] of the norm of the difference over the norm."""
    norms = [
        torch.linalg.vector_norm(x.reshape(*x.shape[:2], -1), dim=2) for x in (found.double() - expected, expected)
    ]
    return (norms[0] / norms[1].clamp(min=1e-300)).median().item()


def _reference(*given: Tensor) -> list[Tensor]:
    """Return what one network's layer makes of its images, and the gradients."""

    def plain(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return F.max_pool2d(F.conv2d(x, weight, bias, padding=1).relu(), 2)

    return _with_gradients(plain, "float64", *given)


def engines(setting: Setting, found: dict) -> None:
    """Compare float64 steps of each regularizer, optimizer and network: in a stack, alone, and alone on the CPU."""
    data, host = setting.data, DeviceData(setting.few, torch.device("cpu"))
    plain = {"precision": "float64", "model": setting.sizes.model}
    stacks = {"sgd": trials(setting.recipe(**plain))}
    stacks |= {name: trials(setting.recipe(**plain | options), PLAIN) for name, options in OTHERS.items()}
    found["tolerance"] = ENGINE_TOLERANCE
    problems = []
    for kind, some in stacks.items():
        stacked = together(some, data)
        for number, trial in enumerate(some):
            here = alone(trial, data).parameters
            differences = {"stacked": furthest(row(stacked, number), here)}
            if data.device.type != "cpu":
                differences["device"] = furthest(here, alone(trial, host).parameters)
            what = f"{kind} {trial.name}"
            found[what] = differences
            problems += [
                f"{what}: {way} differs by {value:.1e}"
                for way, value in differences.items()
                if not within(value, ENGINE_TOLERANCE)
            ]
    require(problems)


def replay(setting: Setting, found: dict) -> None:
    """Compare recorded steps with those done each time, bit for bit: each regularizer, a mixed stack, each precision."""
    setting.need_gpu()
    names, problems = list(REGISTRY), []
    stacks: dict[str, list[Trial]] = {}
    for kind in setting.precisions:
        recipe = setting.recipe(precision=kind)
        stacks |= {f"{kind} {name}": trials(recipe, [name], (0, 1)) for name in names}
        stacks[f"{kind} mixed"] = trials(recipe, names)
    stacks |= {name: trials(setting.recipe(**options), PLAIN) for name, options in OTHERS.items()}
    faithful = {trial.recipe: stack.recordable([trial], setting.data) for some in stacks.values() for trial in some[:1]}
    found["stacks"] = len(stacks)
    for what, some in stacks.items():
        if not faithful[some[0].recipe]:
            problems.append(f"{what}: steps are not recorded")
            continue
        plain, recorded = (together(some, setting.data, record) for record in (False, True))
        if recorded.recording is None:
            problems.append(f"{what}: recording failed")
        same = recorded.state | {"sums": recorded.sums}
        if differing := [n for n, w in (plain.state | {"sums": plain.sums}).items() if not torch.equal(w, same[n])]:
            problems.append(f"{what}: {len(differing)} tensors differ, as {differing[0]}")
    require(problems)


def waiting(setting: Setting, found: dict) -> None:
    """Have torch raise for whatever waits for the device within an epoch, of either engine, recorded or not."""
    setting.need_gpu()
    data, recipe = setting.data, setting.recipe()
    stacks = {name: trials(recipe, [name], (0, 1)) for name in REGISTRY}
    stacks |= {name: trials(setting.recipe(**options), PLAIN) for name, options in OTHERS.items()}
    stacks |= {kind: trials(setting.recipe(precision=kind), PLAIN) for kind in setting.precisions}
    stacks["input noise"] = trials(setting.recipe(input_noise=0.1), PLAIN)
    recordable = {some[0].recipe: stack.recordable(trials(some[0].recipe, ["none"]), data) for some in stacks.values()}
    problems, replayed = [], 0
    for what, some in stacks.items():
        ways: dict[str, Callable[[], None]] = {"stacked": lambda some=some: _epoch(some, data, record=False)}
        ways["alone"] = lambda some=some: _epoch_alone(some[-1], data)
        if recordable[some[0].recipe]:
            ways["replayed"] = lambda some=some: _epoch(some, data, record=True)
            replayed += 1
        for way, train in ways.items():
            try:
                with precision.settings(some[0].recipe.precision, data.device):
                    train()
            except Exception as error:
                problems.append(f"{what} {way}: {one_line(error)}")
    found |= {"stacks": len(stacks), "replayed": replayed}
    require(problems)


def _epoch(some: Sequence[Trial], data: DeviceData, record: bool) -> None:
    """Train on the batches of an epoch without waiting; what comes before the first replayed step may wait."""
    training = stack.Training(some, data, record)
    training.optimizer.begin_epoch(1)
    batches = training.order(1).split(training.recipe.batch_size, dim=1)
    first = stack.WARM_UP + 1 if record else 0
    for chosen in batches[:first]:
        training.advance(chosen)
    with _raising_for_waits():
        for chosen in batches[first:]:
            training.advance(chosen)


def _epoch_alone(trial: Trial, data: DeviceData) -> None:
    training = single.Training(trial, data.num_classes, data.device)
    training.optimizer.begin_epoch(1)
    size = trial.recipe.batch_size
    with noise(trial.seed, 1, data.device), _raising_for_waits():
        for first in range(0, trial.recipe.train_size, size):
            training.step(data.train_images[first : first + size], data.train_labels[first : first + size])


@contextmanager
def _raising_for_waits() -> Iterator[None]:
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")
