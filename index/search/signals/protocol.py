"""What a signal is: a summand of Q, fast over all candidates and exact for few.

:meth:`Signal.add` may round, and returns a bound of the error. :meth:`Signal.exact` scores the contenders that the sum
of all signals leaves (:func:`index.search.scoring.best`). So the argmax of the sum is exact, whatever each signal
rounds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from index.arrays import Float32Array, Float64Array, IntArray
from index.search.scanning.bags import Frequencies
from index.search.scanning.matrices import Matrices
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

    def term_counts(self, tokens: IntArray, positions: IntArray) -> IntArray:
        """How often each chunk has each token, shape ``[len(tokens), len(positions)]``."""

    def frequencies(self, tokens: IntArray) -> Frequencies:
        """In how many chunks each token stands."""

    def lengths(self, positions: IntArray) -> IntArray:
        """The number of tokens of each chunk, shape ``[len(positions)]``."""


class Signal(Protocol):
    """A summand of Q."""

    def add(
        self, states: States, matrices: Matrices, selections: Sequence[Sequence[int]], values: Float32Array
    ) -> list[float]:
        """Add this signal of every candidate to ``values``, shape ``[states, matrices.size]``.

        Returns for each state a bound of the error of what was added, rounding of the sums with what ``values`` held
        included. ``selections`` holds the selected positions of each state, strictly increasing; what is added at
        selected positions is ignored.
        """

    def exact(self, state: State, chunks: Chunks, selected: Sequence[int], positions: IntArray) -> Float64Array:
        """This signal in float64 at some positions of the candidate axis, same shape as ``positions``."""
