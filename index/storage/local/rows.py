"""Rows of the database: single statements that several modules share, inside their callers' transactions."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from index.chunking import Chunk
from index.errors import UnknownCollection, UnknownDocument
from index.storage.documents import Document, StoredChunk, heading, metadata_text
from qrag.wire.chunking import Chunking
from qrag.wire.documents import Status
from qrag.wire.filters import Filter

TEXT_BLOCK = 1 << 16
"""Characters of a stored block of text: reading a chunk fetches one or two of them."""


class Piece(NamedTuple):
    """Chunks ``first_chunk..`` of a document, kept as rows ``first_row..`` of a segment."""

    uid: int
    first_chunk: int
    segment: int
    first_row: int
    rows: int


def now() -> str:
    """The current time as it is stored."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def row_of(connection: sqlite3.Connection, uid: int) -> sqlite3.Row:
    """The row of a version; raises :class:`~index.errors.UnknownDocument`."""
    row: sqlite3.Row | None = connection.execute("SELECT * FROM documents WHERE uid = ?", (uid,)).fetchone()
    if row is None:
        raise UnknownDocument(f"There is no document {uid}.")
    return row


def find_row(connection: sqlite3.Connection, id: str) -> sqlite3.Row | None:
    """The row of a document, not of its replacement; none where there is no such document."""
    row: sqlite3.Row | None = connection.execute(
        "SELECT * FROM documents WHERE id = ? AND replaces IS NULL", (id,)
    ).fetchone()
    return row


def row_in(connection: sqlite3.Connection, id: str, collection: str | None = None) -> sqlite3.Row:
    """A document's row, of this collection if one is given; raises :class:`~index.errors.UnknownDocument`."""
    row = find_row(connection, id)
    if row is None:
        raise UnknownDocument(f"There is no document {id!r}.")
    if collection not in (None, row["collection"]):
        raise UnknownDocument(f"There is no document {id!r} in the collection {collection!r}.")
    return row


def replacement_row(connection: sqlite3.Connection, uid: int) -> sqlite3.Row | None:
    """The row of the version that waits to take the place of this one; none where there is none."""
    row: sqlite3.Row | None = connection.execute("SELECT * FROM documents WHERE replaces = ?", (uid,)).fetchone()
    return row


def waiting(connection: sqlite3.Connection) -> int:
    """How many documents are queued or being indexed."""
    row = connection.execute("SELECT COUNT(*) FROM documents WHERE status IN ('queued', 'indexing')").fetchone()
    return int(row[0])


def retry(connection: sqlite3.Connection, row: sqlite3.Row) -> None:
    """Queue the document of this row again if it has failed."""
    if row["status"] == "failed":
        update_status(connection, row["uid"], "queued")


def update_description(
    connection: sqlite3.Connection, uid: int, title: str | None, metadata: Mapping[str, Any]
) -> None:
    """Change title and metadata of a document."""
    connection.execute(
        "UPDATE documents SET title = ?, metadata = ?, updated_at = ? WHERE uid = ?",
        (title, metadata_text(metadata), now(), uid),
    )


def update_status(connection: sqlite3.Connection, uid: int, status: Status, error: str | None = None) -> None:
    """Set a document's status; ``error`` is shown to the user."""
    connection.execute(
        "UPDATE documents SET status = ?, error = ?, updated_at = ? WHERE uid = ?",
        (status, error, now(), uid),
    )


def text_between(connection: sqlite3.Connection, uid: int, start: int, end: int) -> str:
    """Characters ``start <= i < end`` of a document."""
    blocks = connection.execute(
        "SELECT text FROM texts WHERE uid = ? AND start >= ? AND start < ? ORDER BY start",
        (uid, start - start % TEXT_BLOCK, end),
    )
    text = "".join(row["text"] for row in blocks)
    return text[start % TEXT_BLOCK : start % TEXT_BLOCK + end - start]


def stored_chunks(connection: sqlite3.Connection, uid: int, first: int, limit: int) -> list[StoredChunk]:
    """At most ``limit`` of a document's chunks from number ``first`` on."""
    rows = connection.execute(
        "SELECT number, start, end, c.tokens, title, (SELECT location FROM places p "
        "WHERE p.uid = c.uid AND p.start <= c.start ORDER BY p.start DESC LIMIT 1) "
        "FROM chunks c JOIN documents USING (uid) WHERE uid = ? AND number >= ? ORDER BY number LIMIT ?",
        (uid, first, limit),
    ).fetchall()
    if not rows:
        return []
    begin = rows[0]["start"]
    text = text_between(connection, uid, begin, rows[-1]["end"])
    chunks: list[StoredChunk] = []
    for number, start, end, tokens, title, place in rows:
        location = json.loads(place or "{}")
        quotation = text[start - begin : end - begin]
        chunks.append(StoredChunk(number, Chunk(start, end, tokens), quotation, heading(title, location), location))
    return chunks


def document_of(row: sqlite3.Row, progress: float, stalled: str | None) -> Document:
    """The document of a row of the table; ``stalled`` is the error of those that wait, if they cannot be indexed."""
    status: Status = row["status"]
    return Document(
        uid=row["uid"],
        id=row["id"],
        collection=row["collection"],
        title=row["title"],
        metadata=json.loads(row["metadata"]),
        chunking=Chunking(mode=row["mode"], max_tokens=row["max_tokens"]),
        sha256=row["sha256"],
        characters=row["characters"],
        bytes=row["bytes"],
        status=status,
        progress=1.0 if status == "ready" else progress,
        error=stalled if status in ("queued", "indexing") else row["error"],
        chunks=row["chunks"],
        tokens=row["tokens"],
        created_at=datetime.fromisoformat(row["created_at"]),
        updated_at=datetime.fromisoformat(row["updated_at"]),
        warnings=tuple(json.loads(row["warnings"])),
        replaces=row["replaces"],
    )


def has_documents(connection: sqlite3.Connection, collection: str) -> bool:
    """Whether there is a collection of this name, which is one that holds a document in any state."""
    row = connection.execute(
        "SELECT 1 FROM documents WHERE collection = ? AND replaces IS NULL LIMIT 1", (collection,)
    ).fetchone()
    return row is not None


def narrowed(
    connection: sqlite3.Connection, collection: str, ids: Sequence[str] | None, filter: Filter | None
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
            # The plus sign keeps the index of collections out: a collection may have far more documents than are named.
            "SELECT id, uid FROM documents WHERE id IN (SELECT value FROM json_each(?)) AND +collection = ? "
            "AND replaces IS NULL",
            (json.dumps(ids), collection),
        )
        uid_of = dict(rows.fetchall())
        missing = [id for id in ids if id not in uid_of]
        if missing:
            raise UnknownDocument(f"Collection {collection!r} has no document {missing[0]!r}.")
        uids = set(uid_of.values())
    if filter is not None:
        rows = connection.execute(
            "SELECT uid, metadata FROM documents WHERE collection = ? AND status = 'ready'", (collection,)
        )
        matching = {row["uid"] for row in rows if filter.matches(json.loads(row["metadata"]))}
        uids = matching if uids is None else uids & matching
    return uids
