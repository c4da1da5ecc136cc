"""Networks as people write them, with what torch.nn allows: which train, and which are refused with what to do."""

import random
import warnings
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F


class Base(nn.Module):
    """A small dense network on pooled pixels, for the others to change."""

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        self.pool = nn.AvgPool2d(8)
        self.a = nn.Linear(48, 12)
        self.fc = nn.Linear(12, num_classes)

    def features(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(self.a(self.pool(x).flatten(1)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.features(x))


# those that train


class Tied(Base):
    def __init__(self, num_classes: int = 10) -> None:
        super().__init__(num_classes)
        self.b, self.c = nn.Linear(12, 12), nn.Linear(12, 12)
        self.c.weight = self.b.weight
        self.register_buffer("mean", torch.full((12,), 0.1))
        self.c.register_buffer("mean", self.mean)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(F.relu(self.c(F.relu(self.b(self.features(x) - self.mean)))))


class Scalar(Base):
    """A parameter without dimensions, an empty one, one that is not used, and frozen ones."""

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__(num_classes)
        self.scale = nn.Parameter(torch.tensor(1.5))
        self.empty = nn.Parameter(torch.empty(0))
        self.unused = nn.Linear(3, 3)
        self.count = nn.Parameter(torch.tensor(3), requires_grad=False)
        self.a.requires_grad_(False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.features(x)) * self.scale


class OneTrained(Base):
    """All is frozen but one number."""

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__(num_classes)
        self.requires_grad_(False)
        self.scale = nn.Parameter(torch.tensor(1.5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) * self.scale


class Lazy(nn.Module):
    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.LazyConv2d(4, 3, stride=4), nn.LazyBatchNorm2d(), nn.ReLU(inplace=True), nn.Flatten()
        )
        self.out = nn.LazyLinear(num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.body(x))


class Extra(Base):
    """Extra state that is a dictionary, and one that is a tensor."""

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__(num_classes)
        self.pool = WithTensor()

    def get_extra_state(self) -> dict[str, int]:
        return {"version": 1}

    def set_extra_state(self, state: dict[str, int]) -> None:
        assert state == {"version": 1}


class WithTensor(nn.AvgPool2d):
    """A part of the one above."""

    def __init__(self) -> None:
        super().__init__(8)
        self.kept = torch.tensor([3.0])

    def get_extra_state(self) -> torch.Tensor:
        return self.kept

    def set_extra_state(self, state: torch.Tensor) -> None:
        self.kept = state


class Buffers(Base):
    """Of all types, saved and not, changed in place and put in another's place."""

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__(num_classes)
        self.register_buffer("seen", torch.tensor(0))
        self.register_buffer("mean", torch.zeros(12))
        self.register_buffer("mask", torch.arange(12) % 3 > 0)
        self.register_buffer("phase", torch.tensor([1j, 2.0]))
        self.register_buffer("short", torch.ones(2, dtype=torch.float16))
        self.register_buffer("noise", torch.rand(12), persistent=False)
        self.norm = nn.BatchNorm1d(12, track_running_stats=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.features(x) * self.mask + self.noise
        if self.training:
            self.seen += 1
            self.mean = 0.9 * self.mean + 0.1 * h.detach().mean(0)
        return self.fc(self.norm(h - self.mean) * self.phase.real.sum())


class Containers(nn.Module):
    """Parameters in a list and a dictionary, modules with names of any characters."""

    LONG = "long" * 60

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        self.pool = nn.AvgPool2d(8)
        self.matrices = nn.ParameterList([nn.Parameter(torch.randn(48, 8) / 7)])
        self.biases = nn.ParameterDict({"a/b %": nn.Parameter(torch.zeros(8))})
        self.parts = nn.ModuleDict({"in/out": nn.Linear(8, 8), self.LONG: nn.Linear(8, 8)})
        self.parts["é @%20:*?$x_$\n"] = nn.Linear(8, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.pool(x).flatten(1) @ self.matrices[0] + self.biases["a/b %"]
        for part in self.parts.values():
            x = part(x)
        return x


class OwnModes(Base):
    """train() that returns nothing and keeps a part in evaluation, and eval() that is told of."""

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__(num_classes)
        self.norm = nn.BatchNorm1d(12)
        self.evaluated = False

    def train(self, mode: bool = True) -> None:
        super().train(mode)
        self.norm.eval()
        self.evaluated = False

    def eval(self) -> None:
        nn.Module.train(self, False)
        self.evaluated = True

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits = self.fc(self.norm(self.features(x)))
        return logits * 2 if self.evaluated else logits


class Freezes(Base):
    """Freezes a part when training begins."""

    def train(self, mode: bool = True) -> "Freezes":
        self.a.requires_grad_(False)
        return super().train(mode)


class Strided(Base):
    """Weights that are not contiguous in memory."""

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__(num_classes)
        self.pool = nn.Conv2d(3, 3, 8, 8).to(memory_format=torch.channels_last)
        self.w = nn.Parameter(torch.randn(12, 5).T)

    def features(self, x: torch.Tensor) -> torch.Tensor:
        return super().features(x) @ self.w.T @ self.w


class InPlace(Base):
    """Changes its images and its weights in place, under no_grad and as .data."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x.sub_(0.5).mul_(2)
        with torch.no_grad():
            self.a.weight.clamp_(-0.1, 0.1)
        return super().forward(x)


class AssignsData(Base):
    """A constraint as in EEGNet: new memory for a weight at each call."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.a.weight.data = torch.renorm(self.a.weight.data, p=2, dim=0, maxnorm=0.2)
        return super().forward(x)


class NumpyWeights(Base):
    def __init__(self, num_classes: int = 10) -> None:
        super().__init__(num_classes)
        self.a.weight.data = torch.from_numpy(np.random.randn(12, 48).astype(np.float32) / 7)
        self.fc.bias.data.fill_(random.random())


class DrawsInTraining(Base):
    """From all three generators."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.features(x)
        if self.training:
            h = F.dropout(h, 0.2) * torch.rand(12) + float(np.random.rand()) + random.random()
        return self.fc(h)


class Keeps(Base):
    """What it makes once and keeps, and its last activations."""

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__(num_classes)
        self.grid, self.last = None, None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.grid is None:
            self.grid = torch.linspace(0.5, 1, 12)
        self.last = self.features(x)
        return self.fc(self.last * self.grid)


class Added(Base):
    """Parameters with the same gradient, and one whose elements have the same."""

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__(num_classes)
        self.p, self.q, self.r = (nn.Parameter(torch.randn(shape)) for shape in ((48, 12), (48, 12), (3, 4)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) + (self.pool(x).flatten(1) @ (self.p + self.q)).mean(1, keepdim=True) * self.r.sum()


class Gradients(Base):
    """Uses autograd in its forward."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.enable_grad():
            x = x.requires_grad_()
            (slope,) = torch.autograd.grad(self.features(x).sum(), x, create_graph=True)
        return super().forward(x + slope)


class Parametrized(Base):
    def __init__(self, num_classes: int = 10) -> None:
        super().__init__(num_classes)
        nn.utils.parametrizations.weight_norm(self.a)
        self.b = nn.utils.parametrizations.spectral_norm(nn.Linear(12, 12))
        self.c = nn.utils.parametrizations.orthogonal(nn.Linear(12, 12))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.c(self.b(self.features(x))))


class OldNorms(Base):
    def __init__(self, num_classes: int = 10) -> None:
        super().__init__(num_classes)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            nn.utils.weight_norm(self.a)
        nn.utils.spectral_norm(self.fc)


class Recurrent(nn.Module):
    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        self.rows = nn.LSTM(96, 8, batch_first=True, bidirectional=True)
        self.more = nn.GRU(16, 8, batch_first=True)
        self.out = nn.Linear(8, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h, _ = self.rows(x[:, :, ::8].permute(0, 2, 1, 3).flatten(2))
        return self.out(self.more(h)[0][:, -1])


class Attention(nn.Module):
    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 16, 8, 8)
        self.block = nn.TransformerEncoderLayer(16, 2, 16, dropout=0.0, batch_first=True)
        self.out = nn.Linear(16, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.block(self.patches(x).flatten(2).mT).mean(1))


class Embedded(Base):
    """Gradients that are sparse."""

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__(num_classes)
        self.table = nn.Embedding(16, 12, sparse=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.table((x[:, 0, ::16, ::16] * 15).long().flatten(1)).mean(1) + self.features(x))


class Scripted(Base):
    def __init__(self, num_classes: int = 10) -> None:
        super().__init__(num_classes)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.b = torch.jit.script(nn.Sequential(nn.Linear(12, 12), nn.Tanh()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.b(self.features(x)))


class Parallel(Base):
    def __init__(self, num_classes: int = 10) -> None:
        super().__init__(num_classes)
        self.b = nn.DataParallel(nn.Linear(12, 12))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.b(self.features(x)))


class Half(Base):
    def __init__(self, num_classes: int = 10) -> None:
        super().__init__(num_classes)
        self.half()


class OtherTypes(Base):
    """Its logits are float64."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x).double()


class PassesOn(Base):
    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)


class ByPlace(Base):
    def __init__(self, num_classes: int = 10, /) -> None:
        super().__init__(num_classes)


class Unpicklable(Base):
    def __init__(self, num_classes: int = 10) -> None:
        super().__init__(num_classes)
        self.act = lambda h: h * 2
        self.a.register_forward_hook(lambda module, args, out: out + 1)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return super().__call__(self.act(x))


class Grouped(nn.Module):
    """Normalized without running statistics."""

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 4, 8, 8), nn.GroupNorm(2, 4), nn.InstanceNorm2d(4, affine=True), nn.LayerNorm([4, 4, 4])
        )
        self.out = nn.Linear(64, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.body(x).flatten(1))


class Settles(Base):
    """Sets what is torch's for the whole program."""

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__(num_classes)
        torch.set_default_dtype(torch.float64)
        torch.set_default_device("meta")
        torch.set_grad_enabled(False)


class SavesItself(Base):
    """A state_dict of its own, which it reads again."""

    def state_dict(self, *args: object, **kwargs: object) -> dict[str, torch.Tensor]:
        return super().state_dict(*args, **kwargs) | {"made_with": torch.tensor([1, 2])}

    def load_state_dict(self, state: dict[str, torch.Tensor], **kwargs: object) -> object:
        return super().load_state_dict({k: w for k, w in state.items() if k != "made_with"}, **kwargs)


# those that are refused


class ManyOutputs(Base):
    def forward(self, x: torch.Tensor) -> object:
        logits = super().forward(x)
        return {"logits": logits, "auxiliary": logits} if self.training else logits


class OtherShapeInTraining(Base):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits = super().forward(x)
        return logits[None] if self.training else logits


class Infinite(Base):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) / (0 if self.training else 1)


class Detached(Base):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x).detach()


class Whole(Base):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x).round().long()


