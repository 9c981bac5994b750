"""The inner product of states and chunks: the paper's Q, and the first signal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from index.arrays import Float32Array, Float64Array, IntArray
from index.search.positions import level_indices
from index.search.scanning.matrices import Matrices
from index.search.scanning.scan import scan
from index.search.signals.protocol import UNIT, Chunks
from index.search.states import State, States
from index.search.turning import Turning


@dataclass(frozen=True, slots=True)
class InnerProduct:
    """``w · <q, a> + b``, with the state's query ``q`` at the chunk's level (:mod:`index.search.turning`).

    The *state* is turned, once a level, and the chunk matrix is only read: no rotated copy of it ever exists.
    """

    w: float
    b: float
    turning: Turning

    def add(
        self, states: States, matrices: Matrices, selections: Sequence[Sequence[int]], values: Float32Array
    ) -> list[float]:
        """One read of codes or halves (:mod:`index.search.scanning.scan`)."""
        errors = scan(states, matrices, selections, self.turning, values, factor=self.w, summand=self.b)
        return [self.error(state, matrices, error) for state, error in zip(states, errors, strict=True)]

    def exact(self, state: State, chunks: Chunks, selected: Sequence[int], positions: IntArray) -> Float64Array:
        """The product of each embedding with the state's query at that chunk's level."""
        level = level_indices(positions, chunks.offsets, selected, self.turning.positions)
        distinct, table_rows = np.unique(level, return_inverse=True)
        table = self.turning.queries(state, distinct)
        products: Float64Array = np.einsum("nd,nd->n", chunks.rows(positions).astype(np.float64), table[table_rows])
        return self.w * products + self.b

    def error(self, state: State, matrices: Matrices, query_error: float) -> float:
        """How far an estimated value can be from the true one.

        The usual bound for a sum of ``d`` rounded products is ``d · u · |q| · |a|``; the few additional roundings are
        in the query, ``w`` and ``b``. Codes ``q̂`` and ``â`` add
        ``|<q, a> - <q̂, â>| <= |q| |a - â| + |q - q̂| |â|``, where ``query_error`` bounds ``|q - q̂|``.
        """
        length = self.turning.longest(state)
        products = (len(state.embedding) + 8) * abs(self.w) * length * matrices.norm_bound
        rounding = UNIT * (products + 2 * abs(self.b))
        longest = matrices.norm_bound + matrices.read_error
        return rounding + abs(self.w) * (length * matrices.read_error + query_error * longest)
