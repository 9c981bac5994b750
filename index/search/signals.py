"""The summands of Q. The inner product is the first; another one is a class with the two methods of :class:`Signal`.

A signal is fast over all candidates and exact for few. :meth:`Signal.add` may round, and returns a bound of the error.
:meth:`Signal.exact` scores the contenders that the sum of all signals leaves (:func:`index.search.scoring.best`). So
the argmax of the sum is exact, whatever each signal rounds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from index.arrays import Float32Array, Float64Array, IntArray
from index.search.matrices import Matrices
from index.search.positions import Positions, level_indices, rotate_back
from index.search.scan import scan
from index.search.states import State, States

UNIT = 2.0**-24
"""Largest relative error of one rounding in single precision."""


class Chunks(Protocol):
    """What a signal reads of the candidates, whatever engine keeps them; every scope is one."""

    @property
    def offsets(self) -> IntArray:
        """Where each document begins on the candidate axis, shape ``[documents + 1]``."""

    def rows(self, positions: IntArray) -> Float32Array:
        """The embeddings at ``positions``, shape ``[len(positions), d]``."""


class Signal(Protocol):
    """A summand of Q."""

    def add(
        self, states: States, matrices: Matrices, selections: Sequence[Sequence[int]], values: Float32Array
    ) -> list[float]:
        """Add this signal of every candidate to ``values``, shape ``[states, matrices.size]``.

        Returns for each state a bound of the error of what was added. ``selections`` holds the selected
        positions of each state, strictly increasing; what is added at selected positions is ignored.
        """

    def exact(self, state: State, chunks: Chunks, selected: Sequence[int], positions: IntArray) -> Float64Array:
        """This signal in float64 at some positions of the candidate axis, same shape as ``positions``."""


@dataclass(frozen=True, slots=True)
class InnerProduct:
    """``w · <E_s(s), R(ρ(i)) E_a(c_i)> + b``, the paper's Q.

    Because ``<s, R(ρ)a> = <R(-ρ)s, a>`` the *state* is rotated, once a level, and the chunk matrix is only read: no
    rotated copy of it ever exists.
    """

    w: float
    b: float
    positions: Positions

    def add(
        self, states: States, matrices: Matrices, selections: Sequence[Sequence[int]], values: Float32Array
    ) -> list[float]:
        """One read of codes or halves (:mod:`index.search.scan`)."""
        errors = scan(states.embeddings, matrices, selections, self.positions, values, factor=self.w, summand=self.b)
        return [
            self.error(embedding, matrices, error) for embedding, error in zip(states.embeddings, errors, strict=True)
        ]

    def exact(self, state: State, chunks: Chunks, selected: Sequence[int], positions: IntArray) -> Float64Array:
        """The product of each embedding with the state as that chunk's level sees it."""
        level = level_indices(positions, chunks.offsets, selected, self.positions)
        distinct, table_rows = np.unique(level, return_inverse=True)
        table = rotate_back(state.embedding, distinct, self.positions)
        products: Float64Array = np.einsum("nd,nd->n", chunks.rows(positions).astype(np.float64), table[table_rows])
        return self.w * products + self.b

    def error(self, embedding: Float32Array, matrices: Matrices, query_error: float) -> float:
        """How far an estimated value can be from the true one; ``embedding`` is a state's, shape ``[d]``.

        The usual bound for a sum of ``d`` rounded products is ``d · u · |s| · |a|``; the few additional roundings are
        in the rotated state, ``w`` and ``b``. Codes ``ŝ`` and ``â`` add
        ``|<s, a> - <ŝ, â>| <= |s| |a - â| + |s - ŝ| |â|``, where ``query_error`` bounds ``|s - ŝ|``.
        """
        length = float(np.linalg.norm(embedding.astype(np.float64)))
        products = (len(embedding) + 8) * abs(self.w) * length * matrices.norm_bound
        rounding = UNIT * (products + 2 * abs(self.b))
        longest = matrices.norm_bound + matrices.read_error
        return rounding + abs(self.w) * (length * matrices.read_error + query_error * longest)