class AlwaysDropout(Base):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(F.dropout(self.features(x), 0.5))


class Remembers(Base):
    """Its running mean is an attribute, and moves in evaluation too."""

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__(num_classes)
        self.mean = torch.zeros(12)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.features(x)
        self.mean = 0.5 * self.mean + 0.5 * h.detach().mean(0)
        return self.fc(h - self.mean)


class Counts(Base):
    def __init__(self, num_classes: int = 10) -> None:
        super().__init__(num_classes)
        self.pool.calls = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.pool.calls += 1
        return super().forward(x) * min(1.0, self.pool.calls / 1000)


class GrowsByHand(Base):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not hasattr(self, "extra"):
            self.extra = nn.Linear(12, 12)
        return self.fc(self.extra(self.features(x)))


class OwnGenerator(Base):
    def __init__(self, num_classes: int = 10) -> None:
        super().__init__(num_classes)
        self.fc.weight.data = torch.from_numpy(np.random.default_rng().normal(size=self.fc.weight.shape)).float()


class OwnGeneratorInTraining(Base):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.features(x)
        return self.fc(h * float(np.random.default_rng().uniform(0.5, 2)) if self.training else h)


class PlainList(Base):
    def __init__(self, num_classes: int = 10) -> None:
        super().__init__(num_classes)
        self.layers = [nn.Linear(12, 12), nn.Linear(12, 12)]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.features(x)
        for layer in self.layers:
            h = layer(h)
        return self.fc(h)


