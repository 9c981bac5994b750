"""The Q-function: the scalars around the inner product, the positions, and further signals."""

from __future__ import annotations

from dataclasses import dataclass

from index.search.positions import Positions
from index.search.signals import InnerProduct, Signal


@dataclass(frozen=True, slots=True)
class QFunction:
    """``Q(s, i) = w · <E_s(s), R(ρ(i)) E_a(c_i)> + b``, plus what further signals add; part of a checkpoint."""

    w: float
    b: float
    positions: Positions
    temperature: float = 0.05
    """The temperature of the policy ``softmax(Q / temperature)``, by which a beam compares sets of chunks."""
    further: tuple[Signal, ...] = ()
    """Signals beside the inner product."""

    @property
    def inner_product(self) -> InnerProduct:
        """The first signal."""
        return InnerProduct(self.w, self.b, self.positions)

    @property
    def signals(self) -> tuple[Signal, ...]:
        """All summands, the inner product first."""
        return (self.inner_product, *self.further)
