"""A scope over matrices in memory or mapped from files: one read of them for all states of a step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import faiss
import numpy as np

from index.arrays import BoolArray, Float32Array, IntArray
from index.search.function import QFunction
from index.search.scanning.bags import Frequencies
from index.search.scanning.matrices import Matrices
from index.search.scope import Candidate, Estimate
from index.search.scoring import exact_q
from index.search.signals.protocol import UNIT
from index.search.states import States
from index.search.surroundings import average, beside

NAMED = 64
"""Candidates of a scope too large to be read that are scored for what they gain beside the inner product."""


MASKED = 1024
"""Candidates beyond the usual number that are looked for where a mask may leave out as many."""


class Nearest(Protocol):
    """A search for nearest neighbours among chunks of documents of which nothing is selected."""

    def __call__(self, queries: Float32Array, besides: int) -> IntArray:
        """The positions that are likely the best of each state, shape ``[states, positions]``; -1 for none.

        ``queries`` are those of :meth:`index.search.turning.Turning.plain_query`, one row a state. Returns ``besides``
        extra positions, because the caller will discard some.
        """


@dataclass(frozen=True, slots=True)
class Preselected:
    """What is scored of a scope too large to be read for each step (:mod:`index.search.preselection`)."""

    nearest: Nearest
    exact: MatrixScope
    """Documents that are read for each step."""
    exact_positions: IntArray
    """Where the candidates of ``exact`` stand in the whole scope, increasing."""


@dataclass(frozen=True, slots=True)
class MatrixScope:
    """A :class:`~index.search.scope.Scope` over matrices."""

    matrices: Matrices
    preselected: Preselected | None = None
    mask: BoolArray | None = None
    """Which candidates may be selected, shape ``[size]``; none: all of them."""

    @property
    def offsets(self) -> IntArray:
        """Where each document begins, shape ``[documents + 1]``."""
        return self.matrices.offsets

    @property
    def size(self) -> int:
        """The number of candidates."""
        return self.matrices.size

    @property
    def read_size(self) -> int:
        """About how many candidates are read for one state."""
        return self.size if self._likely is None else self._likely.exact.size

    @property
    def _likely(self) -> Preselected | None:
        """What is scored of a large scope; none where all is: the index would name masked candidates alone."""
        few = self.mask is None or self.size - np.count_nonzero(self.mask) <= MASKED
        return self.preselected if few else None

    def masked(self, excluded: IntArray) -> MatrixScope:
        """The same axis, on which the ``excluded`` positions may not be selected either."""
        mask = np.ones(self.size, dtype=np.bool_) if self.mask is None else self.mask.copy()
        mask[excluded] = False
        return replace(self, mask=mask)

    def document_of(self, position: int) -> int:
        """The document that the candidate at ``position`` belongs to."""
        return self.matrices.document_of(position)

    def rows(self, positions: IntArray) -> Float32Array:
        """The embeddings at ``positions``, shape ``[len(positions), d]``."""
        return self.matrices.rows(positions)

    def term_counts(self, tokens: IntArray, positions: IntArray) -> IntArray:
        """How often each candidate has each token, shape ``[len(tokens), len(positions)]``."""
        return self.matrices.term_counts(tokens, positions)

    def frequencies(self, tokens: IntArray) -> Frequencies:
        """In how many candidates each token stands."""
        return self.matrices.frequencies(tokens)

    def lengths(self, positions: IntArray) -> IntArray:
        """The number of tokens of each candidate, shape ``[len(positions)]``."""
        return self.matrices.lengths(positions)

    def estimate(
        self,
        states: States,
        selections: Sequence[Sequence[int]],
        function: QFunction,
        count: int = 1,  # noqa: ARG002  # all are scored
    ) -> list[Estimate]:
        """``Q(s, i)`` in each state, estimated by one read of the matrices."""
        if (preselected := self._likely) is not None:
            return self._estimate_preselected(preselected, states, selections, function)
        # The system zeroes it page by page as signals reach it: as cheap as uninitialised memory.
        values = np.zeros((len(states), self.size), dtype=np.float32)
        first, *further = function.signals
        errors = np.array(first.add(states, self.matrices, selections, values))
        for number, state in enumerate(states):
            if state.surroundings:
                errors[number] += average(values[number], self.offsets, selections[number], state.surroundings)
        for signal in further:
            errors += signal.add(states, self.matrices, selections, values)
        for row, selected in zip(values, selections, strict=True):
            row[list(selected)] = -np.inf
        if self.mask is not None:
            values[:, ~self.mask] = -np.inf
        return [Estimate(row, error) for row, error in zip(values, errors.tolist(), strict=True)]

    def nearest(self, query: Float32Array, count: int) -> list[Candidate]:
        """The ``count`` largest inner products with ``query``, shape ``[d]``, largest first."""
        candidates: list[Candidate] = []
        for part in self.matrices.parts:
            stop = part.start + len(part.matrix)
            rows = part.matrix if self.mask is None else part.matrix[self.mask[part.start : stop]]
            positions = np.arange(part.start, stop) if self.mask is None else _admitted(self.mask, part.start, stop)
            values, nearest_rows = faiss.knn(
                query[None], rows, min(count, len(rows)), metric=faiss.METRIC_INNER_PRODUCT
            )
            candidates += map(Candidate, positions[nearest_rows[0]].tolist(), values[0].tolist())
        return sorted(candidates, key=lambda candidate: (-candidate.q, candidate.position))[:count]

    def _estimate_preselected(
        self,
        preselected: Preselected,
        states: States,
        selections: Sequence[Sequence[int]],
        function: QFunction,
    ) -> list[Estimate]:
        """:meth:`estimate` of the candidates that are likely the best, and of all that are read for each step."""
        exact, exact_positions = preselected.exact, preselected.exact_positions

        def position_in_exact(positions: Sequence[int] | IntArray) -> list[int]:
            """The position of each candidate on the axis of ``exact``; -1 where it is not on it."""
            indices = np.searchsorted(exact_positions, positions)
            is_exact = np.append(exact_positions, -1)[indices] == positions
            return np.where(is_exact, indices, -1).tolist()  # type: ignore[no-any-return]

        exact_selections = [[index for index in position_in_exact(selected) if index >= 0] for selected in selections]
        exact_estimates = exact.estimate(states, exact_selections, function)
        visited = []
        for state, selected in zip(states, selections, strict=True):
            # Where nothing turns, a chunk is worth the same whatever is selected.
            turning = function.turning.turns(state)
            documents = sorted(set(map(self.document_of, selected))) if turning else []
            indices = position_in_exact(self.offsets[documents])
            visited.append([document for document, index in zip(documents, indices, strict=True) if index < 0])
        besides = max(
            len(selected) + int(np.diff(self.offsets)[documents].sum())
            for selected, documents in zip(selections, visited, strict=True)
        )
        if self.mask is not None:
            besides += int(np.count_nonzero(~self.mask))
        queries = np.stack([function.turning.plain_query(state) for state in states])
        neighbours = preselected.nearest(queries if function.w >= 0 else -queries, besides)
        with_terms = self._best_by_further_signals(states, selections, function, besides)
        estimates = []
        for state, selected, exact_estimate, documents, nearest, named in zip(
            states, selections, exact_estimates, visited, neighbours, with_terms, strict=True
        ):
            # Of visited documents all chunks are scored, in place of those that the index returned.
            document_of = np.searchsorted(self.offsets, nearest, side="right") - 1
            unvisited = nearest[~np.isin(document_of, [-1, *documents])]
            of_visited = [np.arange(*self.offsets[document : document + 2]) for document in documents]
            likely = np.concatenate([unvisited, named, *of_visited]).astype(np.int64)
            if state.surroundings:  # the best has a neighbour that is worth as much, if not itself
                likely = np.append(likely, beside(likely, self.offsets, selected))
            candidates = np.setdiff1d(likely, np.concatenate([[-1], selected, exact_positions])).astype(np.int64)
            q = exact_q(state, self, selected, function, candidates)
            inner_product_error = function.inner_product.error(state, exact.matrices, 0.0)
            error = max(exact_estimate.error, inner_product_error, UNIT * float(np.abs(q).max(initial=0.0)))
            values = np.concatenate([exact_estimate.values, q.astype(np.float32)])
            positions = np.concatenate([exact_positions, candidates])
            if self.mask is not None:
                values[~self.mask[positions]] = -np.inf
            estimates.append(Estimate(values, error, positions, exact=False))
        return estimates

    def _best_by_further_signals(
        self, states: States, selections: Sequence[Sequence[int]], function: QFunction, besides: int
    ) -> list[IntArray]:
        """For each state the candidates that gain most from the signals beside the inner product."""
        if not function.further:
            return [np.empty(0, dtype=np.int64)] * len(states)
        count = min(NAMED + besides, self.size)
        named = []
        for number, selected in enumerate(selections):
            # One state at a time: the whole scope has a value, not only what is read of it.
            values = np.zeros((1, self.size), dtype=np.float32)
            for signal in function.further:
                signal.add(states.between(number, number + 1), self.matrices, [selected], values)
            best = np.argpartition(values[0], self.size - count)[self.size - count :]
            named.append(best[values[0, best] > 0])
        return named


def _admitted(mask: BoolArray, start: int, stop: int) -> IntArray:
    """The positions ``start <= position < stop`` that a mask admits."""
    return start + np.flatnonzero(mask[start:stop])
