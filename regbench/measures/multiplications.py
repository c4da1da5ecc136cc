"""Multiplications of a network for an image: how many there are, and with which weight."""

import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from regbench import importing, networks
from regbench.data.images import SIDE
from regbench.errors import one_line

log = logging.getLogger(__name__)
aten = torch.ops.aten
# products -> where their two factors are; torch's own formulas leave out the last ones
FACTORS = {
    aten.mm: (0, 1), aten.bmm: (0, 1), aten.addmm: (1, 2), aten.baddbmm: (1, 2), aten.convolution: (0, 1),
    aten.mv: (0, 1), aten.dot: (0, 1), aten.addmv: (1, 2),
}  # fmt: skip
# what takes weights and images, multiplies nothing, and is neither a view nor done element by element
MOVES = {
    aten.cat, aten.stack, aten.embedding, aten.index, aten.gather, aten.index_select, aten.copy_, aten.native_layer_norm,
    aten.native_group_norm, aten.native_batch_norm, aten._native_batch_norm_legit_no_training, aten.index_put,
    aten.index_put_, aten.scatter, aten.masked_fill,
}  # fmt: skip


@dataclass(frozen=True)
class Work:
    """Multiply-accumulate operations for an image: with each of the `weights`, and `others`, of images with each other.

    `unknown` is empty, or says why the rest of them is not known.
    """

    weights: Mapping[str, int] = field(default_factory=dict)
    others: int = 0
    unknown: str = ""


class _Counter(TorchDispatchMode):
    """Adds up the multiplications of what a model does, for the weight that takes part; None: there is none.

    It sees what remains when all has been taken apart into torch's basic operations, so that it matters neither who
    calls them nor whether a weight is a part or another shape of a parameter: that has the same memory.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.macs: dict[str | None, int] = {}
        self.unknown: dict[str, int] = {}
        self._parameters = {id(p): name for name, p in model.named_parameters()}
        # memory -> the weight that is there, or the weights that it was computed from, without images
        self._weights: dict[int, str] = {_memory(p): name for name, p in model.named_parameters()}
        self._computed: dict[int, str] = {}
        self._images: set[int] = set()
        # what is freed could be taken for what comes into its place
        self._alive: list[object] = []

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # that would import torch's compiler, which takes seconds

    def watch(self, images: Tensor) -> Tensor:
        """Have what depends on these images be known."""
        self._alive.append(images)
        self._images.add(_memory(images))
        return images

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        out = function(*args, **kwargs)
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        made = [leaf for leaf in tree_leaves(out) if isinstance(leaf, Tensor)]
        self._alive += made
        for tensor in given:
            if id(tensor) in self._parameters:  # it may have been given other memory
                self._weights[_memory(tensor)] = self._parameters[id(tensor)]
                self._computed.pop(_memory(tensor), None)
        self._count(function, args, kwargs, given, made, out)
        names = dict.fromkeys(name for tensor in given if (name := self._source(tensor)))
        for memory in map(_memory, made):
            if any(_memory(tensor) in self._images for tensor in given):
                self._images.add(memory)
            elif names and memory not in self._weights:
                self._computed[memory] = ", ".join(names)
        return out

    def _count(self, function, args, kwargs, given: list[Tensor], made: list[Tensor], out: object) -> None:
        packet = function.overloadpacket
        if packet in FACTORS or packet in flop_registry:
            factors = [args[index] for index in FACTORS[packet]] if packet in FACTORS else given
            if packet in flop_registry:
                macs = flop_registry[packet](*args, **kwargs, out_val=out) // 2
            else:
                macs = out.numel() * factors[0].shape[-1]
            weights = [name for factor in factors if (name := self._weights.get(_memory(factor)))]
            computed = [factor for factor in factors if _memory(factor) in self._computed]
            if computed and len(weights) + len(computed) < len(factors):
                self._unknown(packet, computed[0], macs)
            elif len(weights) < 2 and not computed:
                name = weights[0] if weights else None
                self.macs[name] = self.macs.get(name, 0) + macs
            return
        with_images = [tensor for tensor in given if _memory(tensor) in self._images]
        matrices = [tensor for tensor in given if tensor.ndim >= 2 and self._source(tensor)]
        if not with_images or not matrices or function.is_view or packet in MOVES:
            return
        if torch.Tag.pointwise not in function.tags:
            self._unknown(packet, matrices[0], sum(tensor.numel() for tensor in made))
        elif packet in (aten.mul, aten.div) and made[0].numel() > max(tensor.numel() for tensor in with_images):
            # each image's numbers with each of several weights: a product, of which the sum comes later
            self._unknown(packet, matrices[0], made[0].numel())

    def _source(self, tensor: Tensor) -> str:
        memory = _memory(tensor)
        return "" if memory in self._images else self._weights.get(memory) or self._computed.get(memory, "")

    def _unknown(self, packet, tensor: Tensor, count: int) -> None:
        name = self._source(tensor)
        how = "" if _memory(tensor) in self._weights else "what is computed from "
        why = f"{packet.__name__.strip('_')} takes {how}{name}"
        self.unknown[why] = self.unknown.get(why, 0) + count


@importing.cached
def per_image(spec: str, num_classes: int) -> Work:
    """Return the multiply-accumulate operations of products (convolutions, dense layers, attention, recurrence).

    They are counted on forward passes of a new model in evaluation mode, so with the true sizes of outputs; biases,
    scales and normalization are not counted. They are not known where a weight is computed from others before it is
    used, nor where the network does not run by itself on the CPU. See `networks.build` for `spec`.
    """
    try:
        work = _counted(spec, num_classes)
    except Exception as error:  # the user's own code, which must not end the sweep over a number
        work = Work(unknown=f"it does not run by itself: {one_line(error)}")
    if work.unknown:
        log.warning("model=%r has no theoretical_speedup: its multiplications are not known (%s)", spec, work.unknown)
    return work


def _counted(spec: str, num_classes: int) -> Work:
    with torch.random.fork_rng(devices=[]), torch.no_grad(), _taken_apart():
        model = networks.build(spec, num_classes)
        networks.move(model, torch.device("cpu"), torch.float32)
        networks.set_mode(model, False)
        counters = {}
        # twice: what is done once, however many images there are, is not work for an image
        for count in (2, 4):
            with _Counter(model) as counters[count]:
                model(counters[count].watch(torch.zeros(count, 3, SIDE, SIDE, dtype=torch.float32)))
    few, many = counters[2], counters[4]
    macs = {name: (total - few.macs.get(name, 0)) // 2 for name, total in many.macs.items()}
    unknown = [why for why, total in many.unknown.items() if total > few.unknown.get(why, 0)]
    others = macs.pop(None, 0)
    names = [name for name, _ in model.named_parameters() if macs.get(name)]
    return Work({name: macs[name] for name in names}, others, unknown[0] if unknown else "")


@contextmanager
def _taken_apart() -> Iterator[None]:
    """Have torch do products one by one, and nothing in one go that has several of them."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of settings for hardware that is not there
            with torch.backends.mkldnn.flags(enabled=False), sdpa_kernel(SDPBackend.MATH):
                yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


def _memory(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata
