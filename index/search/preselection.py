"""Preselection in collections of millions of chunks: approximate, and used above a limit only.

While nothing of a document is selected, its chunks' positions do not change. So what they are there
(:meth:`index.search.turning.Turning.turned`) can be kept in an ordinary index of nearest neighbours (FAISS), and one
query finds the best of them for a state. The other documents are few and stay exact: long ones, those that arrived
after the index was built, and, for states that ask about order, those with a selected chunk. The chunks that the index
returns are scored exactly before they are compared.

The index is a graph (HNSW) over vectors in one byte a number. Lists (IVF) need half of all chunks for the same recall,
because states are not where chunks are (``benchmarks/preselection.py``).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from dataclasses import dataclass

import faiss
import numpy as np

from index.arrays import Float32Array, IntArray
from index.search.matrix_scope import Nearest
from index.search.positions import all_level_indices
from index.search.scope import Scope
from index.search.turning import Turning

log = logging.getLogger(__name__)

LONG_DOCUMENT = 256
"""Chunks from which a document is read exactly: its positions change as soon as one of them is selected."""

STALE = 0.25
"""Share of chunks added or removed since an index was built, above which it is built again."""

GRAPH = "HNSW48,SQ8"
"""The index, as FAISS describes it."""

CONSIDERED = 120
"""Chunks examined for the neighbours of a new one in the graph (``efConstruction``)."""

EXPLORED = 512
"""Chunks that a search keeps as candidates while it follows the graph (``efSearch``): more raise recall and cost."""

FOUND = 64
"""Chunks that a search returns."""

MOST_FOUND = 4096
"""Most chunks that a search returns, where the caller will discard many of them."""

TRAINING_ROWS = 65_536
"""Chunks from which the range of each coordinate is learnt."""

ADDED_ROWS = 1024
"""Rows rotated and added at once."""

ReadDocuments = Callable[[IntArray], Float32Array]
"""Maps numbers of documents to their embeddings, laid end to end."""


@dataclass(frozen=True)
class NeighbourIndex:
    """An index over the chunks of documents as they look while nothing of them is selected."""

    index: faiss.Index
    uids: IntArray
    """The documents, increasing."""
    offsets: IntArray
    """Where each document's chunks begin in the index, and where the last one's end."""

    def within(self, scope: Scope, uids: IntArray, *, explored: int = EXPLORED) -> Nearest:
        """A search for the indexed chunks that are in a scope; document ``d`` of the scope is ``uids[d]``."""
        position = _positions_of_rows(self, scope, uids)
        in_scope = faiss.IDSelectorBitmap(np.packbits(position >= 0, bitorder="little"))  # type: ignore[call-arg, arg-type]

        def nearest(queries: Float32Array, besides: int) -> IntArray:
            count = min(FOUND + besides, MOST_FOUND)
            parameters = faiss.SearchParametersHNSW(efSearch=max(explored, count), sel=in_scope)  # type: ignore[attr-defined]
            rows = self.index.search(queries, count, params=parameters)[1]
            positions: IntArray = np.where(rows >= 0, position[rows], -1)
            return positions

        return nearest

    def share_changed(self, scope: Scope, uids: IntArray) -> float:
        """Chunks of short documents added or removed since, as a share of the indexed chunks."""
        counts = np.diff(scope.offsets)
        added = counts[~np.isin(uids, self.uids) & (counts < LONG_DOCUMENT)].sum()
        removed = np.diff(self.offsets)[~np.isin(self.uids, uids)].sum()
        return float(added + removed) / float(self.offsets[-1])


def build_neighbours(
    counts: IntArray, uids: IntArray, read: ReadDocuments, turning: Turning, stopped: Callable[[], bool]
) -> NeighbourIndex:
    """Index documents of ``counts`` chunks each; document ``d`` is ``uids[d]``.

    Takes a quarter of an hour for a million chunks, on one core. Raises :class:`concurrent.futures.CancelledError` once
    ``stopped`` returns true.
    """
    faiss.omp_set_num_threads(1)  # of this thread: the others answer requests meanwhile

    def turned(documents: IntArray) -> Float32Array:
        if stopped():
            raise CancelledError
        offsets = np.cumsum([0, *counts[documents].tolist()], dtype=np.int64)
        return turning.turned(read(documents), all_level_indices(offsets, (), turning.positions))

    sample = np.linspace(0, len(counts) - 1, min(len(counts), TRAINING_ROWS)).astype(np.int64)
    sample = sample[: int(np.searchsorted(np.cumsum(counts[sample]), TRAINING_ROWS)) + 1]
    training = np.concatenate([turned(documents) for documents in _blocks(sample, counts)])
    index = faiss.index_factory(training.shape[1], GRAPH, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction = CONSIDERED  # type: ignore[attr-defined]
    index.train(training)
    for documents in _blocks(np.arange(len(counts)), counts):
        index.add(turned(documents))
    log.info("built an index of chunks=%d documents=%d", index.ntotal, len(counts))
    return NeighbourIndex(index, uids, np.cumsum([0, *counts.tolist()]))


def _blocks(documents: IntArray, counts: IntArray) -> Iterator[IntArray]:
    """The documents in groups of about :data:`ADDED_ROWS` chunks."""
    block = counts[documents].cumsum() // ADDED_ROWS
    return iter(np.split(documents, np.flatnonzero(np.diff(block)) + 1))


def _positions_of_rows(index: NeighbourIndex, scope: Scope, uids: IntArray) -> IntArray:
    """Where the chunk of each row stands on a scope's candidate axis, -1 where it does not; shape ``[rows]``."""
    counts = np.diff(index.offsets)
    document = np.searchsorted(uids, index.uids).clip(max=len(uids) - 1)
    in_scope = np.repeat(uids[document] == index.uids, counts)
    shift = np.repeat(scope.offsets[document] - index.offsets[:-1], counts)
    return np.where(in_scope, np.arange(len(in_scope)) + shift, -1)
