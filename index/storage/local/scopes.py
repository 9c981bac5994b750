"""What a request may search: the ready documents of one collection, narrowed by ids and metadata.

The result is a :class:`~index.search.scoring.Scope`: the rows of other collections, of deleted documents and of
filtered ones are not on its candidate axis at all, so no scoring code can return them.
"""

from __future__ import annotations

import json
import math
import sqlite3
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from dataclasses import dataclass, replace
from queue import SimpleQueue
from typing import NamedTuple

import numpy as np

from index.arrays import Float32Array, IntArray
from index.errors import UnknownCollection, UnknownDocument
from index.search.matrices import Matrices, Part
from index.search.matrix_scope import MatrixScope, Preselected
from index.search.positions import Positions
from index.search.preselection import LONG_DOCUMENT, STALE, Neighbours, build_neighbours
from index.storage.documents import Piece
from index.storage.local.store import Store
from qrag.wire.filters import Filter

CACHED_SCOPES = 64
UID_BATCH = 500
"""Ids looked up by one SQL statement."""


class ChunkAddress(NamedTuple):
    """Chunk ``number`` of the document ``uid``."""

    uid: int
    number: int


@dataclass(frozen=True)
class SearchScope:
    """A scope, and whose chunks its candidate axis holds: document ``d`` of it is ``uids[d]``."""

    scope: MatrixScope
    uids: IntArray

    def address(self, position: int) -> ChunkAddress:
        """The chunk at a position of the candidate axis."""
        document = self.scope.document_of(position)
        return ChunkAddress(int(self.uids[document]), position - int(self.scope.offsets[document]))


