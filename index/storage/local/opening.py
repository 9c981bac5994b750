"""Opening a data directory, or dropping its vectors: by one process at a time, without what a crash left behind."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

import torch

from index.storage.local.catalogue import LocalCatalogue
from index.storage.local.compaction import compact
from index.storage.local.database import Database, upgrade
from index.storage.local.directory import DATABASE, SEGMENTS, DataDirectory, lock_directory
from index.storage.local.records.feedback import LocalFeedback
from index.storage.local.records.questions import LocalQuestions
from index.storage.local.rows import now
from index.storage.local.spaces import find_or_add, write_property
from index.storage.local.vectors import LocalVectors
from index.storage.news import News
from index.storage.protocols import APPEND_ROWS, Capacity
from index.storage.vectors import EngineCalls


@dataclass(frozen=True, slots=True)
class LocalStorage:
    """An open data directory (:class:`~index.storage.protocols.Storage`)."""

    directory: DataDirectory
    catalogue: LocalCatalogue
    vectors: LocalVectors
    feedback: LocalFeedback
    questions: LocalQuestions

    @property
    def news(self) -> News:
        """News that catalogue and vectors announce."""
        return self.directory.news

    @property
    def incoming_directory(self) -> Path:
        """A folder on the disk of the data, so that received files count against the watched space."""
        return self.directory.incoming

    def check(self) -> None:
        """Return: there is nothing but this process and its files."""

    def capacity(self) -> Capacity:
        """Space of the disk with the data directory."""
        usage = shutil.disk_usage(self.directory.path)
        return Capacity(usage.free, usage.total)

    def calls(self) -> Sequence[EngineCalls]:
        """None: everything is in this process."""
        return ()

    def reclaim_space(self) -> bool:
        """Remove what deleted documents have left behind, or give some of its space back to the file system."""
        unused, deleted = self.vectors.remove_unused(), self.catalogue.remove_deleted()
        return unused or deleted or self.directory.database.release_space()

    def maintain(self, *, segment_rows: int = APPEND_ROWS) -> bool:
        """Merge segments if that is due; otherwise make sure that the reserve exists."""
        if compact(self.directory.database, self.vectors, self.news, segment_rows=segment_rows):
            return True
        self.directory.reserve.keep()
        return False

    def close(self) -> None:
        """Close the files and let another process open the directory."""
        self.vectors.close()
        self.directory.close()


def open_storage(
    directory: Path, *, dimension: int, fingerprint: str, device: torch.device, embed_again: bool = False
) -> LocalStorage:
    """Open a data directory for the action tower with this fingerprint.

    With ``embed_again``, documents with another tower's vectors are queued. Raises :class:`~index.errors.StoreInUse`,
    :class:`~index.errors.FormatError`, :class:`~index.errors.DamagedStore`,
    :class:`~index.errors.CheckpointMismatch` or :class:`~index.errors.DiskFull`; nothing is changed then, and nothing
    stays open.
    """
    with ExitStack() as opened:
        files = opened.enter_context(closing(DataDirectory(directory)))
        vectors = LocalVectors(files, device, dimension=dimension, fingerprint=fingerprint, embed_again=embed_again)
        catalogue = LocalCatalogue(files)
        storage = LocalStorage(files, catalogue, vectors, LocalFeedback(files), LocalQuestions(files))
        opened.callback(vectors.close)
        files.sweep(known=vectors.files())
        vectors.remove_unused()
        storage.catalogue.remove_deleted()
        files.reserve.keep()
        opened.pop_all()
    return storage


def read_properties(directory: Path) -> dict[str, str]:
    """The properties of a data directory before it is opened; none of a new one."""
    path = directory / DATABASE
    if not path.exists():
        return {}
    with closing(Database(path)) as database, database.read() as connection:
        return {row["name"]: row["value"] for row in connection.execute("SELECT name, value FROM properties")}


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
