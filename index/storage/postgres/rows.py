"""Rows of the database: single statements that several modules share, inside their callers' transactions."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC
from typing import Any

import numpy as np
from psycopg.rows import DictRow

from index.arrays import IntArray
from index.chunking import Chunk
from index.errors import UnknownCollection, UnknownDocument
from index.storage.documents import Document, StoredChunk, heading
from index.storage.postgres.database import Connection
from qrag.wire.chunking import Chunking
from qrag.wire.documents import Status
from qrag.wire.filters import Filter

TEXT_BLOCK = 1 << 16
"""Characters of a stored block of text: reading a chunk fetches one or two of them."""

CHUNK_BLOCK = 4096
"""Chunks of a stored block of the table of chunks."""

CHUNK_BYTES = 24
"""Bytes of a chunk in its block."""

NOW = "date_trunc('milliseconds', clock_timestamp())"
"""The current time, in SQL: the server's, which all replicas share."""


HELD = "status IN ('queued', 'indexing') AND (owner IS NULL OR owner = %(replica)s)"
"""The documents for which a replica's work counts."""


def stored_json(value: Any) -> str:
    """JSON in ASCII: any character can stand in it."""
    return json.dumps(value, separators=(",", ":"))


def stored_text(text: str | None) -> bytes | None:
    """A text in UTF-8."""
    return None if text is None else text.encode("utf-8")


def read_text(stored: bytes | None) -> str | None:
    """The text of :func:`stored_text`."""
    return None if stored is None else stored.decode("utf-8")


def first_row(
    connection: Connection, statement: str, parameters: Sequence[Any] | Mapping[str, Any] = ()
) -> DictRow | None:
    """The first row of an answer."""
    return connection.execute(statement, parameters).fetchone()


def row_of(connection: Connection, uid: int) -> DictRow:
    """The row of a version; raises :class:`~index.errors.UnknownDocument`."""
    row = first_row(connection, "SELECT * FROM documents WHERE uid = %s", (uid,))
    if row is None:
        raise UnknownDocument(f"There is no document {uid}.")
    return row


def find_row(connection: Connection, id: str) -> DictRow | None:
    """The row of a document, not of its replacement; none where there is no such document."""
    return first_row(connection, "SELECT * FROM documents WHERE id = %s AND replaces IS NULL", (id,))


def row_in(connection: Connection, id: str, collection: str | None = None) -> DictRow:
    """A document's row, of this collection if one is given; raises :class:`~index.errors.UnknownDocument`."""
    row = find_row(connection, id)
    if row is None:
        raise UnknownDocument(f"There is no document {id!r}.")
    if collection not in (None, row["collection"]):
        raise UnknownDocument(f"There is no document {id!r} in the collection {collection!r}.")
    return row


def replacement_row(connection: Connection, uid: int) -> DictRow | None:
    """The row of the version that waits to take the place of this one; none where there is none."""
    return first_row(connection, "SELECT * FROM documents WHERE replaces = %s", (uid,))


def retry(connection: Connection, row: Mapping[str, Any]) -> None:
    """Queue the document of this row again if it has failed."""
    if row["status"] == "failed":
        update_status(connection, row["uid"], "queued")


def update_status(connection: Connection, uid: int, status: Status, error: str | None = None) -> None:
    """Set a document's status; ``error`` is shown to the user. One that waits no longer has no owner."""
    connection.execute(
        f"UPDATE documents SET status = %s, error = %s, updated_at = {NOW}, progress = 0, owner = NULL WHERE uid = %s",
        (status, stored_text(error), uid),
    )


def text_between(connection: Connection, text: int, start: int, end: int) -> str:
    """Characters ``start <= i < end`` of a text."""
    blocks = connection.execute(
        "SELECT block FROM texts WHERE text = %s AND start >= %s AND start < %s ORDER BY start",
        (text, start - start % TEXT_BLOCK, end),
        binary=True,
    )
    joined = b"".join(row["block"] for row in blocks).decode("utf-8")
    return joined[start % TEXT_BLOCK : start % TEXT_BLOCK + end - start]


def chunk_table(connection: Connection, uid: int, first: int, limit: int) -> IntArray:
    """Start, end and tokens of at most ``limit`` chunks from number ``first`` on, shape ``[chunks, 3]``."""
    skipped = first % CHUNK_BLOCK
    blocks = connection.execute(
        # Of the blocks at both ends only what is asked for is read.
        "SELECT substring(block FROM CASE WHEN first = %(begin)s THEN %(at)s ELSE 1 END FOR %(length)s) AS part "
        "FROM chunks WHERE uid = %(uid)s AND first >= %(begin)s AND first < %(end)s ORDER BY first",
        {
            "uid": uid,
            "begin": first - skipped,
            "end": first + limit,
            "at": skipped * CHUNK_BYTES + 1,
            "length": min(limit, CHUNK_BLOCK) * CHUNK_BYTES,
        },
        binary=True,
    )
    table = np.frombuffer(b"".join(row["part"] for row in blocks), dtype="<i8").reshape(-1, 3)
    return table[:limit].astype(np.int64)


