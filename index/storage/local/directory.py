"""Opening a data directory: one process at a time, vectors of one action tower, and nothing left of a crash."""

from __future__ import annotations

import fcntl
import shutil
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import IO

from index.errors import CheckpointMismatch, StoreInUse
from index.storage.local.database import Database, upgrade
from index.storage.local.spaces import Space, active, find_or_add, read_spaces, write_property


def lock_directory(directory: Path) -> IO[str]:
    """Hold the directory until the returned file is closed; raises :class:`~index.errors.StoreInUse`."""
    file = (directory / "lock").open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        raise StoreInUse(f"Another process has {directory} open. Stop it, or give another QRAG_DATA_DIR.") from None
    return file


def read_properties(directory: Path) -> dict[str, str]:
    """What is noted in a data directory, before it is opened; nothing in a new one."""
    path = directory / "qrag.sqlite3"
    if not path.exists():
        return {}
    database = Database(path)
    try:
        with database.read() as connection:
            return {row["name"]: row["value"] for row in connection.execute("SELECT name, value FROM properties")}
    finally:
        database.close()


def open_space(database: Database, directory: Path, *, dimension: int, fingerprint: str) -> Space:
    """The active space, in the current format; a new directory's is that of the action tower with this fingerprint.

    Raises :class:`~index.errors.CheckpointMismatch` where it is another tower's, and then changes nothing.
    """
    with database.write() as connection:
        upgrade(connection)
        number = active(connection)
        if number is None:
            space = find_or_add(connection, fingerprint=fingerprint, dimension=dimension)
            write_property(connection, "space", str(space.space))
            return space
        space = read_spaces(connection)[number]
        if (space.fingerprint, space.dimension) == (fingerprint, dimension):
            return space
        difference = (
            "have another dimension than the checkpoint's"
            if space.dimension != dimension
            else "were made by another action tower than the checkpoint's"
        )
        raise CheckpointMismatch(
            f"The vectors in {directory} {difference} (dimension {space.dimension} there, "
            f"{dimension} in the checkpoint). Start with the checkpoint that made them and change it while the service "
            "runs (POST /admin/checkpoints), give another QRAG_DATA_DIR, or run `python -m service reindex` to compute "
            "them again. Nothing was changed."
        )


def sweep(database: Database, folders: Iterable[Path], known: Collection[Path]) -> None:
    """Remove what a crash left behind: unpublished texts, and files in these folders that no row mentions."""
    with database.write() as connection:
        connection.execute("DELETE FROM texts WHERE uid IN (SELECT uid FROM uploads)")
        connection.execute("DELETE FROM uploads")
    for path in [path for folder in folders for path in folder.iterdir()]:
        if path.is_dir():
            shutil.rmtree(path)
        elif path not in known:
            path.unlink()
