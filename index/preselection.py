"""Preselection in collections of millions of chunks: approximate, and used above a limit only.

While nothing of a document is selected, the positions of its chunks do not change. So ``R(ρ) a`` of them can be kept in
an ordinary index for nearest neighbours (FAISS), and the best of them for a state is one search with one query. The
rest is few and stays exact: long documents, those that arrived after the index was built, and those of which something
is selected. What the index finds is scored exactly before it is compared.

The index is a graph (HNSW) over vectors in one byte a number. Lists (IVF) need half of all chunks for the same recall,
because states are not where chunks are (``benchmarks/preselection.py``).
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import CancelledError
from dataclasses import dataclass

import faiss
import numpy as np

from index.positions import IntArray, Positions, rotate, unvisited_level_indices
from index.scope import Float32Array, Scope

log = logging.getLogger(__name__)

LONG_DOCUMENT = 2048
"""Chunks from which a document is read exactly: its positions change as soon as one of them is selected."""

STALE = 0.25
"""Share of chunks that came or went since an index was built from which another one is worth its time."""

GRAPH = "HNSW48,SQ8"
CONSIDERED = 120
"""Chunks that are looked at for the neighbours of a new one."""

EXPLORED = 512
"""Chunks that a search keeps in view while it follows the graph: more find more and take longer."""

FOUND = 64
"""Chunks that a search gives."""

TRAINING_ROWS = 65_536
"""From which the range of each coordinate is learnt."""

ROW_BLOCK = 1024
"""Rows rotated and added at once."""


@dataclass(frozen=True)
class Neighbours:
    """An index over the chunks of documents as they look while nothing of them is selected."""

    index: faiss.Index
    uids: IntArray
    """The documents, increasing."""
    offsets: IntArray
    """Where each document's chunks begin in the index, and where the last one's end."""

    def nearest(self, queries: Float32Array) -> IntArray:
        """The rows with about the largest products, shape ``[queries, found]``, -1 where there are fewer."""
        explored = faiss.SearchParametersHNSW(efSearch=EXPLORED)  # type: ignore[attr-defined]
        found: IntArray = self.index.search(queries, FOUND, params=explored)[1]
        return found


def build_neighbours(scope: Scope, uids: IntArray, positions: Positions, stopped: Callable[[], bool]) -> Neighbours:
    """Index the short documents of a scope; document ``d`` of it is ``uids[d]``.

    Takes a quarter of an hour for a million chunks, on one core. Raises :class:`concurrent.futures.CancelledError` once
    ``stopped`` says so.
    """
    faiss.omp_set_num_threads(1)  # of this thread: the others answer requests meanwhile
    counts = np.diff(scope.offsets)
    short = counts < LONG_DOCUMENT
    chosen = np.flatnonzero(np.repeat(short, counts))
    rho = positions.rho(unvisited_level_indices(counts, positions))[chosen]

    def seen(at: IntArray) -> Float32Array:
        vectors = scope.rows(chosen[at]).astype(np.float64)
        return rotate(vectors, rho[at], positions.rope_base).astype(np.float32)

    index = faiss.index_factory(scope.parts[0].matrix.shape[1], GRAPH, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction = CONSIDERED  # type: ignore[attr-defined]
    index.train(seen(np.linspace(0, len(chosen) - 1, min(len(chosen), TRAINING_ROWS)).astype(np.int64)))
    for low in range(0, len(chosen), ROW_BLOCK):
        if stopped():
            raise CancelledError
        index.add(seen(np.arange(low, min(low + ROW_BLOCK, len(chosen)))))
    log.info("built an index of chunks=%d documents=%d", len(chosen), int(short.sum()))
    return Neighbours(index, uids[short], np.cumsum([0, *counts[short].tolist()]))


def positions_of_rows(found: Neighbours, scope: Scope, uids: IntArray) -> IntArray:
    """Where the chunk of each row stands on a scope's candidate axis, -1 where it does not; shape ``[rows]``."""
    counts = np.diff(found.offsets)
    place = np.searchsorted(uids, found.uids).clip(max=len(uids) - 1)
    there = np.repeat(uids[place] == found.uids, counts)
    shift = np.repeat(scope.offsets[place] - found.offsets[:-1], counts)
    return np.where(there, np.arange(len(there)) + shift, -1)
