"""Indexing by several processes: who works on a document, and whose work counts.

A document is claimed by one replica at a time. What another one still brings, after its lease has run out and the
document was claimed anew, changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from psycopg.rows import DictRow

from index.arrays import IntArray
from index.errors import StorageUnavailable
from index.storage.postgres.database import Database
from index.storage.postgres.deletion import take_place
from index.storage.postgres.rows import CHUNK_BLOCK, HELD, NOW, stored_text

_FREE = (
    "(owner IS NULL OR owner = %(replica)s OR "
    "NOT EXISTS (SELECT 1 FROM replicas WHERE replica = owner AND alive_until > clock_timestamp()))"
)
"""The documents that a replica may claim."""

_EMBEDDED = (
    "COALESCE((SELECT rows FROM embedded WHERE embedded.uid = documents.uid AND space = "
    "(SELECT value::bigint FROM properties WHERE name = 'space')), 0)"
)
"""How many first chunks of a document have a vector in the active space."""


def claim(database: Database, condition: str, long_characters: int, after: int) -> DictRow | None:
    """Claim the next waiting document whose ``uid`` is greater than ``after``; returns its row.

    ``condition`` says in SQL what it compares with ``long_characters``. None where none is free, and where another
    space is active than this process has.
    """
    with database.write_lightly() as connection:
        return connection.execute(
            "WITH next AS (SELECT uid FROM documents WHERE status IN ('queued', 'indexing') AND uid > %(after)s "
            f"AND {condition} %(long)s AND {_FREE} "
            "AND %(space)s = (SELECT value::bigint FROM properties WHERE name = 'space') "
            "ORDER BY uid LIMIT 1 FOR UPDATE SKIP LOCKED) "
            "UPDATE documents SET owner = %(replica)s FROM next WHERE documents.uid = next.uid "
            "RETURNING documents.*",
            {"long": long_characters, "after": after, "replica": database.replica, "space": database.space},
        ).fetchone()


def give_back(database: Database, uid: int) -> None:
    """Let others claim a document. Raises nothing: where the database is lost, the lease runs out."""
    with suppress(StorageUnavailable), database.write_lightly() as connection:
        connection.execute("UPDATE documents SET owner = NULL WHERE uid = %s AND owner = %s", (uid, database.replica))


def save_chunks(database: Database, uid: int, chunks: IntArray) -> None:
    """Store how a document is cut, shape ``[chunks, 3]``, where this replica's work counts and it is not cut yet."""
    with database.write() as connection:
        cut = connection.execute(
            f"UPDATE documents SET status = 'indexing', error = NULL, chunks = %(chunks)s, tokens = %(tokens)s, "
            f"updated_at = {NOW}, owner = %(replica)s WHERE uid = %(uid)s AND chunks IS NULL AND {HELD}",
            {"uid": uid, "chunks": len(chunks), "tokens": int(chunks[:, 2].sum()), "replica": database.replica},
        )
        if cut.rowcount:
            with connection.cursor() as cursor:
                cursor.executemany(
                    "INSERT INTO chunks VALUES (%s, %s, %b)",
                    [
                        (uid, first, chunks[first : first + CHUNK_BLOCK].astype("<i8").tobytes())
                        for first in range(0, len(chunks), CHUNK_BLOCK)
                    ],
                )


def record_progress(database: Database, uid: int, progress: float) -> None:
    """Let other processes see how far this one has come with a document. Not durable; raises nothing."""
    with suppress(StorageUnavailable), database.write_lightly() as connection:
        connection.execute(
            f"UPDATE documents SET progress = %(progress)s WHERE uid = %(uid)s AND {HELD}",
            {"progress": progress, "uid": uid, "replica": database.replica},
        )


def finish(database: Database, uids: Sequence[int]) -> None:
    """Mark documents ``ready`` that this replica has embedded whole in the active space."""
    with database.write(searchable=True) as connection:
        rows = connection.execute(
            f"UPDATE documents SET status = 'ready', error = NULL, owner = NULL, updated_at = {NOW} "
            f"WHERE uid = ANY(%(uids)s) AND chunks = {_EMBEDDED} AND {HELD} RETURNING uid",
            {"uids": list(uids), "replica": database.replica},
        ).fetchall()
        take_place(connection, [row["uid"] for row in rows])


def fail(database: Database, uids: Sequence[int], reason: str) -> None:
    """Mark documents ``failed`` where this replica's work counts."""
    with database.write(searchable=False) as connection:
        connection.execute(
            f"UPDATE documents SET status = 'failed', error = %(error)s, owner = NULL, progress = 0, "
            f"updated_at = {NOW} WHERE uid = ANY(%(uids)s) AND {HELD}",
            {"uids": list(uids), "error": stored_text(reason), "replica": database.replica},
        )
