"""What a request may search: the ready documents of one collection, narrowed by ids and metadata.

The result is a :class:`~index.search.scope.Scope` over mapped segments: the rows of other collections, of deleted
documents and of filtered ones are not on its candidate axis at all, so no scoring code can return them.
"""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError
from dataclasses import replace
from queue import Empty, SimpleQueue

import numpy as np

from index.arrays import Float32Array, IntArray
from index.errors import UnknownCollection
from index.search.matrix_scope import MatrixScope, Preselected
from index.search.preselection import LONG_DOCUMENT, STALE, NeighbourIndex, build_neighbours
from index.search.scanning.matrices import Matrices, Part
from index.search.turning import Turning
from index.storage.local.database import Database
from index.storage.local.files.segments import Segment
from index.storage.local.rows import Piece, has_documents, narrowed
from index.storage.news import News
from index.storage.vectors import SearchScope, Space
from qrag.wire.filters import Filter

CACHED_SCOPES = 64
"""Scopes that are kept while nothing changes."""


class LocalScopes:
    """The scopes of one space (:class:`~index.storage.protocols.Scopes`), the latest of them cached.

    The cache is emptied as soon as what is searchable changes.
    """

    def __init__(
        self,
        database: Database,
        segments: Mapping[int, Segment],
        news: News,
        space: Space,
        *,
        preselect_above: float,
    ) -> None:
        self._database = database
        self._segments = segments
        self._news = news
        self._space = space
        self._cache: OrderedDict[str, SearchScope] = OrderedDict()
        self._version = news.version
        self._lock = threading.Lock()
        self._preselect_above = preselect_above
        self._neighbours: dict[str, NeighbourIndex] = {}
        self.too_large: SimpleQueue[str | None] = SimpleQueue()
        """Collections without an index, or with a stale one; ``None`` wakes the thread that builds indexes."""
        self._queued: set[str] = set()
        self._generation = 0
        """The number of indexes built so far."""
        news.listeners.append(self._forget)

    def close(self) -> None:
        """Stop listening to the news, and wake the thread that builds indexes."""
        if self._forget in self._news.listeners:
            self._news.listeners.remove(self._forget)
        self.too_large.put(None)

    def scope(
        self, collection: str, document_ids: Sequence[str] | None = None, filter: Filter | None = None
    ) -> SearchScope:
        """The chunks of a collection's ready documents, in order of arrival.

        A whole collection with more than ``preselect_above`` chunks in short documents is preselected once there is an
        index (:meth:`preselect`); a narrowed scope is exact.

        Raises :class:`~index.errors.UnknownCollection` or :class:`~index.errors.UnknownDocument`.
        """
        ids = None if document_ids is None else sorted(set(document_ids))
        key = repr((collection, ids, filter and filter.model_dump(by_alias=True, exclude_unset=True)))
        with self._lock:
            version, generation = self._news.version, self._generation
            cached = self._cache.get(key)
            if cached is not None:
                self._cache.move_to_end(key)
                return cached
        while True:
            pieces = self._pieces(collection, ids, filter)
            try:
                scope, uids = self._build(pieces)
                if ids is None and filter is None:
                    scope = self._preselected(collection, scope, uids, pieces)
                break
            except KeyError:
                continue  # a segment was merged or emptied after the rows were read: read them again
        built = SearchScope(scope, uids)
        with self._lock:
            if (self._news.version, self._generation) != (version, generation):
                return built
            self._cache[key] = built
            while len(self._cache) > CACHED_SCOPES:
                self._cache.popitem(last=False)
        return built

    def preselect(self, turning: Turning, stopped: Callable[[], bool], seconds: float) -> None:
        """Wait for a collection that is too large, and build an index for its later scopes.

        Where there is none, the indexes of deleted collections are dropped.
        """
        try:
            collection = self.too_large.get(timeout=seconds)
        except Empty:
            self.drop_unused()
            return
        if collection is None:
            self.too_large.put(None)  # it stays closed
            return
        try:
            self.build_index(collection, turning, stopped)
        except (CancelledError, UnknownCollection):
            return
        except Exception as error:
            error.add_note(f"collection={collection}")
            raise

    def build_index(self, collection: str, turning: Turning, stopped: Callable[[], bool]) -> None:
        """Build an index of a collection's short documents, for the scopes that are built from then on.

        Raises :class:`~index.errors.UnknownCollection`, or :class:`concurrent.futures.CancelledError` once ``stopped``
        returns true or the collection is deleted. After any other failure the collection is not queued again.
        """

        def read(documents: IntArray) -> Float32Array:
            if not self._exists(collection):
                raise CancelledError
            return self._vectors(uids[documents], sizes[documents])

        try:
            # Building takes long and must not keep replaced segments mapped: only numbers are held.
            counts = _counts(sorted(self._pieces(collection, None, None)[0]))
            short = {uid: count for uid, count in counts.items() if count < LONG_DOCUMENT}
            uids, sizes = np.array(list(short), dtype=np.int64), np.array(list(short.values()), dtype=np.int64)
            index = build_neighbours(sizes, uids, read, turning, stopped)
        except (CancelledError, UnknownCollection):
            with self._lock:
                self._queued.discard(collection)
            raise
        with self._lock:
            self._neighbours[collection] = index
            self._queued.discard(collection)
            self._generation += 1
            self._cache.clear()

    def drop_unused(self) -> None:
        """Drop the indexes of deleted collections."""
        for collection in list(self._neighbours):
            if not self._exists(collection):
                with self._lock:
                    self._neighbours.pop(collection, None)

    def _vectors(self, uids: IntArray, counts: IntArray) -> Float32Array:
        """The embeddings of documents, laid end to end; zeros for one that was deleted meanwhile."""
        start = dict(zip(uids.tolist(), (np.cumsum(counts) - counts).tolist(), strict=True))
        vectors = np.zeros((int(counts.sum()), self._space.dimension), dtype=np.float32)
        while True:
            with self._database.read() as connection:
                pieces = connection.execute(
                    "SELECT uid, first_chunk, segment, first_row, rows FROM pieces "
                    "WHERE uid IN (SELECT value FROM json_each(?)) AND space = ?",
                    (json.dumps(uids.tolist()), self._space.number),
                ).fetchall()
            try:
                for uid, first_chunk, segment, first_row, rows in pieces:
                    first = start[uid] + first_chunk
                    vectors[first : first + rows] = self._segments[segment].matrix[first_row : first_row + rows]
            except KeyError:
                continue  # merged meanwhile
            return vectors

    def _preselected(
        self, collection: str, scope: MatrixScope, uids: IntArray, pieces: tuple[list[Piece], float]
    ) -> MatrixScope:
        """The scope of a whole collection; with its index where it is large enough and there is one."""
        counts = np.diff(scope.offsets)
        is_large = int(counts[counts < LONG_DOCUMENT].sum()) > self._preselect_above
        with self._lock:
            index = self._neighbours.get(collection) if is_large else self._neighbours.pop(collection, None)
        if is_large and (index is None or index.share_changed(scope, uids) > STALE):
            self._request_index(collection)
        if not is_large or index is None:
            return scope
        is_exact = ~np.isin(uids, index.uids)
        exact_uids = set(uids[is_exact].tolist())
        exact, _ = self._build(([piece for piece in pieces[0] if piece.uid in exact_uids], pieces[1]))
        # A token is as rare in these as in all that is searched.
        exact = replace(exact, matrices=replace(exact.matrices, counted=scope.matrices))
        exact_positions = np.flatnonzero(np.repeat(is_exact, counts))
        return replace(scope, preselected=Preselected(index.within(scope, uids), exact, exact_positions))

    def _request_index(self, collection: str) -> None:
        with self._lock:
            if collection not in self._queued:
                self._queued.add(collection)
                self.too_large.put(collection)

    def _exists(self, collection: str) -> bool:
        with self._database.read() as connection:
            return has_documents(connection, collection)

    def _forget(self) -> None:
        # An outdated scope must go at once, not when it is requested again: it keeps deleted segments mapped,
        # and so their disk space taken.
        with self._lock:
            if self._version != self._news.version:
                self._version = self._news.version
                self._cache.clear()

    def _pieces(self, collection: str, ids: list[str] | None, filter: Filter | None) -> tuple[list[Piece], float]:
        """The pieces of the documents that may be searched, and a bound of the norms of their vectors."""
        with self._database.read() as connection:
            allowed = narrowed(connection, collection, ids, filter)
            pieces = [
                Piece(*row)
                for row in connection.execute(
                    "SELECT p.uid, p.first_chunk, p.segment, p.first_row, p.rows FROM pieces p "
                    "JOIN documents d USING (uid) WHERE d.collection = ? AND d.status = 'ready' AND p.space = ?",
                    (collection, self._space.number),
                )
                if allowed is None or row[0] in allowed
            ]
            bound = connection.execute(
                "SELECT MAX(max_norm) FROM segments WHERE space = ?", (self._space.number,)
            ).fetchone()[0]
        return pieces, bound or 1.0

    def _build(self, pieces_and_bound: tuple[list[Piece], float]) -> tuple[MatrixScope, IntArray]:
        """A scope over mapped segments, and the ``uid``s of its documents."""
        pieces, norm_bound = pieces_and_bound
        # Documents in order of arrival, which is nearly their order on disk but does not change when segments
        # are merged: the same question over the same documents has the same answer, before and after.
        pieces = sorted(pieces)
        counts = _counts(pieces)
        parts: list[Part] = []
        start = 0
        for stretch in _stretches(pieces):
            rows = sum(piece.rows for piece in stretch)
            parts.append(self._part(start, stretch[0], rows))
            start += rows
        offsets = np.cumsum([0, *counts.values()], dtype=np.int64)
        return MatrixScope(Matrices(offsets, tuple(parts), norm_bound)), np.fromiter(counts, np.int64, len(counts))

    def _part(self, start: int, first: Piece, rows: int) -> Part:
        matrix, codes, half, postings = self._segments[first.segment]
        inside = slice(first.first_row, first.first_row + rows)
        if half is not None:
            half = half._replace(rows=half.rows[inside])
        return Part(start, matrix[inside], codes, first.first_row, half, postings)


def _counts(pieces: Sequence[Piece]) -> dict[int, int]:
    """Chunks of each document, in the order of the pieces."""
    counts: dict[int, int] = {}
    for piece in pieces:
        counts[piece.uid] = counts.get(piece.uid, 0) + piece.rows
    return counts


def _stretches(pieces: Sequence[Piece]) -> Iterator[list[Piece]]:
    """The pieces in groups that follow each other on disk."""
    stretch: list[Piece] = []
    for piece in pieces:
        if stretch:
            last = stretch[-1]
            if (last.segment, last.first_row + last.rows) != (piece.segment, piece.first_row):
                yield stretch
                stretch = []
        stretch.append(piece)
    if stretch:
        yield stretch
