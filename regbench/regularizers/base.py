"""What a regularizer is: hooks on the gradients and weights of a training step.

A parameter comes with a leading model axis, p [K, ...]; `lam` is broadcast to it, [K, 1, ...]. Every hook works in
place and must leave a row whose lam is 0 bitwise as it was. `tau` is the effective step lr / (1 - momentum): what is
done after a heavy-ball step is not amplified by momentum, so it takes tau where a gradient takes lr.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:  # torch takes seconds to import, and a plan needs only names and grids
    from torch import Tensor


class Regularizer:
    """Base of all: does nothing. A subclass overrides what it needs and names its grid of lams."""

    name: ClassVar[str]
    lams: ClassVar[tuple[float, ...]]
    # each weight is treated by itself, so that the hooks may be called with any part of p
    elementwise: ClassVar[bool] = False

    def add_grad(self, p: Tensor, g: Tensor, lam: Tensor) -> None:
        """Add the penalty's gradient at p [K, ...] to g [K, ...], in place, before the optimizer's step."""

    def after_step(self, p: Tensor, lam: Tensor, tau: float) -> None:
        """Change p [K, ...] in place after the optimizer's step."""

    def value(self, p: Tensor, lam: Tensor) -> Tensor | float:
        """Return the penalty [K] that the method adds to the loss, for logging; 0 if it is not written as one."""
        return 0.0
