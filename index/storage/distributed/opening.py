"""Opening a storage whose documents are in PostgreSQL and whose vectors are points of an engine."""

from __future__ import annotations

import shutil
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

from index.storage.distributed.vectors import DistributedVectors
from index.storage.news import News
from index.storage.points import Points
from index.storage.postgres.catalogue import PostgresCatalogue
from index.storage.postgres.database import Database
from index.storage.postgres.deletion import remove_rows
from index.storage.postgres.feedback import PostgresFeedback
from index.storage.postgres.questions import PostgresQuestions
from index.storage.postgres.replicas import LEASE_SECONDS, Replica
from index.storage.postgres.uploads import remove_given_up
from index.storage.protocols import Capacity


@dataclass(frozen=True, slots=True)
class DistributedStorage:
    """A storage that any number of processes have open (:class:`~index.storage.protocols.Storage`)."""

    database: Database
    replica: Replica
    points: Points
    catalogue: PostgresCatalogue
    vectors: DistributedVectors
    feedback: PostgresFeedback
    questions: PostgresQuestions
    incoming_directory: Path

    @property
    def news(self) -> News:
        """News of every process on this database."""
        return self.database.news

    def capacity(self) -> Capacity:
        """Space of this machine's disk for files being received: how full the engines are, they say themselves."""
        usage = shutil.disk_usage(self.incoming_directory)
        return Capacity(usage.free, usage.total)

    def reclaim_space(self) -> bool:
        """Remove some of what deleted documents or given up uploads have left behind."""
        return remove_rows(self.database) or self.vectors.remove_deleted() or remove_given_up(self.database)

    def maintain(self) -> bool:
        """Remove what a crash has left in the engine of the points."""
        return self.vectors.remove_unused()

    def close(self) -> None:
        """Give back what is claimed, and close connections."""
        self.replica.close()
        self.database.close()
        self.points.close()


def open_storage(
    url: str,
    points: Points,
    incoming_directory: Path,
    *,
    dimension: int,
    fingerprint: str,
    embed_again: bool = False,
    lease_seconds: float = LEASE_SECONDS,
) -> DistributedStorage:
    """Open the database at a ``postgresql://`` address for the action tower with this fingerprint.

    The ``points`` are closed with the storage, and where opening fails. With ``embed_again``, documents with another
    tower's vectors are queued. Raises :class:`~index.errors.StorageUnavailable`, :class:`~index.errors.FormatError` or
    :class:`~index.errors.CheckpointMismatch`; nothing stays open then.
    """
    with ExitStack() as opened:
        opened.callback(points.close)
        database = opened.enter_context(closing(Database(url, News())))
        replica = opened.enter_context(closing(Replica(database, lease_seconds=lease_seconds)))
        vectors = DistributedVectors(
            database, points, dimension=dimension, fingerprint=fingerprint, embed_again=embed_again
        )
        shutil.rmtree(incoming_directory, ignore_errors=True)
        incoming_directory.mkdir(parents=True)
        storage = DistributedStorage(
            database,
            replica,
            points,
            PostgresCatalogue(database),
            vectors,
            PostgresFeedback(database),
            PostgresQuestions(database),
            incoming_directory,
        )
        opened.pop_all()
    return storage
