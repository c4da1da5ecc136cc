"""Measures of a network's weights: how many are zero or nearly so, how unequal they are, what leaving out zeros saves."""

import math
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property

import torch

# absolute thresholds measure scale as much as sparsity, so they are shown beside exact zeros and beside `none`
THRESHOLDS = (1e-2, 1e-3, 1e-4, 1e-5)
# of a layer's own root mean square
RELATIVE = 1e-2


def regularized(weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the tensors that sparsity is counted on: floating point with ndim >= 2, so no biases and no scales.

    The output layer is among them.
    """
    return {name: w for name, w in weights.items() if w.is_floating_point() and w.ndim >= 2}


def measure(weights: Mapping[str, torch.Tensor]) -> tuple[dict[str, float], list[dict[str, object]]]:
    """Return the measures of all weight tensors together with `compression_ratio`, and a row of measures per tensor.

    `weights` are the trainable parameters. compression_ratio is their number, biases included, over that of nonzero ones
    (Blalock et al., What is the State of Neural Network Pruning?, MLSys 2020); NaN if all are zero. A row has the
    tensor's name as "layer", its "shape" and "weights" (their number).
    """
    floating = [w for w in weights.values() if w.is_floating_point()]
    size, nonzero = sum(w.numel() for w in floating), sum(int(w.count_nonzero()) for w in floating)
    ratio = size / nonzero if nonzero else math.nan
    tensors = {name: Magnitudes(w) for name, w in regularized(weights).items() if w.numel()}
    rows = [
        {"layer": name, "shape": "x".join(map(str, t.shape)), "weights": t.size, **tensor_measures([t])}
        for name, t in tensors.items()
    ]
    return tensor_measures(list(tensors.values())) | {"compression_ratio": ratio}, rows


def speedup(weights: Mapping[str, torch.Tensor], macs: Mapping[str, int], others: int = 0) -> float:
    """Return how many times fewer multiplications an image takes if those with a zero weight are left out.

    sum_l MACs_l / sum_l MACs_l nnz_l/n_l over the layers l in `macs` (measures/work.py); biases are not counted (Blalock
    et al., MLSys 2020). `others`, which have no weight, are in both sums. It is a bound and no measurement: few devices
    gain from scattered zeros. NaN without such a layer, or if nothing is left.
    """
    left = sum(count * int(weights[name].count_nonzero()) / weights[name].numel() for name, count in macs.items())
    return (sum(macs.values()) + others) / (left + others) if macs and left + others else math.nan


class Magnitudes:
    """The |w| of one tensor in ascending order, from which its measures are read: sorting is most of their cost."""

    def __init__(self, w: torch.Tensor) -> None:
        w = w.detach()
        self.shape, self.size = w.shape, w.numel()
        self.ascending = ascending(w)
        self.convolution = w.ndim > 2
        self.rows, self.live_rows = len(w), int(w.flatten(1).count_nonzero(1).count_nonzero())

    @cached_property
    def double(self) -> torch.Tensor:
        return self.ascending.double()

    @cached_property
    def l1(self) -> float:
        return self.double.sum().item()

    @cached_property
    def squares(self) -> float:
        return torch.dot(self.double, self.double).item()

    @cached_property
    def rms(self) -> float:
        return math.sqrt(self.squares / self.size)

    @cached_property
    def numbers(self) -> torch.Tensor:
        """`ascending` without NaN, which a binary search cannot pass and sorting puts last."""
        return self.ascending if not self.ascending[-1].isnan() else self.ascending[~self.ascending.isnan()]

    def counts(self, thresholds: Sequence[float], inclusive: bool = False) -> torch.Tensor:
        """Return the number of |w| < t, or <= t, for each threshold."""
        values = torch.tensor(thresholds, dtype=self.numbers.dtype, device=self.numbers.device)
        return torch.searchsorted(self.numbers, values, right=inclusive).cpu()


def ascending(w: torch.Tensor) -> torch.Tensor:
    """Return the absolute values of all elements [N] in ascending order, NaN last."""
    absolute = w.detach().abs().flatten()
    if absolute.device.type == "cpu" and absolute.dtype in (torch.float32, torch.float64):
        absolute.numpy().sort()  # in place, and ten times faster than torch, which sorts positions too
        return absolute
    return absolute.sort().values


def tensor_measures(tensors: Sequence[Magnitudes]) -> dict[str, float]:
    """Return the measures of the elements of `tensors` taken together; N is their number, c = |w| in ascending order.

    sparsity/exact: share equal to 0.
    sparsity/abs_t: share with |w| < t.
    sparsity/rel_1e-2: share with |w| <= 0.01 rms, rms being the root mean square of the same tensor as it is now, so that
    a factor changes nothing; NaN if that is not finite. <= and not <, so that exact zeros always count.
    sparsity/filters, sparsity/neurons: share of output rows w[i] that are all zero, of tensors with ndim > 2
    (convolutions) and with ndim = 2 (dense layers); NaN if there is none.
    gini, hoyer, n_eff: see `gini` and `concentration`.
    norm/l1, norm/l2, norm/max, in float64.
    """
    size = sum(t.size for t in tensors)
    if size == 0:
        return {}
    exact = sum(int(t.counts([0.0], inclusive=True)) for t in tensors)
    below = sum(t.counts(THRESHOLDS) for t in tensors).tolist()
    finite = all(math.isfinite(t.rms) for t in tensors)
    relative = sum(int(t.counts([RELATIVE * t.rms], inclusive=True)) for t in tensors) / size if finite else math.nan
    together = tensors[0].double if len(tensors) == 1 else ascending(torch.cat([t.ascending for t in tensors])).double()
    l1, squares = sum(t.l1 for t in tensors), sum(t.squares for t in tensors)
    return {
        "sparsity/exact": exact / size,
        **{f"sparsity/abs_{_short(t)}": count / size for t, count in zip(THRESHOLDS, below, strict=True)},
        f"sparsity/rel_{_short(RELATIVE)}": relative,
        "sparsity/filters": _zero_rows(t for t in tensors if t.convolution),
        "sparsity/neurons": _zero_rows(t for t in tensors if not t.convolution),
        "gini": gini(together),
        **concentration(size, l1, squares),
        "norm/l1": l1,
        "norm/l2": math.sqrt(squares),
        "norm/max": together[-1].item(),
    }


def gini(c: torch.Tensor) -> float:
    """Return the Gini index of c [N], nonnegative in ascending order, in [0, 1 - 1/N]: how unequal its elements are.

    1 - 2 sum_k (c_k / |c|_1) (N - k + 1/2) / N for k = 1..N, which is sum_k c_k (2k - N - 1) / (N |c|_1); the only measure
    that meets all six axioms of Hurley & Rickard, Comparing Measures of Sparsity, 2009 (arXiv 0811.4706). One element: 0.
    All zero: 0, as for any constant vector.
    """
    c = c.double()
    count, total = len(c), c.sum().item()
    ranks = torch.arange(1 - count, count, 2, dtype=c.dtype, device=c.device)
    return torch.dot(c, ranks).item() / (count * total) if total else 0.0


def concentration(size: int, l1: float, squares: float) -> dict[str, float]:
    """Return "hoyer" and "n_eff" of N = `size` elements with these sums of |w| and w^2.

    hoyer: (sqrt N - l1/l2) / (sqrt N - 1), 0 if all |w| are equal, 1 if one is not zero (Hoyer, Non-negative Matrix
    Factorization with Sparseness Constraints, JMLR 2004). Of one element, and of none but zeros, it is not defined:
    0 is returned, which is that of equal elements.
    n_eff: (l1/l2)^2 in [1, N], the effective number of weights; 0 if all are zero.
    """
    if not math.isfinite(squares):
        return {"hoyer": math.nan, "n_eff": math.nan}
    if squares == 0:
        return {"hoyer": 0.0, "n_eff": 0.0}
    ratio, root = l1 / math.sqrt(squares), math.sqrt(size)
    return {"hoyer": (root - ratio) / (root - 1) if size > 1 else 0.0, "n_eff": ratio**2}


def _zero_rows(tensors: Iterable[Magnitudes]) -> float:
    tensors = list(tensors)
    rows = sum(t.rows for t in tensors)
    return 1 - sum(t.live_rows for t in tensors) / rows if rows else math.nan


def _short(threshold: float) -> str:
    return f"{threshold:.0e}".replace("e-0", "e-")
