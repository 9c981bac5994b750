"""Removing documents and what belongs to them, on a full disk too.

Deleting only marks documents as deleted: nothing finds them from then on. Their texts, chunks and segments follow in
small transactions, because removing millions of rows at once would keep others from writing, and need much space for
the log when there may be none.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Literal, TypeVar, get_args

from index.errors import DiskFull
from index.storage.local.database import Database

Outcome = TypeVar("Outcome")

Records = Literal["feedback", "questions"]
"""A table of what people said or asked, which goes with its collection."""

RESERVE_BYTES = 4 << 20
"""Size of the reserve: room for the log of a deletion."""

RECORDS_AT_ONCE = 200
"""Most records of feedback or of questions that one transaction removes."""


class Reserve:
    """A file that occupies space, removed to make room for a deletion when the disk is full."""

    def __init__(self, path: Path, database: Database) -> None:
        self._path, self._database = path, database

    def use_for(self, remove: Callable[[], Outcome]) -> Outcome:
        """Run something that frees space. It writes a log first, for which the reserve makes room on a full disk."""
        try:
            return remove()
        except DiskFull:
            self._path.unlink(missing_ok=True)
            self._database.merge_log()
            return remove()

    def keep(self) -> None:
        """Create the file, unless it exists or the disk is nearly full."""
        plenty = shutil.disk_usage(self._path.parent).free > 2 * RESERVE_BYTES
        if plenty and not self._path.exists():
            with suppress(OSError), self._path.open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, RESERVE_BYTES)


def delete(connection: sqlite3.Connection, uids: Sequence[int]) -> None:
    """Mark versions of documents as deleted, and with each the one that waits to take its place."""
    waiting = [
        row["uid"] for uid in uids for row in connection.execute("SELECT uid FROM documents WHERE replaces = ?", (uid,))
    ]
    _mark_deleted(connection, {*uids, *waiting})


def take_place(connection: sqlite3.Connection, uid: int) -> None:
    """Let a version take the place of the one that it replaces, if there is one; that one is deleted."""
    replaced = connection.execute("SELECT replaces FROM documents WHERE uid = ?", (uid,)).fetchone()
    if replaced is not None and replaced["replaces"] is not None:
        _mark_deleted(connection, {replaced["replaces"]})
        connection.execute("UPDATE documents SET replaces = NULL WHERE uid = ?", (uid,))


def _mark_deleted(connection: sqlite3.Connection, uids: Collection[int]) -> None:
    for statement in (
        "DELETE FROM pieces WHERE uid = ?",
        "DELETE FROM documents WHERE uid = ?",
        "INSERT INTO deleted VALUES (?)",
    ):
        connection.executemany(statement, [(uid,) for uid in uids])


def forget_feedback(connection: sqlite3.Connection, uids: Sequence[int]) -> bool:
    """Remove some feedback about documents that will be deleted; returns whether there was any.

    A replacement among them takes nothing with it: the document of its id stays.
    """
    removed = connection.execute(
        "DELETE FROM feedback WHERE number IN (SELECT feedback FROM documents JOIN judgements ON document_id = id "
        "WHERE uid IN (SELECT value FROM json_each(?)) AND replaces IS NULL LIMIT ?)",
        (json.dumps(uids), RECORDS_AT_ONCE),
    )
    return removed.rowcount > 0


def forget_records(connection: sqlite3.Connection, table: Records, collection: str) -> bool:
    """Remove some records of a collection; returns whether there were any."""
    removed = connection.execute(
        f"DELETE FROM {table} WHERE number IN (SELECT number FROM {table} WHERE collection = ? LIMIT ?)",
        (collection, RECORDS_AT_ONCE),
    )
    return removed.rowcount > 0


def forget_all(connection: sqlite3.Connection, collection: str) -> bool:
    """Remove some of what people said or asked in a collection; returns whether there was any."""
    return any(forget_records(connection, table, collection) for table in get_args(Records))


def deleted(connection: sqlite3.Connection) -> list[int]:
    """Deleted documents whose texts or chunks may still be stored."""
    return [row["uid"] for row in connection.execute("SELECT uid FROM deleted ORDER BY uid")]


def remove_rows(database: Database, uid: int) -> bool:
    """Remove some rows of a deleted document; returns whether there may be more."""
    with database.write() as connection:
        removed = sum(
            connection.execute(
                f"DELETE FROM {table} WHERE uid = ?1 AND {key} IN "
                f"(SELECT {key} FROM {table} WHERE uid = ?1 ORDER BY {key} LIMIT {limit})",
                (uid,),
            ).rowcount
            for table, key, limit in (
                ("texts", "start", 256),
                ("chunks", "number", 20_000),
                ("places", "start", 20_000),
            )
        )
        if not removed:
            connection.execute("DELETE FROM deleted WHERE uid = ?", (uid,))
    return removed > 0


def unused_segments(connection: sqlite3.Connection) -> list[int]:
    """Segments without rows of any document."""
    rows = connection.execute("SELECT segment FROM segments WHERE segment NOT IN (SELECT segment FROM pieces)")
    return [row["segment"] for row in rows]


def remove_unused_segments(connection: sqlite3.Connection) -> list[int]:
    """Remove the unused segments from the database; the caller removes the files of those returned."""
    unused = unused_segments(connection)
    connection.executemany("DELETE FROM segments WHERE segment = ?", [(segment,) for segment in unused])
    return unused