class ComplexWeights(Base):
    def __init__(self, num_classes: int = 10) -> None:
        super().__init__(num_classes)
        self.turn = nn.Parameter(torch.randn(12, dtype=torch.complex64))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc((self.features(x) * self.turn).abs())


class SameMemory(Base):
    def __init__(self, num_classes: int = 10) -> None:
        super().__init__(num_classes)
        self.b = nn.Linear(48, 12)
        self.b.weight = nn.Parameter(self.a.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.features(x) + self.b(self.pool(x).flatten(1)))


class Expanded(Base):
    def __init__(self, num_classes: int = 10) -> None:
        super().__init__(num_classes)
        self.scale = nn.Parameter(torch.ones(1).expand(12))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.features(x) * self.scale)


class TrainsItself(Base):
    def train(self, images: torch.Tensor, labels: torch.Tensor) -> None:
        raise NotImplementedError


class Renames(Base):
    def state_dict(self, *args: object, **kwargs: object) -> dict[str, torch.Tensor]:
        return {f"net.{name}": w for name, w in super().state_dict(*args, **kwargs).items()}


class OddBuffer(Base):
    def __init__(self, num_classes: int = 10) -> None:
        super().__init__(num_classes)
        self.register_buffer("odd", torch.eye(3).to_sparse())


