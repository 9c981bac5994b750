"""Starting over with the vectors: every document is queued again from its stored text."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from index.storage.local.database import Database, upgrade
from index.storage.local.directory import DATABASE, SEGMENTS, lock_directory
from index.storage.local.rows import now
from index.storage.local.spaces import find_or_add, write_property


def forget_vectors(directory: Path, *, dimension: int, fingerprint: str) -> int:
    """Drop all embeddings and queue every document; returns how many there are.

    The way out when vectors are damaged or belong to another checkpoint. The texts stay. Raises
    :class:`~index.errors.StoreInUse` while a service has the directory open.
    """
    with lock_directory(directory), closing(Database(directory / DATABASE)) as database:
        with database.write() as connection:
            upgrade(connection)
            for table in ("pieces", "segments", "chunks", "spaces", "properties"):
                connection.execute(f"DELETE FROM {table}")
            count = connection.execute(
                "UPDATE documents SET status = 'queued', error = NULL, chunks = NULL, tokens = NULL, updated_at = ?",
                (now(),),
            ).rowcount
            space = find_or_add(connection, fingerprint=fingerprint, dimension=dimension)
            write_property(connection, "space", str(space.number))
        for path in (directory / SEGMENTS).glob("*"):
            path.unlink()
    return count
