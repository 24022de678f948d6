"""FLOP arithmetic: the cost of one matrix product, and sums and multiples of costs (convention: docs/flops.md)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Flops:
    """Floating-point operations of dense products; one multiply-add counts as 2.

    Attributes:
        forward: Operations of the forward pass.
        training: Operations of forward and backward pass together.
    """

    forward: int
    training: int

    def __add__(self, other: Flops) -> Flops:
        return Flops(self.forward + other.forward, self.training + other.training)

    def __mul__(self, times: int) -> Flops:
        return Flops(self.forward * times, self.training * times)


NO_FLOPS = Flops(0, 0)


def matmul_flops(rows: int, inner: int, columns: int, *, input_gradient: bool = True) -> Flops:
    """Return the cost of (rows x inner) @ (inner x columns).

    The forward pass costs 2 * rows * inner * columns. The backward pass computes one product of the same size for the
    gradient of each factor, so training costs 3 x forward, or 2 x forward if the input needs no gradient (frozen
    features).
    """
    forward = 2 * rows * inner * columns
    return Flops(forward, forward * (3 if input_gradient else 2))