class OddName(Base):
    def __init__(self, num_classes: int = 10) -> None:
        super().__init__(num_classes)
        self.register_buffer("\udcff", torch.ones(1))


class NormalizesBatches(Base):
    """Cannot do with a batch of one image in training."""

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__(num_classes)
        self.norm = nn.BatchNorm1d(12)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.norm(self.features(x)))


class ReservedName(Base):
    """That of the part of a safetensors file that is no tensor."""

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__(num_classes)
        self.register_buffer("__metadata__", torch.ones(1))


class Pixels(Base):
    """Logits as a fully convolutional network has them."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x)[:, :, None, None]


class HooksLate(Base):
    def __init__(self, num_classes: int = 10) -> None:
        super().__init__(num_classes)
        self.a.weight.register_post_accumulate_grad_hook(lambda p: p.grad.zero_())


class MissingFile(Base):
    def __init__(self, num_classes: int = 10) -> None:
        super().__init__(num_classes)
        self.load_state_dict(torch.load("pretrained.pth"))


class Shrinks(Base):
    """Made for larger images."""

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__(num_classes)
        self.pool = nn.Sequential(nn.AvgPool2d(16), nn.MaxPool2d(3))


class KeepsGraph(Base):
    """A hidden state that goes on from batch to batch."""

    last: torch.Tensor | float = 0.0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.features(x)
        if self.training:
            h = self.last = h + 0.5 * torch.as_tensor(self.last).mean()
        return self.fc(h)


class Thousand(Base):
    def __init__(self, n_classes: int = 1000) -> None:
        super().__init__(n_classes)


class Device(Base):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x + torch.ones(1, device="meta"))


class DoubleOnly(Base):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.features(x) @ torch.eye(12, dtype=torch.float64))


class EvaluatesAlone(Base):
    """Its train() takes no mode, and eval() does without."""

    def train(self) -> "EvaluatesAlone":
        return super().train(True)


@dataclass
class Compared(nn.Module):
    num_classes: int = 10

    def __post_init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3, self.num_classes)


class Probabilities(Base):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x).softmax(1)


class OneBatchSize(Base):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x).view(20, -1)


class Same(Base):
    """Seeds itself."""

    def __init__(self, num_classes: int = 10) -> None:
        torch.manual_seed(0)
        super().__init__(num_classes)


class WithoutLinear(Base):
    """Has dense layers, but never calls them."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = F.relu(F.linear(self.pool(x).flatten(1), self.a.weight, self.a.bias))
        return F.linear(h, self.fc.weight, self.fc.bias)


class OneImageLess(Base):
    """Cannot do with a batch of one image in evaluation."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if len(x) == 1 and not self.training:
            raise ValueError("one image is too few")
        return super().forward(x)
