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
        self._lists = lists
        self._unlisted = lists.unlisted
        candidates = np.setdiff1d(lists.candidates(state, offsets, selected), np.asarray(selected, dtype=np.int64))
        if mask is not None:
            candidates = candidates[mask[candidates]]
        self.positions = candidates
        """Every candidate on a list, or beside one that is on the list of inner products; increasing."""
        self._bounds = lists.bounds(state, offsets, selected, candidates)
        self._q = np.full(len(candidates), -np.inf)

    def likely(self) -> IntArray:
        """The candidates with the largest bounds."""
        return self.positions[np.sort(np.argsort(-self._bounds, kind="stable")[:LIKELY])]

    def possible(self, count: int) -> IntArray:
        """The candidates that were not scored and could be among the ``count`` best, the likeliest first."""
        possible = np.flatnonzero((self._q == -np.inf) & (self._bounds >= self._best(count)))
        return self.positions[possible[np.argsort(-self._bounds[possible], kind="stable")]]

    def lists_may_suffice(self, count: int) -> bool:
        """The same as far as it can be guessed before anything is read."""
        if self.lists_suffice(count):
            return True
        expected = self._lists.expected(self.state, self._offsets, self.selected, self.positions)
        return _largest(expected, count) > self._unlisted

    def lists_suffice(self, count: int) -> bool:
        """Whether none of the ``count`` best can be a candidate that is on no list."""
        return self._unlisted == -np.inf or self._best(count) > self._unlisted

    def proven(self, count: int) -> bool:
        """Whether the ``count`` best of what was scored are the best of all."""
        return self.lists_suffice(count) and not len(self.possible(count))

    @property
    def width(self) -> int:
        """How many chunks the Q-value of a candidate is made of, at most."""
        return 3 if self.state.surroundings else 1

    def parts(self, positions: IntArray) -> IntArray:
        """The chunks that the Q-values of some candidates are made of, shape ``[1, n]`` or ``[3, n]``; -1 for none."""
        if not self.state.surroundings:
            return positions[None]
        return np.concatenate((positions[None], beside(positions, self._offsets, self.selected)))

    def scored(self, positions: IntArray, q: Float64Array) -> None:
        """Take note of exact values."""
        self._q[np.searchsorted(self.positions, positions)] = q

    def estimate(self, count: int) -> Estimate:
        """The scored candidates; exact where none of the ``count`` best can be another."""
        known = self._q > -np.inf
        return rounded(self.positions[known], self._q[known], exact=self.proven(count))

    def _best(self, count: int) -> float:
        """The ``count``-th best of the values that are known, ``-inf`` where fewer are."""
        return _largest(self._q, count)


def _largest(values: Float64Array, count: int) -> float:
    """The ``count``-th largest of some values, ``-inf`` where there are fewer."""
    return float(np.partition(values, -count)[-count]) if len(values) >= count else -np.inf


def rounded(positions: IntArray, q: Float64Array, *, exact: bool) -> Estimate:
    """An estimate of exact values."""
    error = UNIT * float(np.abs(q).max(initial=0.0))
    return Estimate(q.astype(np.float32), error, positions, exact)