def stored_chunks(connection: Connection, uid: int, first: int, limit: int) -> list[StoredChunk]:
    """At most ``limit`` of a document's chunks from number ``first`` on."""
    document = first_row(connection, "SELECT title, text FROM documents WHERE uid = %s", (uid,))
    if document is None:
        return []
    table = chunk_table(connection, uid, first, limit)
    if not len(table):
        return []
    begin, end = int(table[0, 0]), int(table[-1, 1])
    text, title = text_between(connection, document["text"], begin, end), read_text(document["title"])
    places = connection.execute(
        "SELECT start, location FROM places WHERE uid = %(uid)s AND start <= %(last)s AND start >= COALESCE("
        "(SELECT MAX(start) FROM places WHERE uid = %(uid)s AND start <= %(begin)s), 0) ORDER BY start",
        {"uid": uid, "begin": begin, "last": int(table[-1, 0])},
    ).fetchall()
    place_of = np.searchsorted([row["start"] for row in places], table[:, 0], side="right") - 1
    chunks: list[StoredChunk] = []
    for number, (row, place) in enumerate(zip(table.tolist(), place_of.tolist(), strict=True), first):
        chunk, location = Chunk(*row), json.loads(places[place]["location"]) if place >= 0 else {}
        quotation = text[chunk.start - begin : chunk.end - begin]
        chunks.append(StoredChunk(number, chunk, quotation, heading(title, location), location))
    return chunks


def document_of(row: Mapping[str, Any], progress: float, stalled: str | None) -> Document:
    """The document of a row of the table; ``stalled`` is the error of those that wait, if they cannot be indexed."""
    status: Status = row["status"]
    return Document(
        uid=row["uid"],
        id=row["id"],
        collection=row["collection"],
        title=read_text(row["title"]),
        metadata=json.loads(row["metadata"]),
        chunking=Chunking(mode=row["mode"], max_tokens=row["max_tokens"]),
        sha256=row["sha256"],
        characters=row["characters"],
        bytes=row["bytes"],
        status=status,
        progress=1.0 if status == "ready" else max(progress, row["progress"]),
        error=stalled if status in ("queued", "indexing") else read_text(row["error"]),
        chunks=row["chunks"],
        tokens=row["tokens"],
        created_at=row["created_at"].astimezone(UTC),
        updated_at=row["updated_at"].astimezone(UTC),
        warnings=tuple(json.loads(row["warnings"])),
        replaces=row["replaces"],
    )


def has_documents(connection: Connection, collection: str) -> bool:
    """Whether there is a collection of this name, which is one that holds a document in any state."""
    statement = "SELECT 1 FROM documents WHERE collection = %s AND replaces IS NULL LIMIT 1"
    return first_row(connection, statement, (collection,)) is not None


def narrowed(
    connection: Connection, collection: str, ids: Sequence[str] | None, filter: Filter | None
) -> set[int] | None:
    """The ``uid``s of a collection's documents that have one of these ids and match the filter; none for all.

    Raises :class:`~index.errors.UnknownCollection`, or :class:`~index.errors.UnknownDocument` for an id that the
    collection does not hold.
    """
    if not has_documents(connection, collection):
        raise UnknownCollection(
            f"There is no collection {collection!r}. Index documents into it first: POST /documents."
        )
    uids: set[int] | None = None
    if ids is not None:
        rows = connection.execute(
            "SELECT id, uid FROM documents WHERE id = ANY(%s) AND collection = %s AND replaces IS NULL",
            (list(ids), collection),
        )
        uid_of = {row["id"]: row["uid"] for row in rows}
        missing = [id for id in ids if id not in uid_of]
        if missing:
            raise UnknownDocument(f"Collection {collection!r} has no document {missing[0]!r}.")
        uids = set(uid_of.values())
    if filter is not None:
        rows = connection.execute(
            "SELECT uid, metadata FROM documents WHERE collection = %(collection)s AND status = 'ready' "
            "AND (%(uids)s::bigint[] IS NULL OR uid = ANY(%(uids)s))",
            {"collection": collection, "uids": None if uids is None else list(uids)},
        )
        uids = {row["uid"] for row in rows if filter.matches(json.loads(row["metadata"]))}
    return uids
