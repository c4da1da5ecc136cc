"""K networks as one: every tensor has a leading axis of K trials, and no trial sees another."""

from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from regbench import networks
from regbench.training import dense, precision
from regbench.training.convolutions import grouped
from regbench.training.device_data import pixels
from regbench.training.randomness import initial_model
from regbench.training.update_rules import Product
from regbench.trial import Trial


class Stack:
    """Any torch.nn.Module, K times, by torch.func.vmap. It must not draw random numbers: their order would depend on K.

    `parameters` (trained) and `state` (all, buffers included) are name -> [K, ...]; what has several names has its first.
    """

    def __init__(self, trials: Sequence[Trial], num_classes: int, device: torch.device) -> None:
        recipe = trials[0].recipe
        self.count, self.precision, self.device = len(trials), recipe.precision, device
        self.dtype = precision.dtype(recipe.precision)
        self.convolve = grouped
        alone = [initial_model(recipe.model, num_classes, trial.seed) for trial in trials]
        for model in alone:
            networks.move(model, device, self.dtype)
            networks.set_mode(model, True)  # some freeze a part there
        parameters, buffers = torch.func.stack_module_state(alone)
        self.model = alone[0]
        trained = {name for name, p in self.model.named_parameters() if p.requires_grad}
        self.parameters = {name: p.detach().requires_grad_() for name, p in parameters.items() if name in trained}
        self.state = {name: self.parameters.get(name, p.detach()) for name, p in parameters.items()} | buffers

    def logits(self, images: Tensor, training: bool) -> Tensor:
        """Return logits [K, N, C] of images uint8 [K, N, 3, 32, 32]."""
        return self.forward(pixels(images, self.dtype), training)

    def forward(self, x: Tensor, training: bool) -> Tensor:
        """Return logits [K, N, C] of pixels in [0, 1] [K, N, 3, 32, 32]."""
        networks.set_mode(self.model, training)
        with precision.autocast(self.precision, self.device):
            return self._forward(x).to(self.dtype)

    def weights(self, row: int) -> dict[str, Tensor]:
        """Return copies of the tensors that the network of a row saves, under the names that it gives them."""
        with torch.no_grad():
            # in a network, since only that knows its names: shared tensors have several, and some are not saved
            for name, w in (*self.model.named_parameters(), *self.model.named_buffers()):
                w.copy_(self.state[name][row])
        return {name: w.clone() for name, w in networks.saved(self.model).items()}

    def attach(self, act: Callable[[Tensor], Tensor]) -> None:
        """Have every dense layer take `act` of its inputs [K, N, ...] in training."""
        dense.attach(self.model, dense.across(act))

    def gradients(self, loss: Tensor) -> list[Tensor | Product]:
        """Return the gradient of a scalar by each of `parameters`."""
        return list(torch.autograd.grad(loss, list(self.parameters.values()), materialize_grads=True))

    def _forward(self, x: Tensor) -> Tensor:
        def one(state: Mapping[str, Tensor], images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
            left = dict(state)
            logits = torch.func.functional_call(self.model, left, (images,))
            # into it goes what the network has put in the place of a buffer, instead of changing it
            return logits, {name: w for name, w in left.items() if w is not state[name]}

        logits, replaced = torch.func.vmap(one, randomness="error")(self.state, x)
        with torch.no_grad():
            for name, w in replaced.items():
                self.state[name].copy_(w)
        return logits


class NotebookStack(Stack):
    """The notebook's CNN, K times: batched products for the dense layers, whose gradients are left as products."""

    DENSE = ("l1", "l2", "l3")
    act: Callable[[Tensor], Tensor] | None = None

    def attach(self, act: Callable[[Tensor], Tensor]) -> None:
        self.act = act

    def _forward(self, x: Tensor) -> Tensor:
        self.products: dict[str, Product] = {}
        x = self._convolutions(x).flatten(2)
        for layer in self.DENSE:
            x = self._dense(layer, self.act(x) if self.act and self.model.training else x)
            if layer != self.DENSE[-1]:
                x = F.relu(self._hidden(layer, x))
        return x

    def _convolutions(self, x: Tensor) -> Tensor:
        for layer in ("conv1", "conv2"):
            x = self.convolve(x, self.state[f"{layer}.weight"], self.state[f"{layer}.bias"])
        return x

    def _hidden(self, layer: str, x: Tensor) -> Tensor:
        return x

    def _dense(self, layer: str, x: Tensor) -> Tensor:
        weight, bias = self.state[f"{layer}.weight"], self.state.get(f"{layer}.bias")
        if self._fuses():
            return _Dense.apply(x, weight, bias, self.products, f"{layer}.weight")
        return _product(x, weight, bias)

    def _fuses(self) -> bool:
        # factors of 16 bits cannot be added into a momentum of 32
        return precision.factors(self.precision) == self.dtype

    def gradients(self, loss: Tensor) -> list[Tensor | Product]:
        if not self._fuses():
            return super().gradients(loss)
        products = {f"{layer}.weight" for layer in self.DENSE}
        others = {name: p for name, p in self.parameters.items() if name not in products}
        try:
            found = dict(zip(others, torch.autograd.grad(loss, list(others.values())), strict=True)) | self.products
        finally:  # the products of a step that fails are as large as those of another
            self.products = {}
        return [found[name] for name in self.parameters]


class NormalizedStack(Stack):
    """Layers of K networks whose images are [N, K * C, H, W] in between: as one network's, with K times the channels."""

    def _join(self, x: Tensor) -> Tensor:
        """Return x [K, N, C, ...] as [N, K * C, ...], where a CPU convolves fastest."""
        x = x.transpose(0, 1).flatten(1, 2)
        return x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 and x.device.type == "cpu" else x

    def _split(self, x: Tensor) -> Tensor:
        """Return x [N, K * C, ...] as [K, N, C, ...]."""
        return x.unflatten(1, (self.count, -1)).transpose(0, 1)

    def _convolve(self, layer: str, x: Tensor) -> Tensor:
        stride = self.model.get_submodule(layer).stride
        weight = self.state[f"{layer}.weight"].flatten(0, 1)
        return F.conv2d(x, weight, stride=stride, padding=1, groups=self.count)

    def _normalize(self, layer: str, x: Tensor) -> Tensor:
        """Normalize x [N, K * C, ...] as BatchNorm does: each trial's channels by themselves, statistics included."""
        # views, so that the running statistics are written where they are
        mean, variance, weight, bias = (
            self.state[f"{layer}.{name}"].view(-1) for name in ("running_mean", "running_var", "weight", "bias")
        )
        norm = self.model.get_submodule(layer)
        if norm.training:
            self.state[f"{layer}.num_batches_tracked"].add_(1)
        return F.batch_norm(x, mean, variance, weight, bias, norm.training, norm.momentum, norm.eps)


class NotebookBNStack(NotebookStack, NormalizedStack):
    """The notebook's CNN with batch normalization, K times."""

    NORMS: ClassVar = {"l1": "bn3", "l2": "bn4"}

    def _convolutions(self, x: Tensor) -> Tensor:
        x = self._join(x)
        for layer, norm in (("conv1", "bn1"), ("conv2", "bn2")):
            x = F.relu(F.max_pool2d(self._normalize(norm, self._convolve(layer, x)), 2))
        return self._split(x)

    def _hidden(self, layer: str, x: Tensor) -> Tensor:
        return self._split(self._normalize(self.NORMS[layer], self._join(x)))


class ResNetStack(NormalizedStack):
    """A residual network of `resnet8`'s blocks, K times."""

    act: Callable[[Tensor], Tensor] | None = None

    def attach(self, act: Callable[[Tensor], Tensor]) -> None:
        self.act = act

    def _forward(self, x: Tensor) -> Tensor:
        x = F.relu(self._normalize("bn1", self._convolve("conv1", self._join(x))))
        for stage in ("stage1", "stage2", "stage3"):
            x = self._block(stage, x)
        x = self._split(x.mean((2, 3)))
        x = self.act(x) if self.act and self.model.training else x
        return _product(x, self.state["fc.weight"], self.state["fc.bias"])

    def _block(self, name: str, x: Tensor) -> Tensor:
        y = F.relu(self._normalize(f"{name}.bn1", self._convolve(f"{name}.conv1", x)))
        y = self._normalize(f"{name}.bn2", self._convolve(f"{name}.conv2", y))
        return F.relu(y + self._join(self.model.get_submodule(name).shortcut(self._split(x))))


class _Dense(torch.autograd.Function):
    """x [K, N, I], weight [K, O, I], bias [K, O] or None -> [K, N, O]; `products` gets the gradient of weight, as factors.

    They are put there without their graph: it holds `products`, and Python would not see that one keeps the other alive.
    """

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor | None, products: dict[str, Product], name: str) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.products, ctx.name = products, name
        return _product(x, weight, bias)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None, Tensor | None, None, None]:
        x, weight = ctx.saved_tensors
        ctx.products[ctx.name] = Product(grad.detach(), x.detach())
        return grad @ weight, None, grad.sum(1) if ctx.needs_input_grad[2] else None, None, None


def _product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return x @ weight.mT if bias is None else torch.baddbmm(bias[:, None], x, weight.mT)


# networks with a way of their own: any other goes through vmap
STACKS = {"notebook": NotebookStack, "notebook_bn": NotebookBNStack, "resnet8": ResNetStack}


def build(trials: Sequence[Trial], num_classes: int, device: torch.device) -> Stack:
    """Return the networks of `trials`, which are of one recipe, with the initial weights of their seeds."""
    return STACKS.get(trials[0].recipe.model, Stack)(trials, num_classes, device)
