"""Whether a user's own network can be trained, checked beforehand by steps in batches of the sizes that will come."""

import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from itertools import pairwise

import numpy as np
import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from regbench import networks
from regbench.data.images import SIDE, Images
from regbench.errors import UserError, one_line
from regbench.measures import multiplications as macs
from regbench.training import precision
from regbench.training.device_data import pixels
from regbench.training.randomness import initial_model, noise, seeded
from regbench.training.single import Training
from regbench.trial import BASELINE, Recipe, Trial

log = logging.getLogger(__name__)
# relative: how much rounding may change logits, or what some steps do, between two computations of the same
ROUNDING = 1e-3
# other batch sizes that are tried out, to name one
TRIED = 3
# characters of an error's text that are shown
LONGEST = 300
# pattern of an error of torch or Python -> what to do instead
HINTS = {
    r"Expected more than 1 value per channel": "take a larger batch_size: a batch of one image has no statistics",
    r"NVIDIA driver|not compiled with CUDA|same device|expected device": (
        "leave out .cuda() and devices of its own: the network and its images are on one device, x.device"
    ),
    r"(Output|Kernel) size (is too small|can't be greater)": (
        f"images are {SIDE} x {SIDE}: take strides and poolings out of it, or enlarge them first by F.interpolate"
    ),
    r"backward through the graph a second time": "detach() what it keeps from one call to the next",
    r"No such file": "give its files by their absolute paths, as of Path(__file__).parent",
    r"unhashable type": "write @dataclass(eq=False), as torch.nn.Module compares",
    r"\.train\(\) (takes|got|missing)": "make its train(mode=True) like that of torch.nn.Module",
    r"same dtype|Found dtype|scalar type": "make tensors of the images' type, as in torch.zeros(3, dtype=x.dtype)",
}


def check(recipe: Recipe, data: Images, device: torch.device) -> None:
    """Raise UserError unless the recipe's network can be trained, evaluated, saved and loaded back; warn of oddities.

    It takes some steps on images of the data, in batches of the sizes that will come, the last ones included.
    """
    found = _Check(recipe, data, device)
    with (
        precision.settings(recipe.precision, device),
        seeded(0, device),
        found.explained("cannot be checked", "take another model"),
    ):
        found.run()


def batch_sizes(count: int, batch_size: int) -> set[int]:
    """Return the sizes of the batches of `count` images."""
    return {size for size in (min(count, batch_size), count % batch_size) if size}


def changed_alike(found: Mapping[str, Tensor], expected: Mapping[str, Tensor], before: Mapping[str, Tensor]) -> bool:
    """Return whether training has made of the tensors `before` what was expected, but for rounding."""
    norm = torch.linalg.vector_norm
    wanted, ours, old = (
        {name: some[name].to(torch.complex128) for name in expected} for some in (expected, found, before)
    )
    # where training has no effect but rounding, as on a bias before a normalization, the others' change is the scale
    most = max((norm(w - old[name]) for name, w in wanted.items() if w.isfinite().all()), default=0.0)
    for name, w in wanted.items():
        bound = ROUNDING * (norm(w - old[name]) + ROUNDING * (norm(w) + most))
        if (w.isfinite().all() or ours[name].isfinite().all()) and not norm(ours[name] - w) <= bound:
            return False
    return True


def state(model: nn.Module) -> dict[str, Tensor]:
    """Return copies of a model's parameters and buffers."""
    return {name: w.detach().clone() for name, w in (*model.named_parameters(), *model.named_buffers())}


def reason(error: BaseException) -> str:
    """Return an error on one line, without the tables that torch adds to some."""
    text = one_line(error)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."


class _Check:
    def __init__(self, recipe: Recipe, data: Images, device: torch.device) -> None:
        # a large lr could end in NaN within the steps that are taken here, which is a result and not a mistake
        # the network's part does not depend on the optimizer, and Adam makes whole steps of gradients that are rounding
        self.trial = Trial(replace(recipe, lr=min(recipe.lr, 1e-4), optimizer="sgd"), BASELINE, 0.0, 0)
        self.recipe, self.data, self.device = recipe, data, device
        self.name, self.classes = f"model={recipe.model!r}", len(data.classes)
        self.trained_on = recipe.train_size - recipe.val_size
        self.evaluated_on = (self.trained_on, recipe.val_size, len(data.test_labels))
        self.evaluated_sizes = {size for count in self.evaluated_on for size in batch_sizes(count, recipe.batch_size)}

    def run(self) -> None:
        sizes = sorted(batch_sizes(self.trained_on, self.recipe.batch_size))
        few = sizes[0]
        training = self.begin()
        initial = state(training.model)
        try:
            self.train(training, few)
        except UserError as error:
            if len(sizes) == 1:
                raise
            self.train_new(sizes[1])  # what fails there too has nothing to do with the last batch
            raise self.last_batch("does not train on", few, (self.trained_on,), self.train_new, error) from error
        self.same_shapes(initial, state(training.model))
        after = state(training.model)
        numbers = _number_attributes(training.model)
        self.step(training, few)
        self.no_counters(numbers, _number_attributes(training.model))
        again = self.begin()
        self.same_beginning(initial, state(again.model))
        self.train(again, few)
        if not changed_alike(state(again.model), after, initial):
            raise UserError(
                f"{self.name} does not train the same twice from one seed: it draws random numbers that no seed decides; "
                "take those of torch, or the global ones of NumPy or Python"
            )
        del again
        for size in sizes[1:]:
            self.step(training, size)
        self.evaluate(training)
        self.save(training)
        self.load_back(training, initial)
        macs.per_image(self.recipe.model, self.classes)  # warns where they are not known

    def begin(self) -> Training:
        """Return a new training; the state of the network fits the engines."""
        with self.explained("cannot be built", "its constructor must take no argument, or num_classes"):
            model = initial_model(self.recipe.model, self.classes, self.trial.seed)
            parameters = dict(model.named_parameters())
        if not any(parameter.requires_grad for parameter in parameters.values()):
            raise UserError(f"{self.name} has no trainable parameter; give it some torch.nn.Parameter")
        for name, parameter in parameters.items():
            if parameter.is_complex() and parameter.requires_grad:
                raise UserError(
                    f"{self.name} trains the complex {name!r}, on which no regularizer is defined; hold its real and "
                    "imaginary part in a real torch.nn.Parameter, and use torch.view_as_complex of it"
                )
            if getattr(parameter, "_post_accumulate_grad_hooks", None):
                raise UserError(
                    f"{self.name} waits for the .grad of {name!r} (register_post_accumulate_grad_hook), which gets none "
                    "here; take register_hook"
                )
        tensors = parameters | dict(model.named_buffers())
        odd = [name for name, w in tensors.items() if w.layout != torch.strided or w.is_quantized]
        if odd:
            raise UserError(f"{self.name} holds {odd[0]!r} sparse or quantized; hold it as an ordinary dense tensor")
        shared = _shared_memory(tensors)
        if shared:
            raise UserError(
                f"{self.name} has tensors that share memory and are not the same: {shared}; to tie weights give one "
                "torch.nn.Parameter to both (b.weight = a.weight), else clone() what is shared"
            )
        with self.explained("cannot be made ready", "make its train(mode=True) like that of torch.nn.Module"):
            training = Training(self.trial, self.classes, self.device)
        training.optimizer.begin_epoch(1)
        return training

    def train(self, training: Training, size: int) -> None:
        """Take two steps on `size` images: what a network keeps of the first can make the second fail."""
        with noise(self.trial.seed, 1, self.device):
            for _ in range(2):
                self.step(training, size)

    def train_new(self, size: int) -> None:
        self.train(self.begin(), size)

    def step(self, training: Training, size: int) -> None:
        """Check the logits of `size` images in training mode, and train on them."""
        networks.set_mode(training.model, True)
        images, labels = self.sample(size)
        if not self.logits(training, images, "training").requires_grad:
            raise UserError(
                f"{self.name} returns logits that depend on no trainable parameter; leave out what cuts them off "
                "(detach(), torch.no_grad(), argmax())"
            )
        with self.explained(f"does not train on images {_shape(images)}", "make its logits differentiable"):
            training.step(images, labels)

    def evaluate(self, training: Training) -> None:
        """Check that each size of a batch can be evaluated, and that the same images have the same logits again."""
        networks.set_mode(training.model, False)
        smallest, largest = min(self.evaluated_sizes), max(self.evaluated_sizes)
        for size in sorted(self.evaluated_sizes, reverse=True):
            try:
                self.predict(training, size)
            except UserError as error:
                if size == largest:
                    raise
                predict = partial(self.predict, training)
                raise self.last_batch("does not evaluate", size, self.evaluated_on, predict, error) from error
        self.no_probabilities(self.predict(training, largest))
        once, other, again = (self.predict(training, smallest, seed) for seed in (0, 1, 0))
        if not close(once, other):
            why = (
                "it draws random numbers in evaluation mode too (F.dropout needs training=self.training)"
                if close(once, again)
                else "it keeps something from one call to the next, or draws random numbers of its own"
            )
            raise UserError(f"{self.name} gives the same images other logits each time when it is evaluated: {why}")

    def no_probabilities(self, found: Tensor) -> None:
        """Warn of what trains, but badly: a softmax of a softmax."""
        if self.classes > 1 and (found >= 0).all() and ((found.sum(1) - 1).abs() < ROUNDING).all():
            log.warning(
                "%s returns probabilities (a softmax at its end?): the loss is a cross-entropy, which takes logits and "
                "has a softmax of its own; leave that of the network out",
                self.name,
            )

    def predict(self, training: Training, size: int, seed: int = 0) -> Tensor:
        """Return logits of `size` images in evaluation mode."""
        with torch.no_grad(), seeded(seed, self.device):
            return self.logits(training, self.sample(size)[0], "evaluation")

    def logits(self, training: Training, images: Tensor, mode: str) -> Tensor:
        """Return what the network returns for images; raises UserError unless it is logits [N, C]."""
        where = f"on images {_shape(images)} in {mode} mode"
        with (
            self.explained(f"does not run {where}", "make its forward take the images and return logits"),
            precision.autocast(self.recipe.precision, self.device),
        ):
            found = training.model(pixels(images, training.dtype))
        expected = f"expected {(len(images), self.classes)}: logits for {self.classes} classes"
        if not isinstance(found, Tensor):
            alone = "" if mode == "evaluation" else ", in training too (without auxiliary outputs)"
            raise UserError(f"{self.name} returns a {type(found).__name__} {where}, {expected} alone{alone}")
        if tuple(found.shape) != (len(images), self.classes):
            alone = found.numel() == len(images) * self.classes
            advice = "; end with flatten(1)" if alone else "; its constructor gets their number as num_classes"
            raise UserError(f"{self.name} returns shape {tuple(found.shape)} {where}, {expected}{advice}")
        if not found.is_floating_point() or found.layout != torch.strided:
            raise UserError(f"{self.name} returns {found.dtype} ({found.layout}) {where}; return real numbers, dense")
        if not found.isfinite().all():
            raise UserError(f"{self.name} returns NaN or infinity {where}; make its first logits finite")
        return found

    def sample(self, size: int) -> tuple[Tensor, Tensor]:
        """Return images uint8 [size, 3, 32, 32] from all over the data, and their labels."""
        indices = np.arange(size) * len(self.data.train_labels) // size
        some = (self.data.train_images[indices], self.data.train_labels[indices])
        return tuple(torch.from_numpy(array).to(self.device) for array in some)

    def last_batch(
        self, what: str, size: int, counts: Sequence[int], work: Callable[[int], object], error: UserError
    ) -> UserError:
        """Return the error for a network that takes other batches, but not the last one of `size` images.

        `work` raises UserError for a batch size that the network does not take either.
        """
        batch = self.recipe.batch_size
        fits = [
            other
            for other in sorted(range(2, self.trained_on + 1), key=lambda other: (abs(other - batch), -other))
            if min(left for count in counts for left in batch_sizes(count, other)) > size
        ]
        advice = "take another batch_size, train_size or val_size"
        for other in fits[:TRIED]:
            with suppress(UserError):
                for left in {left for count in counts for left in batch_sizes(count, other)}:
                    work(left)
                advice = f"take another batch_size, for instance {other}"
                break
        images = "1 image" if size == 1 else f"{size} images"
        why = reason(error.__cause__ or error)
        return UserError(f"{self.name} {what} the last batch, {images} with batch_size={batch} ({why}): {advice}")

    def same_shapes(self, initial: Mapping[str, Tensor], now: Mapping[str, Tensor]) -> None:
        other = {(name, w.shape) for name, w in initial.items()} ^ {(name, w.shape) for name, w in now.items()}
        if other:
            raise UserError(
                f"{self.name} makes, drops or resizes {min(other)[0]!r} while it runs; do that in its constructor, or "
                "take the lazy modules of torch.nn, such as LazyLinear"
            )

    def same_beginning(self, one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> None:
        differ = [name for name, w in one.items() if name not in other or not _equal(w, other[name])]
        if differ:
            raise UserError(
                f"{self.name} begins with another {differ[0]!r} each time, whatever the seed: draw it with torch's random "
                "numbers, or with the global ones of NumPy or Python, and with no generator of its own"
            )

    def no_counters(self, before: Mapping[str, object], after: Mapping[str, object]) -> None:
        for name, value in before.items():
            if after.get(name, value) != value:
                raise UserError(
                    f"{self.name} changes its attribute {name!r} with each call, which a training that is cut off would "
                    f"lose: make it a buffer, self.register_buffer({name.rpartition('.')[2]!r}, torch.tensor(...))"
                )

    def save(self, training: Training) -> None:
        """Check that the network can be written as the file that a run has."""
        with self.explained("cannot be saved", "make its state_dict() like that of torch.nn.Module"):
            held = training.model.state_dict()
            tensors = networks.saved(training.model)
        missing = [name for name in training.parameters if name not in tensors]
        if missing:
            raise UserError(
                f"{self.name} leaves {missing[0]!r} out of its state_dict(), or renames it; let state_dict() hold all "
                "that is trained, by its own name"
            )
        for name, w in tensors.items():
            with self.explained(
                f"cannot be saved: {name!r} of type {w.dtype} does not go into model.safetensors",
                "take another name or type for it, or register_buffer(..., persistent=False)",
            ):
                load(save({name: w.cpu().contiguous().clone()}))
        dropped = [name for name in held if name not in tensors]
        if dropped:
            log.warning(
                "%s saves %s, which is not a tensor and is left out of model.safetensors: load that with "
                "load_state_dict(..., strict=False)",
                self.name,
                ", ".join(dropped),
            )

    def load_back(self, training: Training, initial: Mapping[str, Tensor]) -> None:
        """Check that another network with this one's state predicts what it does."""
        with self.explained("cannot be loaded back", "make its load_state_dict() take what state_dict() gives"):
            copy = initial_model(self.recipe.model, self.classes, seed=1)
            networks.move(copy, self.device, training.dtype)
            networks.set_mode(copy, False)
            if all(_equal(w, initial[name]) for name, w in copy.named_parameters() if name in training.parameters):
                log.warning(
                    "%s begins with the same weights for every seed (a manual_seed or a file in its constructor?): "
                    "seeds then differ in the order of the images and in what is held out",
                    self.name,
                )
            held = training.model.state_dict()
            copy.load_state_dict(held)
            with torch.no_grad():
                # the user's choice: they are not to be saved
                for (name, mine), (_, theirs) in zip(copy.named_buffers(), training.model.named_buffers(), strict=True):
                    if name not in held:
                        mine.copy_(theirs)
        size = min(self.evaluated_sizes)
        expected = self.predict(training, size)
        training.model = copy
        if not close(self.predict(training, size), expected):
            raise UserError(
                f"{self.name} predicts by something that its state_dict() does not hold: make tensors that are attributes "
                "buffers or parameters, and Python lists of layers a torch.nn.ModuleList"
            )

    @contextmanager
    def explained(self, what: str, advice: str) -> Iterator[None]:
        """Turn what the user's own code raises into a UserError."""
        try:
            yield
        except UserError:
            raise
        except (Exception, SystemExit) as error:  # anything can come out of it
            text = reason(error)
            if isinstance(error, torch.OutOfMemoryError | MemoryError):
                advice = "take a smaller batch_size, or another model or device"
            else:
                advice = next((hint for pattern, hint in HINTS.items() if re.search(pattern, text)), advice)
            raise UserError(f"{self.name} {what} ({text}): {advice}") from error


def _shape(images: Tensor) -> str:
    return f"[{len(images)}, 3, {SIDE}, {SIDE}]"


def _equal(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and bool(((one == other) | ((one != one) & (other != other))).all())


def close(one: Tensor, other: Tensor) -> bool:
    """Return whether logits are the same but for rounding."""
    return bool((one - other).abs().max() <= ROUNDING * other.abs().max())


def _number_attributes(model: nn.Module) -> dict[str, object]:
    """Return the plain numbers that are attributes of a model's modules, by name."""
    return {
        f"{prefix}.{name}".lstrip("."): value
        for prefix, module in model.named_modules()
        for name, value in vars(module).items()
        if type(value) in (int, float) and value == value
    }


def _shared_memory(tensors: Mapping[str, Tensor]) -> str:
    """Return the names of two tensors, or of one, whose elements share memory; "" if there are none."""
    spans = []
    for name, w in tensors.items():
        if not w.numel():
            continue
        reach = 1 + sum((size - 1) * stride for size, stride in zip(w.shape, w.stride(), strict=True))
        if reach < w.numel():
            return f"{name!r} and itself, by expand()"
        spans.append((w.data_ptr(), w.data_ptr() + reach * w.element_size(), name))
    for (_, end, name), (begin, _, other) in pairwise(sorted(spans)):
        if begin < end:
            return f"{name!r} and {other!r}"
    return ""
