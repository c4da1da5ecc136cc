"""Networks that hold other tensors for a while: those that are evaluated instead of what training has left."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor


@contextmanager
def holding(
    values: Mapping[str, Tensor], tensors: Callable[[], Mapping[str, Tensor]], undo: Callable[[], None] = lambda: None
) -> Iterator[None]:
    """Have networks hold `values` for the block, and what they had afterwards, bit for bit.

    `tensors` gives those of the networks, by name, as they are when it is called; meanwhile what they had is in `values`.
    `undo` is done before they get it back.
    """
    _exchange(values, tensors())
    try:
        yield
    finally:
        undo()
        _exchange(values, tensors())


@torch.no_grad()
def _exchange(values: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> None:
    # one by one, in the memory that they have: a recorded step knows its addresses
    for name, value in values.items():
        w = tensors[name].detach()
        last = w.clone()
        w.copy_(value)
        value.copy_(last)
