"""The files of a data directory that catalogue and vectors share, held by one process at a time."""

from __future__ import annotations

import fcntl
import shutil
from collections.abc import Collection
from pathlib import Path
from typing import IO

from index.errors import StoreInUse
from index.storage.local.database import Database
from index.storage.local.deletion import Reserve
from index.storage.news import News

DATABASE = "qrag.sqlite3"
"""Name of the SQLite file."""

SEGMENTS = "segments"
"""Name of the folder with embeddings and codes."""

INCOMING = "incoming"
"""Name of the folder for files being received and read."""


def lock_directory(directory: Path) -> IO[str]:
    """Hold the directory until the returned file is closed; raises :class:`~index.errors.StoreInUse`."""
    file = (directory / "lock").open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        raise StoreInUse(f"Another process has {directory} open. Stop it, or give another QRAG_DATA_DIR.") from None
    return file


class DataDirectory:
    """A data directory, locked and with its database open.

    Raises :class:`~index.errors.StoreInUse`, :class:`~index.errors.FormatError` or
    :class:`~index.errors.DamagedStore`, and then holds nothing.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.segments = path / SEGMENTS
        self.incoming = path / INCOMING
        self.segments.mkdir(parents=True, exist_ok=True)
        self.incoming.mkdir(exist_ok=True)
        self._lock_file = lock_directory(path)
        try:
            self.database = Database(path / DATABASE)
        except BaseException:
            self._lock_file.close()
            raise
        self.reserve = Reserve(path / "reserve", self.database)
        self.news = News()

    def sweep(self, known: Collection[Path]) -> None:
        """Remove what a crash left behind: unpublished texts, and all files but the ``known`` ones."""
        with self.database.write() as connection:
            connection.execute("DELETE FROM texts WHERE uid IN (SELECT uid FROM uploads)")
            connection.execute("DELETE FROM uploads")
        for path in [*self.segments.iterdir(), *self.incoming.iterdir()]:
            if path.is_dir():
                shutil.rmtree(path)
            elif path not in known:
                path.unlink()

    def close(self) -> None:
        """Close the database, and let another process open the directory."""
        self.database.close()
        self._lock_file.close()
