"""Spaces: the vectors of one action tower each, side by side in a data directory. One is active: it is searched.

Another checkpoint's tower gets a space of its own. It is filled in the background from the stored chunks
(:mod:`index.indexing.reembedding`), and becomes the active one when it is complete.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Collection, Mapping
from pathlib import Path

from index.errors import CheckpointMismatch
from index.storage.local.rows import now
from index.storage.vectors import Space, Unembedded

log = logging.getLogger(__name__)

_EMBEDDED = "SELECT uid, SUM(rows) AS rows FROM pieces WHERE space = ? GROUP BY uid"
"""The number of embedded chunks of each document in a space."""


def read_spaces(connection: sqlite3.Connection) -> dict[int, Space]:
    """All spaces by their numbers."""
    return {row["space"]: Space(*row) for row in connection.execute("SELECT space, fingerprint, dimension FROM spaces")}


def find_or_add(connection: sqlite3.Connection, *, fingerprint: str, dimension: int) -> Space:
    """The space of an action tower, added where it does not exist."""
    spaces = read_spaces(connection)
    for space in spaces.values():
        if space.fingerprint == fingerprint:
            return space
    number = 1 + max([0, *spaces, int(read_property(connection, "last_space") or 0)])
    added = Space(number, fingerprint, dimension)
    connection.execute("INSERT INTO spaces VALUES (?, ?, ?)", added)
    write_property(connection, "last_space", str(number))
    return added


def require_active(
    connection: sqlite3.Connection, directory: Path, *, dimension: int, fingerprint: str, embed_again: bool
) -> Space:
    """The active space; in a new directory, the space of the action tower with this fingerprint.

    Where it is another tower's, :func:`take_over` with ``embed_again``; without it raises
    :class:`~index.errors.CheckpointMismatch`.
    """
    number = active(connection)
    if number is None:
        space = find_or_add(connection, fingerprint=fingerprint, dimension=dimension)
        write_property(connection, "space", str(space.number))
        return space
    space = read_spaces(connection)[number]
    if (space.fingerprint, space.dimension) == (fingerprint, dimension):
        return space
    if embed_again:
        return take_over(connection, dimension=dimension, fingerprint=fingerprint)
    difference = (
        "have another dimension than the checkpoint's"
        if space.dimension != dimension
        else "were made by another action tower than the checkpoint's"
    )
    raise CheckpointMismatch(
        f"The vectors in {directory} {difference} (dimension {space.dimension} there, "
        f"{dimension} in the checkpoint). Start with the checkpoint that made them and change it while the service "
        "runs (POST /admin/checkpoints), give another QRAG_DATA_DIR, or set QRAG_OTHER_VECTORS=embed to compute them "
        "again in the background. Nothing was changed."
    )


def take_over(connection: sqlite3.Connection, *, dimension: int, fingerprint: str) -> Space:
    """Search the space of this action tower from now on, whatever it lacks.

    Documents that it does not have whole are queued: each is found again once it is embedded. How they are cut stays,
    and so does the former space, for going back.
    """
    former = active(connection)
    space = find_or_add(connection, fingerprint=fingerprint, dimension=dimension)
    forget_others(connection, {space.number, *([] if former is None else [former])})
    queued = connection.execute(
        f"UPDATE documents SET status = 'queued', updated_at = ? WHERE status = 'ready' AND chunks > COALESCE("
        f"(SELECT rows FROM ({_EMBEDDED}) e WHERE e.uid = documents.uid), 0)",
        (now(), space.number),
    ).rowcount
    write_property(connection, "space", str(space.number))
    log.warning("the vectors are another action tower's: documents=%d are embedded again in the background", queued)
    return space


def active(connection: sqlite3.Connection) -> int | None:
    """The space that is searched; none in a new directory."""
    value = read_property(connection, "space")
    return None if value is None else int(value)


def stored(connection: sqlite3.Connection, uid: int, space: int) -> int:
    """How many of a document's first chunks have a vector in a space."""
    row = connection.execute(
        "SELECT COALESCE(MAX(first_chunk + rows), 0) FROM pieces WHERE uid = ? AND space = ?", (uid, space)
    ).fetchone()
    return int(row[0])


def unembedded(connection: sqlite3.Connection, space: int, limit: int) -> list[Unembedded]:
    """The first searchable documents for which a space lacks vectors."""
    rows = connection.execute(
        f"SELECT uid, chunks, COALESCE(e.rows, 0) FROM documents LEFT JOIN ({_EMBEDDED}) e USING (uid) "
        "WHERE status = 'ready' AND COALESCE(e.rows, 0) < chunks ORDER BY uid LIMIT ?",
        (space, limit),
    )
    return [Unembedded(*row) for row in rows]


def share_embedded(connection: sqlite3.Connection, space: int) -> float:
    """The share of all searchable chunks that a space has vectors of."""
    embedded, chunks = connection.execute(
        f"SELECT SUM(COALESCE(e.rows, 0)), SUM(chunks) FROM documents LEFT JOIN ({_EMBEDDED}) e USING (uid) "
        "WHERE status = 'ready'",
        (space,),
    ).fetchone()
    return embedded / chunks if chunks else 1.0


def activate(connection: sqlite3.Connection, space: int) -> bool:
    """Make a space the active one; returns false, and does nothing, while it lacks vectors."""
    if unembedded(connection, space, 1):
        return False
    # Half-embedded documents begin again in the new space; requests that still use the former one must not find them.
    # They are cut again, too: the chunks may be longer than the new tower reads.
    for table in ("pieces", "chunks"):
        connection.execute(f"DELETE FROM {table} WHERE uid IN (SELECT uid FROM documents WHERE status != 'ready')")
    connection.execute("UPDATE documents SET chunks = NULL, tokens = NULL WHERE status != 'ready'")
    write_property(connection, "space", str(space))
    return True


def forget_others(connection: sqlite3.Connection, kept: Collection[int]) -> list[int]:
    """Drop all spaces but the ``kept`` ones; returns the dropped ones. Their segments become unused."""
    dropped = [space for space in read_spaces(connection) if space not in kept]
    for space in dropped:
        connection.execute("DELETE FROM pieces WHERE space = ?", (space,))
        connection.execute("DELETE FROM spaces WHERE space = ?", (space,))
    return dropped


def forget_elsewhere(connection: sqlite3.Connection, uid: int) -> None:
    """Drop the vectors of a document in all spaces but the active one: their towers may have read its former title."""
    connection.execute("DELETE FROM pieces WHERE uid = ? AND space != ?", (uid, active(connection)))


def read_property(connection: sqlite3.Connection, name: str) -> str | None:
    """A property of the data directory; none where it was never written."""
    row = connection.execute("SELECT value FROM properties WHERE name = ?", (name,)).fetchone()
    return None if row is None else str(row["value"])


def write_property(connection: sqlite3.Connection, name: str, value: str | None) -> None:
    """Set a property of the data directory, or remove it."""
    if value is None:
        connection.execute("DELETE FROM properties WHERE name = ?", (name,))
    else:
        connection.execute("INSERT OR REPLACE INTO properties VALUES (?, ?)", (name, value))


def settle_property(connection: sqlite3.Connection, name: str, value: str) -> str:
    """A property of the data directory, which gets this value where it has none."""
    connection.execute("INSERT OR IGNORE INTO properties VALUES (?, ?)", (name, value))
    return read_property(connection, name) or value


def write_properties(connection: sqlite3.Connection, properties: Mapping[str, str | None]) -> None:
    """Set properties of the data directory, or remove them."""
    for name, value in properties.items():
        write_property(connection, name, value)
