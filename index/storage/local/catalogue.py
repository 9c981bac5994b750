"""Documents, texts and chunks in SQLite, which decides what exists, vectors included.

A version of a document is a row with a ``uid`` that is never used again. Content that replaces searchable content is a
row beside the other's until it is ready, and then the other is deleted.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from index.arrays import IntArray
from index.errors import QueueFull, UnknownCollection, UnknownDocument
from index.storage.documents import (
    Chosen,
    CollectionSize,
    Description,
    Document,
    Place,
    Published,
    Replacement,
    StoredChunk,
)
from index.storage.local.deletion import delete, deleted, forget_all, forget_feedback, remove_rows, take_place
from index.storage.local.directory import DataDirectory
from index.storage.local.rows import (
    TEXT_BLOCK,
    document_of,
    find_row,
    narrowed,
    replacement_row,
    retry,
    row_in,
    row_of,
    stored_chunks,
    text_between,
    update_description,
    update_status,
    waiting,
)
from index.storage.local.spaces import forget_elsewhere, read_property, settle_property, write_properties
from index.storage.local.uploads import LocalUpload, publish
from index.storage.protocols import APPEND_ROWS, Upload
from qrag.wire.documents import Status
from qrag.wire.filters import Filter


class LocalCatalogue:
    """The documents of a data directory (:class:`~index.storage.protocols.Catalogue`): no former versions."""

    def __init__(self, directory: DataDirectory) -> None:
        self._database = directory.database
        self._reserve = directory.reserve
        self._news = directory.news
        self._stalled: str | None = None
        self._stalls = 0
        self._progress: dict[int, float] = {}
        self._lately_ready: list[int] = []
        """Documents whose progress is still known: a transaction begun before they were ready sees them indexing."""

    # Uploads

    def begin_upload(self) -> LocalUpload:
        """A new, empty upload."""
        return LocalUpload(self._database)

    def publish(
        self,
        uploads: Sequence[tuple[Upload, Description]],
        *,
        replace: bool,
        queue_limit: int,
        within: Collection[str] | None = None,
    ) -> list[Published]:
        """Turn uploads into queued documents in one transaction: all of them or, on an error, none.

        Raises :class:`~index.errors.DocumentExists` or :class:`~index.errors.QueueFull`.
        """
        published: list[Published] = []
        fresh: set[int] = set()
        try:
            with self._database.write() as connection:
                for upload, description in uploads:
                    assert isinstance(upload, LocalUpload), "an upload of another catalogue"
                    uid, created = publish(connection, upload, description, replace=replace, within=within, fresh=fresh)
                    published.append(Published(self.document_at(connection, uid), created))
                    if created:
                        fresh.add(uid)
                if fresh and waiting(connection) > queue_limit:
                    raise QueueFull(
                        f"At most {queue_limit} documents may wait to be indexed. Send fewer, or try again later."
                    )
        finally:
            for upload, _ in uploads:
                upload.discard()
        self._news.announce(searchable=replace)
        return published

    # Documents

    def document(self, id: str) -> Document:
        """The document of this id; raises :class:`~index.errors.UnknownDocument`."""
        with self._database.read() as connection:
            return self._document(connection, row_in(connection, id))

    def versions(self, id: str) -> list[Document]:
        """The document of this id and its replacement, where they exist: this engine keeps no former versions."""
        with self._database.read() as connection:
            row = find_row(connection, id)
            if row is None:
                return []
            pending = replacement_row(connection, row["uid"])
            return [self._document(connection, version) for version in (pending, row) if version is not None]

    def document_at(self, connection: sqlite3.Connection, uid: int) -> Document:
        """The document with this ``uid``, read inside the caller's transaction."""
        return self._document(connection, row_of(connection, uid))

    def documents_at(self, uids: Iterable[int]) -> dict[int, Document]:
        """The documents with these ``uid``s; raises :class:`~index.errors.UnknownDocument`."""
        with self._database.read() as connection:
            return {uid: self.document_at(connection, uid) for uid in uids}

    def documents(
        self,
        collections: Collection[str] | None = None,
        *,
        title: str | None = None,
        after: int = 0,
        limit: int = 100,
    ) -> list[Document]:
        """Documents (of some collections, of a title) in order of arrival with a ``uid`` greater than ``after``."""
        names = None if collections is None else json.dumps(sorted(collections))
        with self._database.read() as connection:
            rows = connection.execute(
                "SELECT * FROM documents WHERE uid > ?1 AND replaces IS NULL AND (?3 IS NULL OR title = ?3) "
                "AND (?2 IS NULL OR collection IN (SELECT value FROM json_each(?2))) ORDER BY uid LIMIT ?4",
                (after, names, title, limit),
            ).fetchall()
            return [self._document(connection, row) for row in rows]

    def describe(
        self, id: str, description: Callable[[Document], tuple[str | None, Mapping[str, Any]]], *, collection: str
    ) -> Document:
        """Change title and metadata in place; raises :class:`~index.errors.UnknownDocument`."""
        with self._database.write() as connection:
            row = row_in(connection, id, collection)
            for version in (row, replacement_row(connection, row["uid"])):
                if version is not None:
                    title, metadata = description(self._document(connection, version))
                    update_description(connection, version["uid"], title, metadata)
                    if title != version["title"]:
                        forget_elsewhere(connection, version["uid"])
            document = self.document_at(connection, row["uid"])
        self._news.announce(searchable=True)
        return document

    def delete_document(self, id: str, *, collection: str | None = None) -> None:
        """Remove a document in any state, on a full disk too; raises :class:`~index.errors.UnknownDocument`."""
        self._delete(lambda connection: [row_in(connection, id, collection)["uid"]])

    def retry_document(self, id: str, *, collection: str | None = None) -> Document:
        """Queue a failed document again; raises :class:`~index.errors.UnknownDocument`."""
        with self._database.write() as connection:
            row = row_in(connection, id, collection)
            for version in (row, replacement_row(connection, row["uid"])):
                if version is not None:
                    retry(connection, version)
            document = self.document_at(connection, row["uid"])
        self._news.announce()
        return document

    def count_by_status(self) -> dict[Status, int]:
        """How many documents there are of each status."""
        counts: dict[Status, int] = {"queued": 0, "indexing": 0, "ready": 0, "failed": 0}
        with self._database.read() as connection:
            counts.update(connection.execute("SELECT status, COUNT(*) FROM documents GROUP BY status").fetchall())
        return counts

    def collections(self) -> list[CollectionSize]:
        """Every collection that holds a document, by name."""
        with self._database.read() as connection:
            rows = connection.execute(
                "SELECT collection, COUNT(*), COALESCE(SUM(chunks), 0), SUM(bytes) FROM documents "
                "WHERE replaces IS NULL GROUP BY collection ORDER BY collection"
            )
            return [CollectionSize(*row) for row in rows]

    def delete_collection(self, name: str) -> None:
        """Remove every document of a collection; raises :class:`~index.errors.UnknownCollection`."""

        def members(connection: sqlite3.Connection) -> list[int]:
            # Replacements that would come into the collection are among them.
            uids = [row[0] for row in connection.execute("SELECT uid FROM documents WHERE collection = ?", (name,))]
            if not uids:
                raise UnknownCollection(f"There is no collection {name!r}.")
            return uids

        self._delete(members, name)

    # Texts and chunks

    def text_blocks(self, uid: int) -> Iterator[str]:
        """A document's text from its beginning, in blocks."""
        start = 0
        while True:
            with self._database.read() as connection:
                row = connection.execute("SELECT text FROM texts WHERE uid = ? AND start = ?", (uid, start)).fetchone()
            if row is None:
                return
            yield row["text"]
            start += TEXT_BLOCK

    def text(self, uid: int, start: int, end: int) -> str:
        """Characters ``start <= i < end`` of a document."""
        with self._database.read() as connection:
            return text_between(connection, uid, start, end)

    def chunks(self, uid: int, *, first: int = 0, limit: int = 100) -> list[StoredChunk]:
        """At most ``limit`` of a document's chunks from number ``first`` on."""
        with self._database.read() as connection:
            return stored_chunks(connection, uid, first, limit)

    def starts(self, uid: int) -> IntArray:
        """The first character of each of a document's chunks, shape ``[chunks]``."""
        with self._database.read() as connection:
            rows = connection.execute("SELECT start FROM chunks WHERE uid = ? ORDER BY number", (uid,)).fetchall()
        return np.array([row["start"] for row in rows], dtype=np.int64)

    def places(self, uid: int) -> list[Place]:
        """Where the parts of a document stand in the file that it was read from, in order."""
        with self._database.read() as connection:
            rows = connection.execute("SELECT start, location FROM places WHERE uid = ? ORDER BY start", (uid,))
            return [Place(row["start"], json.loads(row["location"])) for row in rows]

    # Searching

    def choose(
        self, collection: str, document_ids: Sequence[str] | None = None, filter: Filter | None = None
    ) -> Chosen:
        """The ready documents of a collection that have chunks, narrowed by ids and metadata.

        Raises :class:`~index.errors.UnknownCollection` or :class:`~index.errors.UnknownDocument`.
        """
        ids = None if document_ids is None else sorted(set(document_ids))
        with self._database.read() as connection:
            allowed = narrowed(connection, collection, ids, filter)
            rows = connection.execute(
                # The plus sign keeps the index of statuses out: most documents of all collections are ready.
                "SELECT uid, chunks FROM documents WHERE collection = ? AND +status = 'ready' AND chunks > 0 "
                "ORDER BY uid",
                (collection,),
            )
            pairs = [(uid, chunks) for uid, chunks in rows if allowed is None or uid in allowed]
        uids, counts = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
        return Chosen(uids, counts)

    # Indexing

    def waiting(self, long_characters: int) -> Iterator[Document]:
        """Documents that wait to be indexed: long ones last, otherwise in order of arrival."""
        with self._database.read() as connection:
            uids = [
                row["uid"]
                for row in connection.execute(
                    "SELECT uid FROM documents WHERE status IN ('queued', 'indexing') "
                    "ORDER BY characters > ?, uid LIMIT ?",
                    (long_characters, APPEND_ROWS),
                )
            ]
        for uid in uids:
            try:
                document = self.documents_at([uid])[uid]
            except UnknownDocument:
                continue  # deleted meanwhile
            if document.status in ("queued", "indexing"):
                yield document

    def save_chunks(self, uid: int, chunks: IntArray) -> None:
        """Store how a document is cut, shape ``[chunks, 3]``: start, end and tokens; and mark it ``indexing``."""
        with self._database.write() as connection:
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

    def set_progress(self, uid: int, progress: float) -> None:
        """Record the share of a document that is embedded, in memory."""
        self._progress[uid] = progress

    def finish(self, uids: Iterable[int]) -> None:
        """Mark documents ``ready``."""
        if not (ready := list(uids)):
            return
        with self._database.write() as connection:
            for uid in ready:
                take_place(connection, uid)
                update_status(connection, uid, "ready")
        for uid in self._lately_ready:
            self._progress.pop(uid, None)
        self._lately_ready = ready
        self._news.announce(searchable=True)

    def fail(self, uids: Iterable[int], reason: str) -> None:
        """Mark documents ``failed``; the reason is shown to the user."""
        with self._database.write() as connection:
            for uid in uids:
                update_status(connection, uid, "failed", reason)
        self._news.announce()

    @property
    def stalled(self) -> str | None:
        """Why indexing is stalled, if it is."""
        return self._stalled

    @property
    def stalls(self) -> int:
        """How often :meth:`stall` was called."""
        return self._stalls

    def stall(self, reason: str) -> None:
        """Record why indexing is stalled, in memory."""
        self._stalled = reason
        self._stalls += 1
        self._news.announce()

    def resume(self) -> None:
        """Record that indexing goes on."""
        self._stalled = None

    # Properties

    def read_property(self, name: str) -> str | None:
        """A property of the data directory; none where it was never written."""
        with self._database.read() as connection:
            return read_property(connection, name)

    def write_properties(self, properties: Mapping[str, str | None]) -> None:
        """Set properties of the data directory, or remove them, in one transaction."""
        with self._database.write() as connection:
            write_properties(connection, properties)

    def settle_property(self, name: str, value: str) -> str:
        """A property of the data directory, which gets this value where it has none."""
        with self._database.write() as connection:
            return settle_property(connection, name, value)

    # Beyond the protocol

    def remove_deleted(self) -> bool:
        """Remove texts and chunks of deleted documents, in small transactions; returns whether there were any."""
        with self._database.read() as connection:
            uids = deleted(connection)
        for uid in uids:
            while self._reserve.use_for(partial(remove_rows, self._database, uid)):
                self._database.merge_log()
            self._progress.pop(uid, None)
        return bool(uids)

    def _delete(self, choose_uids: Callable[[sqlite3.Connection], list[int]], collection: str | None = None) -> None:
        """Delete the documents whose ``uid``s are chosen, and before them what was said, on a full disk too."""

        def remove() -> bool:
            with self._database.write() as connection:
                uids = choose_uids(connection)
                if forget_feedback(connection, uids) or (collection and forget_all(connection, collection)):
                    return True
                delete(connection, uids)
                return False

        while self._reserve.use_for(remove):
            self._database.merge_log()
        self.resume()  # there will be space: indexing may try again
        self._news.announce(searchable=True)

    def _document(self, connection: sqlite3.Connection, row: sqlite3.Row) -> Document:
        pending = replacement_row(connection, row["uid"])
        replacement = None
        if pending is not None:
            version = self._version(pending)
            replacement = Replacement(version.status, version.progress, version.error)
        return replace(self._version(row), replacement=replacement)

    def _version(self, row: sqlite3.Row) -> Document:
        return document_of(row, self._progress.get(row["uid"], 0.0), self._stalled)
