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
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from dataclasses import dataclass

import faiss
import numpy as np

from index.arrays import Float32Array, IntArray
from index.search.matrix_scope import Nearest
from index.search.positions import Positions, all_level_indices, rotate
from index.search.scope import Scope

log = logging.getLogger(__name__)

LONG_DOCUMENT = 256
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

MOST_FOUND = 4096
"""Chunks that it gives at most, where many of those found are of documents that are read anyway."""

TRAINING_ROWS = 65_536
"""From which the range of each coordinate is learnt."""

ROW_BLOCK = 1024
"""Rows rotated and added at once."""

ReadDocuments = Callable[[IntArray], Float32Array]
"""The embeddings of some documents, given by their numbers, laid end to end."""


@dataclass(frozen=True)
class Neighbours:
    """An index over the chunks of documents as they look while nothing of them is selected."""

    index: faiss.Index
    uids: IntArray
    """The documents, increasing."""
    offsets: IntArray
    """Where each document's chunks begin in the index, and where the last one's end."""

    def within(self, scope: Scope, uids: IntArray, *, explored: int = EXPLORED) -> Nearest:
        """A search for the chunks of it that are in a scope; document ``d`` of that is ``uids[d]``."""
        position = _positions_of_rows(self, scope, uids)
        there = faiss.IDSelectorBitmap(np.packbits(position >= 0, bitorder="little"))  # type: ignore[call-arg, arg-type]

        def nearest(states: Float32Array, besides: int) -> IntArray:
            count = min(FOUND + besides, MOST_FOUND)
            asked = faiss.SearchParametersHNSW(efSearch=max(explored, count), sel=there)  # type: ignore[attr-defined]
            rows = self.index.search(states, count, params=asked)[1]
            found: IntArray = np.where(rows >= 0, position[rows], -1)
            return found

        return nearest

    def share_changed(self, scope: Scope, uids: IntArray) -> float:
        """Chunks of short documents that came or went since, by how many there were."""
        counts = np.diff(scope.offsets)
        came = counts[~np.isin(uids, self.uids) & (counts < LONG_DOCUMENT)].sum()
        went = np.diff(self.offsets)[~np.isin(self.uids, uids)].sum()
        return float(came + went) / float(self.offsets[-1])


def build_neighbours(
    counts: IntArray, uids: IntArray, read: ReadDocuments, positions: Positions, stopped: Callable[[], bool]
) -> Neighbours:
    """Index documents of ``counts`` chunks each; document ``d`` is ``uids[d]``.

    Takes a quarter of an hour for a million chunks, on one core. Raises :class:`concurrent.futures.CancelledError` once
    ``stopped`` says so.
    """
    faiss.omp_set_num_threads(1)  # of this thread: the others answer requests meanwhile

    def seen(documents: IntArray) -> Float32Array:
        if stopped():
            raise CancelledError
        offsets = np.cumsum([0, *counts[documents].tolist()], dtype=np.int64)
        rho = positions.rho(all_level_indices(offsets, (), positions))
        return rotate(read(documents).astype(np.float64), rho, positions.rope_base).astype(np.float32)

    sample = np.linspace(0, len(counts) - 1, min(len(counts), TRAINING_ROWS)).astype(np.int64)
    sample = sample[: int(np.searchsorted(np.cumsum(counts[sample]), TRAINING_ROWS)) + 1]
    training = np.concatenate([seen(documents) for documents in _blocks(sample, counts)])
    index = faiss.index_factory(training.shape[1], GRAPH, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction = CONSIDERED  # type: ignore[attr-defined]
    index.train(training)
    for documents in _blocks(np.arange(len(counts)), counts):
        index.add(seen(documents))
    log.info("built an index of chunks=%d documents=%d", index.ntotal, len(counts))
    return Neighbours(index, uids, np.cumsum([0, *counts.tolist()]))


def _blocks(documents: IntArray, counts: IntArray) -> Iterator[IntArray]:
    """The documents in groups of about :data:`ROW_BLOCK` chunks."""
    block = counts[documents].cumsum() // ROW_BLOCK
    return iter(np.split(documents, np.flatnonzero(np.diff(block)) + 1))


def _positions_of_rows(found: Neighbours, scope: Scope, uids: IntArray) -> IntArray:
    """Where the chunk of each row stands on a scope's candidate axis, -1 where it does not; shape ``[rows]``."""
    counts = np.diff(found.offsets)
    place = np.searchsorted(uids, found.uids).clip(max=len(uids) - 1)
    there = np.repeat(uids[place] == found.uids, counts)
    shift = np.repeat(scope.offsets[place] - found.offsets[:-1], counts)
    return np.where(there, np.arange(len(there)) + shift, -1)
