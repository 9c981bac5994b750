"""Documents, texts and chunks in PostgreSQL, which decides what exists, whoever keeps the vectors.

A version of a document is a row with a ``uid`` that is never used again. Content that replaces searchable content is a
row beside the other's until it is ready, and then the other is deleted.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from psycopg.rows import DictRow

from index.arrays import IntArray
from index.errors import QueueFull, UnknownCollection
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
from index.storage.postgres.database import Connection, Database
from index.storage.postgres.deletion import delete, forget_feedback
from index.storage.postgres.rows import (
    NOW,
    TEXT_BLOCK,
    chunk_table,
    document_of,
    find_row,
    first_row,
    narrowed,
    replacement_row,
    retry,
    row_in,
    row_of,
    stored_chunks,
    stored_json,
    stored_text,
    text_between,
)
from index.storage.postgres.spaces import read_property, settle_property, write_properties
from index.storage.postgres.uploads import PostgresUpload, publish
from index.storage.postgres.work import claim, fail, finish, give_back, record_progress, save_chunks
from index.storage.protocols import Upload
from qrag.wire.documents import Status
from qrag.wire.filters import Filter

PROGRESS_SECONDS = 1.0
"""Least time between two records of how far this process has come."""


class PostgresCatalogue:
    """The documents of a database (:class:`~index.storage.protocols.Catalogue`): no former versions.

    Why indexing is stalled is said by each process for itself.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._news = database.news
        self._stalled: str | None = None
        self._stalls = 0
        self._progress: dict[int, float] = {}
        self._recorded = 0.0
        self._lately_ready: list[int] = []
        """Documents whose progress is still known: a transaction begun before they were ready sees them indexing."""

    # Uploads

    def begin_upload(self) -> PostgresUpload:
        """A new, empty upload."""
        return PostgresUpload(self._database)

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
            with self._database.write(searchable=replace) as connection:
                for upload, description in uploads:
                    assert isinstance(upload, PostgresUpload), "an upload of another catalogue"
                    uid, created = publish(connection, upload, description, replace=replace, within=within, fresh=fresh)
                    published.append(Published(self._document_at(connection, uid), created))
                    if created:
                        fresh.add(uid)
                if fresh and _waiting(connection) > queue_limit:
                    raise QueueFull(
                        f"At most {queue_limit} documents may wait to be indexed. Send fewer, or try again later."
                    )
        finally:
            for upload, _ in uploads:
                upload.discard()
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

    def documents_at(self, uids: Iterable[int]) -> dict[int, Document]:
        """The documents with these ``uid``s; raises :class:`~index.errors.UnknownDocument`."""
        wanted = list(uids)
        with self._database.read() as connection:
            rows = connection.execute("SELECT * FROM documents WHERE uid = ANY(%s)", (wanted,)).fetchall()
            found = {document.uid: document for document in self._documents(connection, rows)}
            return {uid: found[uid] if uid in found else self._document_at(connection, uid) for uid in wanted}

    def documents(
        self,
        collections: Collection[str] | None = None,
        *,
        title: str | None = None,
        after: int = 0,
        limit: int = 100,
    ) -> list[Document]:
        """Documents (of some collections, of a title) in order of arrival with a ``uid`` greater than ``after``."""
        conditions = ["replaces IS NULL", "uid > %(after)s"]
        if collections is not None:
            conditions.append("collection = ANY(%(collections)s)")
        if title is not None:
            conditions.append("title = %(title)s")
        with self._database.read() as connection:
            rows = connection.execute(
                f"SELECT * FROM documents WHERE {' AND '.join(conditions)} ORDER BY uid LIMIT %(limit)s",
                {
                    "after": after,
                    "collections": None if collections is None else list(collections),
                    "title": stored_text(title),
                    "limit": limit,
                },
            ).fetchall()
            return self._documents(connection, rows)

    def describe(
        self, id: str, description: Callable[[Document], tuple[str | None, Mapping[str, Any]]], *, collection: str
    ) -> Document:
        """Change title and metadata in place; raises :class:`~index.errors.UnknownDocument`."""
        with self._database.write(searchable=True) as connection:
            row = row_in(connection, id, collection)
            for version in (row, replacement_row(connection, row["uid"])):
                if version is not None:
                    title, metadata = description(self._document(connection, version))
                    connection.execute(
                        f"UPDATE documents SET title = %s, metadata = %s, updated_at = {NOW} WHERE uid = %s",
                        (stored_text(title), stored_json(metadata), version["uid"]),
                    )
                    if title != version["title"]:
                        # Another checkpoint, whose vectors are being made or kept, may have read it with the chunks.
                        connection.execute(
                            "DELETE FROM embedded WHERE uid = %s AND space != "
                            "(SELECT value::bigint FROM properties WHERE name = 'space')",
                            (version["uid"],),
                        )
            return self._document_at(connection, row["uid"])

    def delete_document(self, id: str, *, collection: str | None = None) -> None:
        """Remove a document in any state; raises :class:`~index.errors.UnknownDocument`."""
        with self._database.write(searchable=True) as connection:
            uid = row_in(connection, id, collection)["uid"]
            forget_feedback(connection, [uid])
            delete(connection, [uid])
        self.resume()  # there will be space: indexing may try again

    def retry_document(self, id: str, *, collection: str | None = None) -> Document:
        """Queue a failed document again; raises :class:`~index.errors.UnknownDocument`."""
        with self._database.write(searchable=False) as connection:
            row = row_in(connection, id, collection)
            for version in (row, replacement_row(connection, row["uid"])):
                if version is not None:
                    retry(connection, version)
            return self._document_at(connection, row["uid"])

    def count_by_status(self) -> dict[Status, int]:
        """How many documents there are of each status."""
        counts: dict[Status, int] = {"queued": 0, "indexing": 0, "ready": 0, "failed": 0}
        with self._database.read() as connection:
            rows = connection.execute("SELECT status, COUNT(*) AS documents FROM documents GROUP BY status")
            counts.update((row["status"], row["documents"]) for row in rows)
        return counts

    def collections(self) -> list[CollectionSize]:
        """Every collection that holds a document, by name."""
        with self._database.read() as connection:
            rows = connection.execute(
                "SELECT collection AS name, COUNT(*) AS documents, COALESCE(SUM(chunks), 0)::bigint AS chunks, "
                "SUM(bytes)::bigint AS bytes FROM documents WHERE replaces IS NULL GROUP BY collection "
                "ORDER BY collection"
            )
            return [CollectionSize(**row) for row in rows]

    def delete_collection(self, name: str) -> None:
        """Remove every document of a collection; raises :class:`~index.errors.UnknownCollection`."""
        with self._database.write(searchable=True) as connection:
            # Replacements that would come into the collection are among them.
            rows = connection.execute("SELECT uid FROM documents WHERE collection = %s", (name,))
            uids = [row["uid"] for row in rows]
            if not uids:
                raise UnknownCollection(f"There is no collection {name!r}.")
            forget_feedback(connection, uids)
            for records in ("feedback", "questions"):
                connection.execute(f"DELETE FROM {records} WHERE collection = %s".encode(), (name,))
            delete(connection, uids)
        self.resume()

    # Texts and chunks

    def text_blocks(self, uid: int) -> Iterator[str]:
        """A document's text from its beginning, in blocks."""
        start = 0
        while True:
            block = self.text(uid, start, start + TEXT_BLOCK)
            if not block:
                return
            yield block
            start += TEXT_BLOCK

    def text(self, uid: int, start: int, end: int) -> str:
        """Characters ``start <= i < end`` of a document."""
        with self._database.read() as connection:
            row = first_row(connection, "SELECT text FROM documents WHERE uid = %s", (uid,))
            return "" if row is None else text_between(connection, row["text"], start, end)

    def chunks(self, uid: int, *, first: int = 0, limit: int = 100) -> list[StoredChunk]:
        """At most ``limit`` of a document's chunks from number ``first`` on."""
        with self._database.read() as connection:
            return stored_chunks(connection, uid, first, limit)

    def starts(self, uid: int) -> IntArray:
        """The first character of each of a document's chunks, shape ``[chunks]``."""
        with self._database.read() as connection:
            row = first_row(connection, "SELECT chunks FROM documents WHERE uid = %s", (uid,))
            return chunk_table(connection, uid, 0, (row and row["chunks"]) or 0)[:, 0]

    def places(self, uid: int) -> list[Place]:
        """Where the parts of a document stand in the file that it was read from, in order."""
        with self._database.read() as connection:
            rows = connection.execute(
                "SELECT start, location FROM places JOIN documents USING (uid) WHERE uid = %s ORDER BY start", (uid,)
            )
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
                "SELECT uid, chunks FROM documents WHERE collection = %s AND status = 'ready' AND chunks > 0 "
                "ORDER BY uid",
                (collection,),
            )
            pairs = [(row["uid"], row["chunks"]) for row in rows if allowed is None or row["uid"] in allowed]
        uids, counts = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
        return Chosen(uids, counts)

    # Indexing

    def waiting(self, long_characters: int) -> Iterator[Document]:
        """Documents that wait to be indexed and that no other replica works on: long ones last, then by arrival.

        Each is claimed when the iterator reaches it, and given back where the iterator is dropped there. While another
        action tower's space is searched than this process has, there are none.
        """
        for comparison in ("<=", ">"):
            uid = 0
            while (row := claim(self._database, f"characters {comparison}", long_characters, uid)) is not None:
                uid = row["uid"]
                try:
                    yield self._version(row)
                except GeneratorExit:
                    give_back(self._database, uid)
                    raise

    def save_chunks(self, uid: int, chunks: IntArray) -> None:
        """Store how a document is cut, shape ``[chunks, 3]``: start, end and tokens; and mark it ``indexing``."""
        save_chunks(self._database, uid, chunks)

    def set_progress(self, uid: int, progress: float) -> None:
        """Record the share of a document that is embedded, in memory, and now and then for other replicas."""
        self._progress[uid] = progress
        if time.monotonic() - self._recorded > PROGRESS_SECONDS:
            self._recorded = time.monotonic()
            record_progress(self._database, uid, progress)

    def finish(self, uids: Iterable[int]) -> None:
        """Mark documents ``ready``, but those that another replica has claimed meanwhile."""
        wanted = list(uids)
        if not wanted:
            return
        finish(self._database, wanted)
        for uid in self._lately_ready:
            self._progress.pop(uid, None)
        self._lately_ready = wanted

    def fail(self, uids: Iterable[int], reason: str) -> None:
        """Mark documents ``failed``, but those that another replica has claimed meanwhile."""
        fail(self._database, list(uids), reason)

    @property
    def stalled(self) -> str | None:
        """Why indexing is stalled in this process, if it is."""
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
        """A property of the database; none where it was never written."""
        with self._database.read() as connection:
            return read_property(connection, name)

    def write_properties(self, properties: Mapping[str, str | None]) -> None:
        """Set properties of the database, or remove them, in one transaction."""
        with self._database.write(searchable=False) as connection:
            write_properties(connection, properties)

    def settle_property(self, name: str, value: str) -> str:
        """A property of the database, which gets this value where it has none."""
        with self._database.write() as connection:
            return settle_property(connection, name, value)

    def _document_at(self, connection: Connection, uid: int) -> Document:
        return self._document(connection, row_of(connection, uid))

    def _document(self, connection: Connection, row: DictRow) -> Document:
        return self._documents(connection, [row])[0]

    def _documents(self, connection: Connection, rows: Sequence[DictRow]) -> list[Document]:
        """The documents of some rows, each with what waits to take its place."""
        pending = connection.execute(
            "SELECT * FROM documents WHERE replaces = ANY(%s)", ([row["uid"] for row in rows],)
        ).fetchall()
        replacements: dict[int, Replacement] = {}
        for row in pending:
            version = self._version(row)
            replacements[row["replaces"]] = Replacement(version.status, version.progress, version.error)
        return [replace(self._version(row), replacement=replacements.get(row["uid"])) for row in rows]

    def _version(self, row: DictRow) -> Document:
        return document_of(row, self._progress.get(row["uid"], 0.0), self._stalled)


def _waiting(connection: Connection) -> int:
    """How many documents are queued or being indexed."""
    row = first_row(connection, "SELECT COUNT(*) AS waiting FROM documents WHERE status IN ('queued', 'indexing')")
    return 0 if row is None else int(row["waiting"])
