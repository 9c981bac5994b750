"""Removing documents and what belongs to them.

Deleting only moves documents to the table of deleted ones: nothing finds them from then on. Their texts and chunks
follow in small transactions, and their points last, when no process can still be storing some.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from index.storage.points import WRITE_SECONDS
from index.storage.postgres.database import Connection, Database

GRACE_SECONDS = 2 * WRITE_SECONDS
"""How long points of a deleted document are left: a process that did not know yet may still be storing some."""

POINTS_AT_ONCE = 200
"""Most documents whose points are removed at once."""


def delete(connection: Connection, uids: Sequence[int]) -> None:
    """Delete versions of documents, and with each the one that waits to take its place."""
    _move(connection, "uid = ANY(%(uids)s) OR replaces = ANY(%(uids)s)", uids)


def take_place(connection: Connection, uids: Sequence[int]) -> None:
    """Let versions take the places of those that they replace, where there are any; those are deleted."""
    _move(connection, "uid IN (SELECT replaces FROM documents WHERE uid = ANY(%(uids)s))", uids)
    connection.execute(
        "UPDATE documents SET replaces = NULL WHERE uid = ANY(%s) AND replaces IS NOT NULL", (list(uids),)
    )


def _move(connection: Connection, condition: str, uids: Sequence[int]) -> None:
    connection.execute(
        f"WITH gone AS (DELETE FROM documents WHERE {condition} RETURNING uid, collection, text) "
        "INSERT INTO deleted (uid, collection, text) SELECT uid, collection, text FROM gone",
        {"uids": list(uids)},
    )


def forget_feedback(connection: Connection, uids: Sequence[int]) -> None:
    """Remove the feedback about documents that will be deleted.

    A replacement among them takes nothing with it: the document of its id stays.
    """
    connection.execute(
        "DELETE FROM feedback WHERE number IN (SELECT feedback FROM documents JOIN judgements ON document_id = id "
        "WHERE uid = ANY(%s) AND replaces IS NULL)",
        (list(uids),),
    )


def remove_rows(database: Database) -> bool:
    """Remove some rows of a deleted document; returns whether there may be more."""
    with database.write_lightly() as connection:
        row = connection.execute(
            "SELECT uid, text FROM deleted WHERE NOT emptied ORDER BY uid LIMIT 1 FOR UPDATE SKIP LOCKED"
        ).fetchone()
        if row is None:
            return False
        removed = sum(
            connection.execute(
                f"DELETE FROM {table} WHERE {owner} = %(number)s AND {key} IN (SELECT {key} FROM {table} "
                f"WHERE {owner} = %(number)s ORDER BY {key} LIMIT {limit})",
                {"number": row[owner]},
            ).rowcount
            for table, owner, key, limit in (
                ("texts", "text", "start", 256),
                ("chunks", "uid", "first", 256),
                ("places", "uid", "start", 20_000),
            )
        )
        if not removed:
            connection.execute("UPDATE deleted SET emptied = true WHERE uid = %s", (row["uid"],))
    return True


def remove_points(database: Database, remove: Callable[[Collection[int]], None]) -> bool:
    """Let ``remove`` remove the points of some documents that were deleted a while ago; returns whether there were any.

    What it raises leaves them to be removed again.
    """
    with database.write_lightly() as connection:
        rows = connection.execute(
            "SELECT uid FROM deleted WHERE emptied AND at < now() - make_interval(secs => %s) "
            "ORDER BY uid LIMIT %s FOR UPDATE SKIP LOCKED",
            (GRACE_SECONDS, POINTS_AT_ONCE),
        ).fetchall()
        if not rows:
            return False
        uids = [row["uid"] for row in rows]
        remove(uids)
        connection.execute("DELETE FROM deleted WHERE uid = ANY(%s)", (uids,))
    return True
