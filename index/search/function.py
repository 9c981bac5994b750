"""The Q-function: the scalars around the inner product, the positions, and further signals."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from index.arrays import Float64Array
from index.search.positions import Positions
from index.search.signals.inner_product import InnerProduct
from index.search.signals.lexical import Lexical
from index.search.signals.protocol import Signal
from index.search.turning import Turning


@dataclass(frozen=True, slots=True)
class QFunction:
    """``Q(s, i) = w · <q, E_a(c_i)> + b`` with the state's query ``q`` at the chunk's position, plus further signals.

    Part of a checkpoint. The query is ``R(-ρ) E_s(s)``, or ``E_s(s) + Pᵀ R(-ρ) u(s)`` (:mod:`index.search.turning`).
    """

    w: float
    b: float
    positions: Positions
    temperature: float = 0.05
    """The temperature of the policy ``softmax(Q / temperature)``, by which a beam compares sets of chunks."""
    further: tuple[Signal, ...] = ()
    """Signals beside the inner product."""
    order_map: Float64Array | None = None
    """``P``, shape ``[k, d]``; none where the whole embedding turns with the position."""
    _order_norm: float = field(init=False, default=0.0)

    def __post_init__(self) -> None:
        """Computes once what every search needs."""
        if self.order_map is not None:
            object.__setattr__(self, "order_map", np.ascontiguousarray(self.order_map))
            object.__setattr__(self, "_order_norm", float(np.linalg.norm(self.order_map, 2)))

    @property
    def turning(self) -> Turning:
        """The positions and what they turn."""
        return Turning(self.positions, self.order_map, self._order_norm)

    @property
    def lexical(self) -> Lexical | None:
        """The signal of tokens, where there is one."""
        return next((signal for signal in self.further if isinstance(signal, Lexical)), None)

    @property
    def inner_product(self) -> InnerProduct:
        """The first signal."""
        return InnerProduct(self.w, self.b, self.turning)

    @property
    def signals(self) -> tuple[Signal, ...]:
        """All summands, the inner product first."""
        return (self.inner_product, *self.further)
