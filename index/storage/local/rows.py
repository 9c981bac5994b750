"""Rows of the database: single statements that several modules share, inside their callers' transactions."""

from __future__ import annotations

import sqlite3
from datetime import UTC, datetime
from typing import Literal

from index.errors import UnknownDocument
from qrag.wire.documents import Status

TEXT_BLOCK = 1 << 16
"""Characters of a stored block of text: reading a chunk fetches one or two of them."""


def now() -> str:
    """The current time as it is stored."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def row_of(connection: sqlite3.Connection, column: Literal["uid", "id"], value: int | str) -> sqlite3.Row:
    """A document's row; raises :class:`~index.errors.UnknownDocument`."""
    row: sqlite3.Row | None = connection.execute(f"SELECT * FROM documents WHERE {column} = ?", (value,)).fetchone()
    if row is None:
        raise UnknownDocument(f"There is no document {value!r}.")
    return row


def row_in(connection: sqlite3.Connection, id: str, collection: str | None) -> sqlite3.Row:
    """A document's row, of this collection if one is given; raises :class:`~index.errors.UnknownDocument`."""
    row = row_of(connection, "id", id)
    if collection not in (None, row["collection"]):
        raise UnknownDocument(f"There is no document {id!r} in the collection {collection!r}.")
    return row


def waiting(connection: sqlite3.Connection) -> int:
    """How many documents are queued or being indexed."""
    row = connection.execute("SELECT COUNT(*) FROM documents WHERE status IN ('queued', 'indexing')").fetchone()
    return int(row[0])


def retry(connection: sqlite3.Connection, row: sqlite3.Row) -> None:
    """Queue the document of this row again if it has failed."""
    if row["status"] == "failed":
        update_status(connection, row["uid"], "queued")


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
