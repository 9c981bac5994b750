"""Opening a data directory: one process at a time, vectors of one action tower, and nothing left of a crash."""

from __future__ import annotations

import fcntl
import shutil
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import IO

from index.database import Database
from index.errors import CheckpointMismatch, StoreInUse


def lock_directory(directory: Path) -> IO[str]:
    """Hold the directory until the returned file is closed; raises :class:`~index.errors.StoreInUse`."""
    file = (directory / "lock").open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        raise StoreInUse(f"Another process has {directory} open. Stop it, or give another QRAG_DATA_DIR.") from None
    return file


def check_fingerprint(database: Database, directory: Path, *, dimension: int, fingerprint: str) -> None:
    """Note whose vectors a new directory will hold; raises :class:`~index.errors.CheckpointMismatch` for another's."""
    with database.write() as connection:
        stored = {row["name"]: row["value"] for row in connection.execute("SELECT * FROM properties")}
        if not stored:
            connection.executemany(
                "INSERT INTO properties VALUES (?, ?)", [("dimension", str(dimension)), ("fingerprint", fingerprint)]
            )
            return
    if stored == {"dimension": str(dimension), "fingerprint": fingerprint}:
        return
    difference = (
        "have another dimension than the checkpoint's"
        if stored["dimension"] != str(dimension)
        else "were made by another action tower than the checkpoint's"
    )
    raise CheckpointMismatch(
        f"The vectors in {directory} {difference} (dimension {stored['dimension']} there, "
        f"{dimension} in the checkpoint). Start with the checkpoint that made them, give another "
        "QRAG_DATA_DIR, or run `python -m service reindex` to compute them again. Nothing was changed."
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
