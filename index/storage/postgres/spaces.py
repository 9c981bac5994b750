"""Spaces: the vectors of one action tower each. One is active: it is searched.

The points themselves are an engine's (:mod:`index.storage.points`). Here stands how many first chunks of each document
have some, which changes only in transactions that agree with the documents.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from index.errors import CheckpointMismatch
from index.storage.points import PointDocument
from index.storage.postgres.database import Connection
from index.storage.postgres.rows import HELD, NOW, first_row
from index.storage.vectors import Space, Unembedded

log = logging.getLogger(__name__)

_ROWS = "COALESCE((SELECT rows FROM embedded e WHERE e.uid = documents.uid AND e.space = %(space)s), 0)"
"""The number of embedded chunks of a document in a space."""

_FILLABLE = f"(status = 'ready' OR ({HELD}))"
"""The documents that this replica may give vectors."""


def read_spaces(connection: Connection) -> dict[int, Space]:
    """All spaces by their numbers."""
    rows = connection.execute("SELECT space AS number, fingerprint, dimension FROM spaces ORDER BY space")
    return {row["number"]: Space(**row) for row in rows}


def find_or_add(connection: Connection, *, fingerprint: str, dimension: int) -> Space:
    """The space of an action tower, added where it does not exist. Its number is used up even where that is undone."""
    for space in read_spaces(connection).values():
        if space.fingerprint == fingerprint:
            return space
    row = first_row(
        connection,
        "INSERT INTO spaces (fingerprint, dimension) VALUES (%s, %s) RETURNING space",
        (fingerprint, dimension),
    )
    assert row is not None
    return Space(row["space"], fingerprint, dimension)


def require_active(connection: Connection, *, dimension: int, fingerprint: str, embed_again: bool) -> Space:
    """The active space; in a new database, the space of the action tower with this fingerprint.

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
        f"The vectors of the database {difference} (dimension {space.dimension} there, {dimension} in the checkpoint). "
        "Start with the checkpoint that made them and change it while the service runs (POST /admin/checkpoints), "
        "give another QRAG_DATABASE_URL, or set QRAG_OTHER_VECTORS=embed to compute them again in the background. "
        "Nothing was changed."
    )


def take_over(connection: Connection, *, dimension: int, fingerprint: str) -> Space:
    """Search the space of this action tower from now on, whatever it lacks.

    Documents that it does not have whole are queued: each is found again once it is embedded. How they are cut stays,
    and so does the former space, for going back.
    """
    former = active(connection)
    space = find_or_add(connection, fingerprint=fingerprint, dimension=dimension)
    forget_others(connection, {space.number, *([] if former is None else [former])})
    queued = connection.execute(
        f"UPDATE documents SET status = 'queued', progress = 0, updated_at = {NOW} "
        f"WHERE status = 'ready' AND chunks > {_ROWS}",
        {"space": space.number},
    ).rowcount
    write_property(connection, "space", str(space.number))
    log.warning("the vectors are another action tower's: documents=%d are embedded again in the background", queued)
    return space


def active(connection: Connection) -> int | None:
    """The space that is searched; none in a new database."""
    value = read_property(connection, "space")
    return None if value is None else int(value)


def stored(connection: Connection, uid: int, space: int) -> int:
    """How many of a document's first chunks have a vector in a space."""
    row = first_row(connection, "SELECT rows FROM embedded WHERE uid = %s AND space = %s", (uid, space))
    return 0 if row is None else int(row["rows"])


class Fillable(NamedTuple):
    """A document that may get points in a space, which has some of its first chunks already."""

    document: PointDocument
    embedded: int
    outdated: bool
    """Whether there may be points of a former cut."""


def fillable(connection: Connection, uids: Sequence[int], space: int, replica: int) -> dict[int, Fillable]:
    """Those of some documents that may get points in a space: none of another replica's, and none once it is dropped.

    The keys are their ``uid``s.
    """
    rows = connection.execute(
        f"SELECT uid, collection, chunks, {_ROWS} AS embedded, EXISTS(SELECT 1 FROM outdated o WHERE o.uid = "
        f"documents.uid) AS outdated FROM documents WHERE uid = ANY(%(uids)s) AND chunks IS NOT NULL AND {_FILLABLE} "
        "AND EXISTS(SELECT 1 FROM spaces WHERE space = %(space)s)",
        {"uids": list(uids), "space": space, "replica": replica},
    )
    return {
        row["uid"]: Fillable(
            PointDocument(row["uid"], row["collection"], row["chunks"]), row["embedded"], row["outdated"]
        )
        for row in rows
    }


