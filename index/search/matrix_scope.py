"""A scope over matrices in memory or mapped from files: one read of them for all states of a step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import faiss
import numpy as np

from index.arrays import BoolArray, Float32Array, IntArray
from index.search.function import QFunction
from index.search.matrices import Matrices
from index.search.scope import Candidate, Estimate
from index.search.scoring import exact_q
from index.search.signals import UNIT
from index.search.states import States


class Nearest(Protocol):
    """An index of chunks as they look while nothing of their documents is selected."""

    def __call__(self, states: Float32Array, besides: int) -> IntArray:
        """The positions that are likely the best of each state, shape ``[states, positions]``; -1 for none.

        ``states`` has shape ``[states, d]``. Returns ``besides`` extra positions, because the caller will discard some.
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
    """A :class:`~index.search.scope.Scope` whose embeddings are matrices here."""

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
        return self.size if self.preselected is None else self.preselected.exact.size

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

    def estimate(self, states: States, selections: Sequence[Sequence[int]], function: QFunction) -> list[Estimate]:
        """``Q(s, i)`` in each state, as near as one read of what is stored tells."""
        if self.preselected is not None:
            return self._estimate_preselected(self.preselected, states, selections, function)
        # Written to page by page as signals reach it: as cheap as memory that is not initialised.
        values = np.zeros((len(states), self.size), dtype=np.float32)
        first, *further = function.signals
        errors = np.array(first.add(states, self.matrices, selections, values))
        for signal in further:
            errors += signal.add(states, self.matrices, selections, values)
            errors += UNIT * np.abs(values).max(axis=1, initial=0.0)  # of the sum in single precision
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
            places = np.arange(part.start, stop) if self.mask is None else _where(self.mask, part.start, stop)
            values, nearest = faiss.knn(query[None], rows, min(count, len(rows)), metric=faiss.METRIC_INNER_PRODUCT)
            candidates += map(Candidate, places[nearest[0]].tolist(), values[0].tolist())
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

        def place(positions: Sequence[int] | IntArray) -> list[int]:
            """Where each position stands in what is read exactly; -1 where it does not."""
            places = np.searchsorted(exact_positions, positions)
            there = np.append(exact_positions, -1)[places] == positions
            return np.where(there, places, -1).tolist()  # type: ignore[no-any-return]

        read = exact.estimate(states, [[at for at in place(chosen) if at >= 0] for chosen in selections], function)
        visited = []
        for selected in selections:
            documents = sorted(set(map(self.document_of, selected)))
            apart = zip(documents, place(self.offsets[documents]), strict=True)
            visited.append([document for document, at in apart if at < 0])
        besides = max(int(np.diff(self.offsets)[documents].sum()) for documents in visited)
        likely = preselected.nearest(states.embeddings if function.w >= 0 else -states.embeddings, besides)
        estimates = []
        for state, selected, near_exact, documents, near in zip(states, selections, read, visited, likely, strict=True):
            near = near[~np.isin(np.searchsorted(self.offsets, near, side="right") - 1, [-1, *documents])]
            again = [np.arange(*self.offsets[document : document + 2]) for document in documents]
            chosen = np.setdiff1d(np.concatenate([near, *again]), selected).astype(np.int64)
            scored = exact_q(state, self, selected, function, chosen)
            rounding = UNIT * float(np.abs(scored).max(initial=0.0))
            error = max(near_exact.error, function.inner_product.error(state.embedding, exact.matrices, 0.0), rounding)
            values = np.concatenate([near_exact.values, scored.astype(np.float32)])
            positions = np.concatenate([exact_positions, chosen])
            if self.mask is not None:
                values[~self.mask[positions]] = -np.inf
            estimates.append(Estimate(values, error, positions, exact=False))
        return estimates


def _where(mask: BoolArray, start: int, stop: int) -> IntArray:
    """The positions ``start <= position < stop`` that a mask admits."""
    return start + np.flatnonzero(mask[start:stop])