class Catalog:
    """Builds scopes of one space's vectors and keeps the latest ones while nothing changes.

    The space is the one that is active when the catalog is made; it goes on with it when another becomes active.
    """

    def __init__(self, store: Store, *, preselect_above: float = math.inf) -> None:
        self._store = store
        self._space = store.space
        self._cache: OrderedDict[str, SearchScope] = OrderedDict()
        self._version = store.version
        self._lock = threading.Lock()
        self._preselect_above = preselect_above
        self._neighbours: dict[str, Neighbours] = {}
        self.too_large: SimpleQueue[str | None] = SimpleQueue()
        """Collections that :meth:`preselect` should be called for; the caller may put in ``None`` to wake itself."""
        self._queued: set[str] = set()
        self._generation = 0
        """Grows whenever an index was built."""
        store.listeners.append(self._forget)

    def close(self) -> None:
        """Listen to the store no more: nobody asks any longer."""
        self._store.listeners.remove(self._forget)

    def scope(
        self, collection: str, document_ids: Sequence[str] | None = None, filter: Filter | None = None
    ) -> SearchScope:
        """The chunks of a collection's ready documents, in order of arrival.

        Of a whole collection with more than ``preselect_above`` chunks in short documents the best are preselected,
        once there is an index (:meth:`preselect`); whatever is narrowed down is exact.

        Raises :class:`~index.errors.UnknownCollection`, or :class:`~index.errors.UnknownDocument` for an
        id that the collection does not hold.
        """
        ids = None if document_ids is None else sorted(set(document_ids))
        key = repr((collection, ids, filter and filter.model_dump(by_alias=True, exclude_unset=True)))
        with self._lock:
            version, generation = self._store.version, self._generation
            cached = self._cache.get(key)
            if cached is not None:
                self._cache.move_to_end(key)
                return cached
        while True:
            pieces = self._pieces(collection, ids, filter)
            try:
                built = self._build(pieces)
                if ids is None and filter is None:
                    built = self._preselected(collection, built, pieces)
                break
            except KeyError:
                continue  # a segment was merged or emptied after the rows were read: read them again
        with self._lock:
            if (self._store.version, self._generation) != (version, generation):
                return built
            self._cache[key] = built
            while len(self._cache) > CACHED_SCOPES:
                self._cache.popitem(last=False)
        return built

    def preselect(self, collection: str, positions: Positions, stopped: Callable[[], bool]) -> None:
        """Build an index of a collection's short documents, for the scopes that are built from then on.

        Raises :class:`~index.errors.UnknownCollection`, or :class:`concurrent.futures.CancelledError` once ``stopped``
        says so or the collection goes. After any other failure the collection is not asked for again.
        """

        def read(documents: IntArray) -> Float32Array:
            if not self._is_there(collection):
                raise CancelledError
            return self._vectors(uids[documents], sizes[documents])

        try:
            # What is built takes long, and must not keep segments that are replaced meanwhile: only numbers are kept.
            counts = _counts(sorted(self._pieces(collection, None, None)[0]))
            short = {uid: count for uid, count in counts.items() if count < LONG_DOCUMENT}
            sizes, uids = np.array(list(short.values()), dtype=np.int64), np.array(list(short), dtype=np.int64)
            found = build_neighbours(sizes, uids, read, positions, stopped)
        except (CancelledError, UnknownCollection):
            with self._lock:
                self._queued.discard(collection)
            raise
        with self._lock:
            self._neighbours[collection] = found
            self._queued.discard(collection)
            self._generation += 1
            self._cache.clear()

    def drop_unused(self) -> None:
        """Give up the indexes of collections that are gone."""
        for collection in list(self._neighbours):
            if not self._is_there(collection):
                with self._lock:
                    self._neighbours.pop(collection, None)

    def _vectors(self, uids: IntArray, counts: IntArray) -> Float32Array:
        """Embeddings of documents, laid end to end; zeros for one that was deleted meanwhile."""
        start = dict(zip(uids.tolist(), (np.cumsum(counts) - counts).tolist(), strict=True))
        found = np.zeros((int(counts.sum()), self._space.dimension), dtype=np.float32)
        while True:
            with self._store.database.read() as connection:
                pieces = connection.execute(
                    "SELECT uid, first_chunk, segment, first_row, rows FROM pieces "
                    "WHERE uid IN (SELECT value FROM json_each(?)) AND space = ?",
                    (json.dumps(uids.tolist()), self._space.space),
                ).fetchall()
            try:
                for uid, first_chunk, segment, first_row, rows in pieces:
                    at = start[uid] + first_chunk
                    found[at : at + rows] = self._store.segments[segment].matrix[first_row : first_row + rows]
            except KeyError:
                continue  # merged meanwhile
            return found

    def _preselected(self, collection: str, built: SearchScope, pieces: tuple[list[Piece], float]) -> SearchScope:
        scope, uids = built.scope, built.uids
        counts = np.diff(scope.offsets)
        enough = int(counts[counts < LONG_DOCUMENT].sum()) > self._preselect_above
        with self._lock:
            found = self._neighbours.get(collection) if enough else self._neighbours.pop(collection, None)
        if enough and (found is None or found.share_changed(scope, uids) > STALE):
            self._ask_for_index(collection)
        if not enough or found is None:
            return built
        read = ~np.isin(uids, found.uids)
        chosen = set(uids[read].tolist())
        exact = self._build(([piece for piece in pieces[0] if piece.uid in chosen], pieces[1])).scope
        exact_positions = np.flatnonzero(np.repeat(read, counts))
        preselected = Preselected(found.within(scope, uids), exact, exact_positions)
        return SearchScope(replace(scope, preselected=preselected), uids)

    def _ask_for_index(self, collection: str) -> None:
        with self._lock:
            if collection not in self._queued:
                self._queued.add(collection)
                self.too_large.put(collection)

    def _is_there(self, collection: str) -> bool:
        with self._store.database.read() as connection:
            return _is_there(connection, collection)

    def _forget(self) -> None:
        # An outdated scope must go at once, not when it is asked for again: it keeps deleted segments mapped,
        # and so their disk space taken.
        with self._lock:
            if self._version != self._store.version:
                self._version = self._store.version
                self._cache.clear()

    def _pieces(self, collection: str, ids: list[str] | None, filter: Filter | None) -> tuple[list[Piece], float]:
        with self._store.database.read() as connection:
            if not _is_there(connection, collection):
                raise UnknownCollection(
                    f"There is no collection {collection!r}. Index documents into it first: POST /documents."
                )
            wanted: set[int] | None = None
            if ids is not None:
                wanted = set()
                for at in range(0, len(ids), UID_BATCH):
                    batch = ids[at : at + UID_BATCH]
                    marks = ",".join("?" * len(batch))
                    found = dict(
                        connection.execute(
                            f"SELECT id, uid FROM documents WHERE collection = ? AND id IN ({marks})",
                            (collection, *batch),
                        ).fetchall()
                    )
                    missing = [id for id in batch if id not in found]
                    if missing:
                        raise UnknownDocument(f"Collection {collection!r} has no document {missing[0]!r}.")
                    wanted.update(found.values())
            if filter is not None:
                rows = connection.execute(
                    "SELECT uid, metadata FROM documents WHERE collection = ? AND status = 'ready'",
                    (collection,),
                )
                matching = {row["uid"] for row in rows if filter.matches(json.loads(row["metadata"]))}
                wanted = matching if wanted is None else wanted & matching
            pieces = [
                Piece(*row)
                for row in connection.execute(
                    "SELECT p.uid, p.first_chunk, p.segment, p.first_row, p.rows FROM pieces p "
                    "JOIN documents d USING (uid) WHERE d.collection = ? AND d.status = 'ready' AND p.space = ?",
                    (collection, self._space.space),
                )
                if wanted is None or row[0] in wanted
            ]
            bound = connection.execute(
                "SELECT MAX(max_norm) FROM segments WHERE space = ?", (self._space.space,)
            ).fetchone()[0]
        return pieces, bound or 1.0

    def _build(self, found: tuple[list[Piece], float]) -> SearchScope:
        pieces, norm_bound = found
        # Documents in order of arrival, which is nearly their order on disk but does not change when segments
        # are merged: the same question over the same documents has the same answer, before and after.
        pieces = sorted(pieces)
        counts = _counts(pieces)
        parts: list[Part] = []
        start = 0
        for stretch in _neighbours(pieces):
            rows = sum(piece.rows for piece in stretch)
            parts.append(self._part(start, stretch[0], rows))
            start += rows
        offsets = np.cumsum([0, *counts.values()], dtype=np.int64)
        return SearchScope(
            MatrixScope(Matrices(offsets, tuple(parts), norm_bound)), np.fromiter(counts, np.int64, len(counts))
        )

    def _part(self, start: int, first: Piece, rows: int) -> Part:
        matrix, codes, half = self._store.segments[first.segment]
        inside = slice(first.first_row, first.first_row + rows)
        if half is not None:
            half = half._replace(rows=half.rows[inside])
        return Part(start, matrix[inside], codes, first.first_row, half)


def _counts(pieces: Sequence[Piece]) -> dict[int, int]:
    """Chunks of each document, in the order of the pieces."""
    counts: dict[int, int] = {}
    for piece in pieces:
        counts[piece.uid] = counts.get(piece.uid, 0) + piece.rows
    return counts


def _is_there(connection: sqlite3.Connection, collection: str) -> bool:
    found = connection.execute("SELECT 1 FROM documents WHERE collection = ? LIMIT 1", (collection,)).fetchone()
    return found is not None


def _neighbours(pieces: Sequence[Piece]) -> Iterator[list[Piece]]:
    """Pieces that follow each other on disk."""
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