def count_embedded(
    connection: Connection, filled: Sequence[tuple[Fillable, int]], space: int, replica: int
) -> list[int]:
    """Count points that were stored: so many more of each document, if nothing has changed since it was fillable.

    Returns the ``uid``s of those that were deleted meanwhile.
    """
    current = fillable(connection, [before.document.uid for before, _ in filled], space, replica)
    counted = [
        (before.document.uid, space, before.embedded + more)
        for before, more in filled
        if (now := current.get(before.document.uid)) is not None
        and (now.document, now.embedded) == (before.document, before.embedded)
    ]
    with connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO embedded VALUES (%s, %s, %s) ON CONFLICT (uid, space) DO UPDATE SET rows = EXCLUDED.rows",
            counted,
        )
    uids = [before.document.uid for before, _ in filled]
    rows = connection.execute("SELECT uid FROM documents WHERE uid = ANY(%s)", (uids,))
    return sorted(set(uids) - {row["uid"] for row in rows})


def unembedded(connection: Connection, space: int, limit: int) -> list[Unembedded]:
    """The first searchable documents for which a space lacks vectors."""
    rows = connection.execute(
        f"SELECT uid, chunks, {_ROWS} AS embedded FROM documents WHERE status = 'ready' AND {_ROWS} < chunks "
        "ORDER BY uid LIMIT %(limit)s",
        {"space": space, "limit": limit},
    )
    return [Unembedded(**row) for row in rows]


def share_embedded(connection: Connection, space: int) -> float:
    """The share of all searchable chunks that a space has vectors of."""
    row = first_row(
        connection,
        f"SELECT SUM({_ROWS})::bigint AS embedded, SUM(chunks)::bigint AS chunks FROM documents WHERE status = 'ready'",
        {"space": space},
    )
    return row["embedded"] / row["chunks"] if row is not None and row["chunks"] else 1.0


def activate(connection: Connection, space: int) -> bool:
    """Make a space the active one; returns false, and does nothing, while it lacks vectors or was dropped."""
    if space not in read_spaces(connection) or unembedded(connection, space, 1):
        return False
    # Half-embedded documents begin again in the new space; requests that still use the former one must not find them.
    # They are cut again, too: the chunks may be longer than the new tower reads. Points that were stored but not
    # counted yet are as outdated as the others. Who has claimed one may stay behind, and never finish it.
    unready = "(SELECT uid FROM documents WHERE status != 'ready')"
    connection.execute(
        "INSERT INTO outdated SELECT uid FROM documents WHERE status != 'ready' AND chunks IS NOT NULL "
        "ON CONFLICT DO NOTHING"
    )
    for table in ("embedded", "chunks"):
        connection.execute(f"DELETE FROM {table} WHERE uid IN {unready}")
    connection.execute(
        "UPDATE documents SET chunks = NULL, tokens = NULL, progress = 0, owner = NULL WHERE status != 'ready'"
    )
    write_property(connection, "space", str(space))
    return True


def forget_others(connection: Connection, kept: Collection[int]) -> list[int]:
    """Drop all spaces but the ``kept`` ones; returns the dropped ones, whose points the caller removes."""
    rows = connection.execute("DELETE FROM spaces WHERE space != ALL(%s) RETURNING space", (list(kept),))
    return [row["space"] for row in rows]


def read_property(connection: Connection, name: str) -> str | None:
    """A property of the database; none where it was never written."""
    row = first_row(connection, "SELECT value FROM properties WHERE name = %s", (name,))
    return None if row is None else str(row["value"])


def write_property(connection: Connection, name: str, value: str | None) -> None:
    """Set a property of the database, or remove it."""
    if value is None:
        connection.execute("DELETE FROM properties WHERE name = %s", (name,))
    else:
        connection.execute(
            "INSERT INTO properties VALUES (%s, %s) ON CONFLICT (name) DO UPDATE SET value = EXCLUDED.value",
            (name, value),
        )


def settle_property(connection: Connection, name: str, value: str) -> str:
    """A property of the database, which gets this value where it has none, inside the turn of a writer."""
    found = read_property(connection, name)
    if found is None:
        write_property(connection, name, value)
    return value if found is None else found


def read_properties(connection: Connection) -> dict[str, str]:
    """All properties of a database, none of one without tables."""
    row = first_row(connection, "SELECT to_regclass('properties') IS NOT NULL AS there")
    if row is None or not row["there"]:
        return {}
    return {row["name"]: row["value"] for row in connection.execute("SELECT name, value FROM properties")}


def write_properties(connection: Connection, properties: Mapping[str, str | None]) -> None:
    """Set properties of the database, or remove them."""
    for name, value in properties.items():
        write_property(connection, name, value)
