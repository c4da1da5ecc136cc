"""A training step recorded once and then launched as a whole: a GPU's kernels without Python between them."""

from __future__ import annotations

import logging
from collections.abc import Callable

import torch
from torch import Tensor

log = logging.getLogger(__name__)


class Recording:
    """`work(given)` as a CUDA graph. It must not wait for the device, nor do anything on the host that matters.

    `given` is an example of what it takes; a call replays the work on other values of the same shape. Recording does
    not do the work. Source: Getting Started with CUDA Graphs, and torch.cuda.graph.
    """

    def __init__(self, work: Callable[[Tensor], None], given: Tensor) -> None:
        self._given = given.clone()
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.device(given.device):
            stream = torch.cuda.current_stream()
            try:
                with torch.cuda.graph(self._graph):
                    work(self._given)
            except BaseException:  # where a recording cannot be ended, torch leaves its stream in the place of this one
                torch.cuda.set_stream(stream)
                raise

    def fits(self, given: Tensor) -> bool:
        """Return whether `given` has the shape that was recorded."""
        return given.shape == self._given.shape

    def __call__(self, given: Tensor) -> None:
        self._given.copy_(given)
        self._graph.replay()


def faithful(make: Callable[[], tuple[Callable[[Tensor], None], list[Tensor]]], given: list[Tensor]) -> bool:
    """Return whether recording works here: whether replaying leaves, bit for bit, what doing it each time leaves.

    `make` returns work and the tensors that it changes, in the same state each time; `given` are four inputs of a shape.
    """
    try:
        (plain, expected), (recorded, found) = make(), make()
        for values in given:
            plain(values)
        for values in given[:2]:  # the first calls set up what must not be set up while recording
            recorded(values)
        recording = Recording(recorded, given[2])
        for values in given[2:]:
            recording(values)
        same = all(torch.equal(one, other) for one, other in zip(expected, found, strict=True))
    except Exception as error:  # of the recording, or of a user's network, whose own steps will raise it
        log.warning("steps are not recorded: %s", error)
        return False
    if not same:
        log.warning("steps are not recorded: replayed they give something else")
    return same
