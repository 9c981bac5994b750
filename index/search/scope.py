"""The candidate axis: the chunks that one request may select from, whatever engine keeps their embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from index.arrays import BoolArray, Float32Array, IntArray
from index.search.function import QFunction
from index.search.scanning.bags import Frequencies
from index.search.states import States


class Candidate(NamedTuple):
    """One chunk that could be selected: its position on the candidate axis and its Q-value."""

    position: int
    q: float


class Estimate(NamedTuple):
    """Q-values of one state, each within ``error`` of the exact one; ``-inf`` where nothing may be selected."""

    values: Float32Array
    """Shape ``[scope.size]``, or that of ``positions``."""
    error: float
    positions: IntArray | None = None
    """The candidates that the values belong to; none: all, in order."""
    exact: bool = True
    """Whether every candidate was scored, so that the best of these is the best of all."""


class Scope(Protocol):
    """The chunks that one request may select from.

    The chunks of its documents are laid end to end on one axis. A candidate is a position on it.
    """

    @property
    def offsets(self) -> IntArray:
        """Where each document begins, shape ``[documents + 1]``: document ``d`` has the positions ``offsets[d] <=
        position < offsets[d + 1]``."""

    @property
    def size(self) -> int:
        """The number of candidates."""

    @property
    def read_size(self) -> int:
        """About how many candidates are read for one state: what a step costs."""

    @property
    def mask(self) -> BoolArray | None:
        """Which candidates may be selected, shape ``[size]``; none: all of them."""

    def masked(self, excluded: IntArray) -> Scope:
        """The same axis, on which the ``excluded`` positions may not be selected either.

        Positions of all other chunks, and their places within their documents, stay the same.
        """

    def document_of(self, position: int) -> int:
        """The document that the candidate at ``position`` belongs to."""

    def rows(self, positions: IntArray) -> Float32Array:
        """The embeddings at ``positions``, shape ``[len(positions), d]``."""

    def term_counts(self, tokens: IntArray, positions: IntArray) -> IntArray:
        """How often each candidate has each token, shape ``[len(tokens), len(positions)]``."""

    def frequencies(self, tokens: IntArray) -> Frequencies:
        """In how many candidates each token stands."""

    def lengths(self, positions: IntArray) -> IntArray:
        """The number of tokens of each candidate, shape ``[len(positions)]``."""

    def estimate(
        self, states: States, selections: Sequence[Sequence[int]], function: QFunction, count: int = 1
    ) -> list[Estimate]:
        """``Q(s, i)`` of every candidate in each state, or of those that are likely the best.

        ``selections`` holds the selected positions of each state, strictly increasing. The ``count`` best of each state
        are what an exact estimate holds at least.
        :func:`index.search.scoring.best` orders what an estimate cannot tell apart.
        """

    def nearest(self, query: Float32Array, count: int) -> list[Candidate]:
        """The one-step dense answer: the ``count`` largest inner products with ``query``, shape ``[d]``, largest first.

        A vector database would return this; a trace shows it beside the episode.
        """
