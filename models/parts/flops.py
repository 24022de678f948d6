"""FLOP arithmetic: the cost of one matrix product, and sums and multiples of costs (convention: docs/flops.md)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Flops:
    """Floating-point operations of dense products, one multiply-add counted as 2: forward pass, and training step."""

    forward: int
    training: int

    def __add__(self, other: Flops) -> Flops:
        return Flops(self.forward + other.forward, self.training + other.training)

    def __mul__(self, times: int) -> Flops:
        return Flops(self.forward * times, self.training * times)

    __rmul__ = __mul__


NO_FLOPS = Flops(0, 0)


def product(rows: int, inner: int, columns: int, *, input_gradient: bool = True) -> Flops:
    """Cost of (rows x inner) @ (inner x columns).

    Forward 2 * rows * inner * columns. The backward pass makes one such product for each factor, so training costs
    3 x forward; 2 x where the input needs no gradient (frozen features).
    """
    forward = 2 * rows * inner * columns
    return Flops(forward, forward * (3 if input_gradient else 2))
