"""Starting over with the vectors: every document is queued again from its stored text."""

from __future__ import annotations

from pathlib import Path

from index.database import Database
from index.directory import lock_directory
from index.store import now


def forget_vectors(directory: Path, *, dimension: int, fingerprint: str) -> int:
    """Drop all embeddings and queue every document; returns how many there are.

    The way out when vectors are damaged or belong to another checkpoint. The texts stay. Raises
    :class:`~index.errors.StoreInUse` while a service has the directory open.
    """
    lock_file = lock_directory(directory)
    database = Database(directory / "qrag.sqlite3")
    try:
        with database.write() as connection:
            for table in ("pieces", "segments", "chunks", "properties"):
                connection.execute(f"DELETE FROM {table}")
            count = connection.execute(
                "UPDATE documents SET status = 'queued', error = NULL, chunks = NULL, tokens = NULL, updated_at = ?",
                (now(),),
            ).rowcount
            connection.executemany(
                "INSERT INTO properties VALUES (?, ?)", [("dimension", str(dimension)), ("fingerprint", fingerprint)]
            )
        for path in (directory / "segments").glob("*"):
            path.unlink()
    finally:
        database.close()
        lock_file.close()
    return count
