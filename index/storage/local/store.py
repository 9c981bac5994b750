"""The data directory: documents, their texts and chunks in SQLite, their embeddings in FAISS segments.

::

    qrag.sqlite3     documents, texts, chunks, and which rows of which segment are whose
    segments/*.faiss embeddings, written once
    segments/*.codes the same in one byte a number, for searching
    incoming/        files being received and read, of no use after a crash
    reserve          space given up to delete something when the disk is full
    lock             held while a process has the directory open

SQLite decides what exists. A segment file is written and fsynced *before* the transaction that
mentions it, and removed *after* the one that last did; whatever a crash leaves in between is
mentioned nowhere and is swept away at the next start.

A document is a row with a ``uid`` that is never used again. Its life is ``queued -> indexing ->
ready`` (or ``failed``); a scope shows ``ready`` documents only, and each of them whole.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import torch

from index.arrays import Float32Array, IntArray
from index.chunking import Chunk
from index.errors import CheckpointMismatch, UnknownCollection, UnknownDocument
from index.storage.documents import CollectionSize, Document, document_of
from index.storage.local.database import Database
from index.storage.local.deletion import Reserve, delete, deleted, remove_rows, remove_unused_segments, unused_segments
from index.storage.local.directory import lock_directory, open_space, sweep
from index.storage.local.rows import TEXT_BLOCK, retry, row_in, row_of, text_between, update_status
from index.storage.local.segments import Segment, codes_path, open_segment, remove_segment, write_segment
from index.storage.local.spaces import (
    Space,
    activate,
    find_or_add,
    forget_others,
    read_property,
    read_spaces,
    share_embedded,
    write_properties,
)
from qrag.wire.documents import Status


class Store:
    """An open data directory.

    Raises at opening: :class:`~index.errors.StoreInUse`, :class:`~index.errors.FormatError`,
    :class:`~index.errors.DamagedStore` or :class:`~index.errors.CheckpointMismatch`; nothing is changed
    then. Every writing call may raise :class:`~index.errors.DiskFull`.
    """

    def __init__(self, directory: Path, *, dimension: int, fingerprint: str, device: torch.device) -> None:
        self.directory = directory
        self.segments_directory = directory / "segments"
        self.incoming_directory = directory / "incoming"
        self.device = device
        self.version = 0
        """Grows whenever what is searchable changes."""
        self.news = 0
        """Grows whenever anything changes."""
        self.segments: dict[int, Segment] = {}
        self.stalled: str | None = None
        """Why nothing can be indexed for the time being; shown with every document that waits."""
        self.stalls = 0
        """How often indexing found it could not go on."""
        self._progress: dict[int, float] = {}
        self._lately_ready: list[int] = []
        """Whose progress is still known: who reads a document as it was a moment ago sees it indexing."""
        self._changed = threading.Condition()
        self.listeners: list[Callable[[], None]] = []
        """Called, from any thread, whenever documents came, went or changed their status."""
        self.segments_directory.mkdir(parents=True, exist_ok=True)
        self.incoming_directory.mkdir(exist_ok=True)
        self._lock_file = lock_directory(directory)
        self.database = Database(directory / "qrag.sqlite3")
        self.reserve = Reserve(directory / "reserve", self.database)
        try:
            self.space = open_space(self.database, directory, dimension=dimension, fingerprint=fingerprint)
            """The one that is searched."""
        except CheckpointMismatch:
            self.close()
            raise
        with self.database.read() as connection:
            rows = connection.execute("SELECT * FROM segments").fetchall()
            self.spaces = read_spaces(connection)
        for row in rows:
            if row["space"] in self.spaces:  # else nobody has them: they are removed below
                dimension = self.spaces[row["space"]].dimension
                self.segments[row["segment"]] = self.open_segment(row["segment"], row["rows"], row["bytes"], dimension)
        files = [self.segment_path(segment) for segment in self.segments]
        sweep(self.database, [self.segments_directory, self.incoming_directory], {*files, *map(codes_path, files)})
        self.remove_deleted()
        self.reserve.keep()

    def close(self) -> None:
        """Close the files and let another process open the directory."""
        self.database.close()
        self.segments.clear()
        self._lock_file.close()

    # Documents

    def document(self, id: str) -> Document:
        """The document of this id; raises :class:`~index.errors.UnknownDocument`."""
        with self.database.read() as connection:
            return self._document(row_of(connection, "id", id))

    def document_at(self, connection: sqlite3.Connection, uid: int) -> Document:
        """The document with this ``uid``, read inside the caller's transaction."""
        return self._document(row_of(connection, "uid", uid))

    def documents_at(self, uids: Iterable[int]) -> dict[int, Document]:
        """The documents with these ``uid``s; raises :class:`~index.errors.UnknownDocument`."""
        with self.database.read() as connection:
            return {uid: self.document_at(connection, uid) for uid in uids}

    def find_document(self, id: str) -> Document | None:
        """The document of this id, or none."""
        try:
            return self.document(id)
        except UnknownDocument:
            return None

    def documents(
        self, collections: Collection[str] | None = None, *, after: int = 0, limit: int = 100
    ) -> list[Document]:
        """Documents (of some collections) in order of arrival with a ``uid`` greater than ``after``."""
        wanted = None if collections is None else json.dumps(sorted(collections))
        with self.database.read() as connection:
            rows = connection.execute(
                "SELECT * FROM documents WHERE uid > ? "
                "AND (? IS NULL OR collection IN (SELECT value FROM json_each(?))) ORDER BY uid LIMIT ?",
                (after, wanted, wanted, limit),
            ).fetchall()
        return [self._document(row) for row in rows]

    def delete_document(self, id: str, *, collection: str | None = None) -> None:
        """Remove a document in any state.

        Raises :class:`~index.errors.UnknownDocument`, also where it is not in the ``collection``, if one is given.
        """
        self._delete(lambda connection: [row_in(connection, id, collection)["uid"]])

    def retry_document(self, id: str, *, collection: str | None = None) -> Document:
        """Queue a failed document again; any other is left as it is. Raises like :meth:`delete_document`."""
        with self.database.write() as connection:
            row = row_in(connection, id, collection)
            retry(connection, row)
            document = self.document_at(connection, row["uid"])
        self.announce()
        return document

    def count_by_status(self) -> dict[Status, int]:
        """How many documents there are of each status."""
        counts: dict[Status, int] = {"queued": 0, "indexing": 0, "ready": 0, "failed": 0}
        with self.database.read() as connection:
            counts.update(connection.execute("SELECT status, COUNT(*) FROM documents GROUP BY status").fetchall())
        return counts

    def collections(self) -> list[CollectionSize]:
        """Every collection that holds a document, by name."""
        with self.database.read() as connection:
            rows = connection.execute(
                "SELECT collection, COUNT(*), COALESCE(SUM(chunks), 0), SUM(bytes) FROM documents "
                "GROUP BY collection ORDER BY collection"
            )
            return [CollectionSize(*row) for row in rows]

    def delete_collection(self, name: str) -> None:
        """Remove every document of a collection; raises :class:`~index.errors.UnknownCollection`."""

        def members(connection: sqlite3.Connection) -> list[int]:
            uids = [row[0] for row in connection.execute("SELECT uid FROM documents WHERE collection = ?", (name,))]
            if not uids:
                raise UnknownCollection(f"There is no collection {name!r}.")
            return uids

        self._delete(members)

    # Spaces: see index.storage.local.spaces

    def open_space(self, *, fingerprint: str, dimension: int, properties: Mapping[str, str | None] = {}) -> Space:
        """The space of an action tower, to be filled; all others but the active one are dropped.

        Writes properties in the same transaction.
        """
        with self.database.write() as connection:
            space = find_or_add(connection, fingerprint=fingerprint, dimension=dimension)
            forget_others(connection, {space.space, self.space.space})
            write_properties(connection, properties)
            spaces = read_spaces(connection)
        self.spaces = spaces
        self.announce()
        return space

    def activate(self, space: Space, properties: Mapping[str, str | None]) -> bool:
        """Search a space from now on and write properties in the same transaction; false while something is missing.

        Not beside indexing, whose thread calls it.
        """
        with self.database.write() as connection:
            if not activate(connection, space.space):
                return False
            write_properties(connection, properties)
        self.space = space
        self.announce(searchable=True)
        return True

    def forget_other_spaces(self) -> None:
        """Drop the vectors of all spaces but the active one."""
        with self.database.write() as connection:
            forget_others(connection, {self.space.space})
            spaces = read_spaces(connection)
        self.spaces = spaces
        self.announce()

    def share_embedded(self, space: Space) -> float:
        """The share of all searchable chunks that a space has vectors of."""
        with self.database.read() as connection:
            return share_embedded(connection, space.space)

    def read_property(self, name: str) -> str | None:
        """A property of the data directory; none where it was never written."""
        with self.database.read() as connection:
            return read_property(connection, name)

    def write_properties(self, properties: Mapping[str, str | None]) -> None:
        """Set properties of the data directory, or remove them, in one transaction."""
        with self.database.write() as connection:
            write_properties(connection, properties)

    # Reading texts and chunks

    def text_blocks(self, uid: int) -> Iterator[str]:
        """A document's text from its beginning, in blocks."""
        start = 0
        while True:
            with self.database.read() as connection:
                row = connection.execute("SELECT text FROM texts WHERE uid = ? AND start = ?", (uid, start)).fetchone()
            if row is None:
                return
            yield row["text"]
            start += TEXT_BLOCK

    def text(self, uid: int, start: int, end: int) -> str:
        """Characters ``start <= i < end`` of a document."""
        with self.database.read() as connection:
            return text_between(connection, uid, start, end)

    def chunks(self, uid: int, *, first: int = 0, limit: int = 100) -> list[tuple[int, Chunk, str]]:
        """Number, range and text of a document's chunks from number ``first`` on."""
        with self.database.read() as connection:
            rows = connection.execute(
                "SELECT number, start, end, c.tokens FROM chunks c JOIN documents USING (uid) "
                "WHERE uid = ? AND number >= ? ORDER BY number LIMIT ?",
                (uid, first, limit),
            ).fetchall()
            if not rows:
                return []
            begin = rows[0]["start"]
            text = text_between(connection, uid, begin, rows[-1]["end"])
        return [
            (
                row["number"],
                Chunk(row["start"], row["end"], row["tokens"]),
                text[row["start"] - begin : row["end"] - begin],
            )
            for row in rows
        ]

    # Indexing: see index.indexing.indexer

    def save_chunks(self, uid: int, chunks: IntArray) -> None:
        """Store how a document is cut and mark it ``indexing``.

        ``chunks`` has shape ``[chunks, 3]``: start, end and tokens of each.
        """
        with self.database.write() as connection:
            if not connection.execute("SELECT 1 FROM documents WHERE uid = ?", (uid,)).fetchone():
                return  # deleted while it was being cut
            connection.executemany(
                "INSERT INTO chunks VALUES (?, ?, ?, ?, ?)",
                ((uid, number, *map(int, chunk)) for number, chunk in enumerate(chunks)),
            )
            connection.execute(
                "UPDATE documents SET chunks = ?, tokens = ? WHERE uid = ?",
                (len(chunks), int(chunks[:, 2].sum()), uid),
            )
            update_status(connection, uid, "indexing")

    def add_segment(
        self,
        vectors: Float32Array,
        pieces: Sequence[tuple[int, int, int, int]],
        finished: Iterable[int] = (),
        *,
        space: int | None = None,
    ) -> int:
        """Store embeddings durably and make the ``finished`` documents searchable; returns the segment.

        ``pieces`` say whose they are: ``(uid, first_chunk, first_row, rows)``. Documents deleted meanwhile
        are passed over. The space is the active one, or another that is given; if that was dropped meanwhile, all are.
        """
        number = self.space.space if space is None else space
        with self.new_segment(vectors, number) as (connection, segment):
            connection.executemany(
                "INSERT INTO pieces SELECT uid, space, ?, ?, ?, ? FROM documents, spaces WHERE uid = ? AND space = ?",
                [(first_chunk, segment, first_row, rows, uid, number) for uid, first_chunk, first_row, rows in pieces],
            )
            ready = list(finished)
            for uid in ready:
                update_status(connection, uid, "ready")
        if ready:
            for uid in self._lately_ready:
                self._progress.pop(uid, None)
            self._lately_ready = ready
        self.announce(searchable=bool(ready))
        return segment

    @contextmanager
    def new_segment(self, vectors: Float32Array, space: int) -> Iterator[tuple[sqlite3.Connection, int]]:
        """A transaction with a new segment in it; if it fails, nothing of the segment is left.

        Recording whose rows they are is up to the caller.
        """
        segment: int | None = None
        try:
            with self.database.write() as connection:
                max_norm = float(np.linalg.norm(vectors, axis=1).max())
                segment = (
                    connection.execute(
                        "INSERT INTO segments (rows, bytes, max_norm, space) VALUES (?, 0, ?, ?)",
                        (len(vectors), max_norm, space),
                    ).lastrowid
                    or 0
                )
                size = write_segment(self.segment_path(segment), vectors)
                connection.execute("UPDATE segments SET bytes = ? WHERE segment = ?", (size, segment))
                self.segments[segment] = self.open_segment(segment, len(vectors), size, vectors.shape[1])
                yield connection, segment
        except BaseException:
            if segment is not None:
                self.segments.pop(segment, None)
                remove_segment(self.segment_path(segment))
            raise

    def finish_documents(self, uids: Iterable[int]) -> None:
        """Mark documents ``ready`` that had nothing left to embed."""
        with self.database.write() as connection:
            for uid in uids:
                update_status(connection, uid, "ready")
        self.announce(searchable=True)

    def fail_documents(self, uids: Iterable[int], reason: str) -> None:
        """Mark documents ``failed``; the reason is shown to the user."""
        with self.database.write() as connection:
            for uid in uids:
                update_status(connection, uid, "failed", reason)
        self.announce()

    def set_progress(self, uid: int, progress: float) -> None:
        """Note how far a document is, for those who ask; not durable."""
        self._progress[uid] = progress

    def stall(self, reason: str) -> None:
        """Note that indexing cannot go on."""
        self.stalled = reason
        self.stalls += 1
        self.announce()

    def announce(self, *, searchable: bool = False) -> None:
        """Tell whoever waits that documents came, went or changed their status.

        ``searchable`` says that a search would now see something else.
        """
        with self._changed:
            self.news += 1
            if searchable:
                self.version += 1
            self._changed.notify_all()
        for listener in self.listeners:
            listener()

    def wait_for_news(self, news: int, seconds: float) -> None:
        """Wait until :attr:`news` differs from ``news``, at most ``seconds``."""
        with self._changed:
            self._changed.wait_for(lambda: self.news != news, seconds)

    def segment_path(self, segment: int) -> Path:
        """Where a segment's file is."""
        return self.segments_directory / f"{segment:08d}.faiss"

    def open_segment(self, segment: int, rows: int, size: int, dimension: int) -> Segment:
        """A segment's embeddings and codes; raises :class:`~index.errors.DamagedStore`."""
        path = self.segment_path(segment)
        return open_segment(path, rows=rows, dimension=dimension, size=size, device=self.device)

    def remove_deleted(self) -> bool:
        """Remove what deleted documents have left behind, in small transactions; whether there was anything."""
        with self.database.read() as connection:
            uids, unused = deleted(connection), unused_segments(connection)
        if unused:
            self.reserve.use_for(self._remove_unused_segments)
        for uid in uids:
            while self.reserve.use_for(partial(remove_rows, self.database, uid)):
                self.database.merge_log()
            self._progress.pop(uid, None)
        return bool(uids or unused)

    def _remove_unused_segments(self) -> None:
        with self.database.write() as connection:
            unused = remove_unused_segments(connection)
        for segment in unused:
            self.segments.pop(segment, None)
            remove_segment(self.segment_path(segment))

    def _delete(self, choose: Callable[[sqlite3.Connection], list[int]]) -> None:
        """Delete the documents whose ``uid``s are chosen inside the transaction, on a full disk too."""

        def remove() -> None:
            with self.database.write() as connection:
                delete(connection, choose(connection))

        self.reserve.use_for(remove)
        self.stalled = None  # there will be space: indexing may try again
        self.announce(searchable=True)

    def _document(self, row: sqlite3.Row) -> Document:
        return document_of(row, self._progress.get(row["uid"], 0.0), self.stalled)
