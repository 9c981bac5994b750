"""Which of a state's candidates have to be scored, and whether the best of them is the best of all."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from index.arrays import BoolArray, Float64Array, IntArray
from index.search.scope import Estimate
from index.search.signals.protocol import UNIT
from index.search.states import State
from index.search.surroundings import beside
from index.storage.qdrant.lists import Lists

LIKELY = 32
"""Candidates of a state that are scored first: those with the largest bounds."""


class Contenders:
    """The candidates of one state by the bounds of their Q-values, and the exact values of those that were scored."""

    def __init__(
        self, state: State, selected: Sequence[int], lists: Lists, offsets: IntArray, mask: BoolArray | None
    ) -> None:
        self.state, self.selected = state, selected
        self._offsets = offsets
        self._unlisted = lists.unlisted
        candidates = np.setdiff1d(lists.candidates(state, offsets, selected), np.asarray(selected, dtype=np.int64))
        if mask is not None:
            candidates = candidates[mask[candidates]]
        self._positions = candidates
        self._bounds = lists.bounds(state, offsets, selected, candidates)
        self._q = np.full(len(candidates), -np.inf)

    def likely(self) -> IntArray:
        """The candidates with the largest bounds."""
        return self._positions[np.sort(np.argsort(-self._bounds, kind="stable")[:LIKELY])]

    def possible(self, count: int) -> IntArray:
        """The candidates that were not scored and could be among the ``count`` best, the likeliest first."""
        possible = np.flatnonzero((self._q == -np.inf) & (self._bounds >= self._best(count)))
        return self._positions[possible[np.argsort(-self._bounds[possible], kind="stable")]]

    def parts(self, positions: IntArray) -> IntArray:
        """The chunks that the Q-values of some candidates are made of, shape ``[1, n]`` or ``[3, n]``; -1 for none."""
        if not self.state.surroundings:
            return positions[None]
        return np.concatenate((positions[None], beside(positions, self._offsets, self.selected)))

    def scored(self, positions: IntArray, q: Float64Array) -> None:
        """Take note of exact values."""
        self._q[np.searchsorted(self._positions, positions)] = q

    def estimate(self, count: int) -> Estimate:
        """The scored candidates; exact where none of the ``count`` best can be another."""
        known = self._q > -np.inf
        exact = self._unlisted == -np.inf or self._best(count) > self._unlisted
        return rounded(self._positions[known], self._q[known], exact=exact)

    def _best(self, count: int) -> float:
        """The ``count``-th best of the values that are known, ``-inf`` where fewer are."""
        return float(np.partition(self._q, -count)[-count]) if len(self._q) >= count else -np.inf


def rounded(positions: IntArray, q: Float64Array, *, exact: bool) -> Estimate:
    """An estimate of exact values."""
    error = UNIT * float(np.abs(q).max(initial=0.0))
    return Estimate(q.astype(np.float32), error, positions, exact)
