"""Opening a storage whose documents are in PostgreSQL and whose vectors are points of an engine."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from index.errors import StorageUnavailable
from index.storage.distributed.vectors import DistributedVectors
from index.storage.local.directory import INCOMING, lock_directory
from index.storage.news import News
from index.storage.points import Points
from index.storage.postgres.catalogue import PostgresCatalogue
from index.storage.postgres.database import Database, connect, translated
from index.storage.postgres.deletion import remove_rows
from index.storage.postgres.feedback import PostgresFeedback
from index.storage.postgres.questions import PostgresQuestions
from index.storage.postgres.replicas import LEASE_SECONDS, Replica
from index.storage.postgres.spaces import read_properties as read_all
from index.storage.postgres.uploads import remove_given_up
from index.storage.protocols import Capacity
from index.storage.vectors import EngineCalls


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
    directory: IO[str]
    """The lock of this process's folder."""
    incoming_directory: Path

    @property
    def news(self) -> News:
        """News of every process on this database."""
        return self.database.news

    def check(self) -> None:
        """Ask both engines; raises :class:`~index.errors.StorageUnavailable` where one is lost."""
        with self.database.read() as connection:
            connection.execute("SELECT 1")
        if self.vectors.space.number not in self.points.spaces():
            raise StorageUnavailable(
                "The vectors of the served checkpoint are not in Qdrant. Another checkpoint may have taken their "
                "place; otherwise see that nothing but this service writes to its collections."
            )

    def capacity(self) -> Capacity:
        """Space of this machine's disk for files being received: how full the engines are, they say themselves."""
        usage = shutil.disk_usage(self.incoming_directory)
        return Capacity(usage.free, usage.total)

    def calls(self) -> Sequence[EngineCalls]:
        """The calls to the engine of the points."""
        return self.points.called()

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
        self.directory.close()


def open_storage(
    url: str,
    points: Points,
    directory: Path,
    *,
    dimension: int,
    fingerprint: str,
    embed_again: bool = False,
    lease_seconds: float = LEASE_SECONDS,
) -> DistributedStorage:
    """Open the database at a ``postgresql://`` address for the action tower with this fingerprint.

    The ``directory`` is this process's alone, for files being received. The ``points`` are closed with the storage, and
    where opening fails. With ``embed_again``, documents with another tower's vectors are queued. Raises
    :class:`~index.errors.StoreInUse`, :class:`~index.errors.StorageUnavailable`, :class:`~index.errors.FormatError` or
    :class:`~index.errors.CheckpointMismatch`; nothing stays open then.
    """
    with ExitStack() as opened:
        opened.callback(points.close)
        incoming = directory / INCOMING
        incoming.mkdir(parents=True, exist_ok=True)
        lock = opened.enter_context(lock_directory(directory))
        database = opened.enter_context(closing(Database(url, News())))
        replica = opened.enter_context(closing(Replica(database, lease_seconds=lease_seconds)))
        vectors = DistributedVectors(
            database, points, dimension=dimension, fingerprint=fingerprint, embed_again=embed_again
        )
        shutil.rmtree(incoming)
        incoming.mkdir()
        storage = DistributedStorage(
            database,
            replica,
            points,
            PostgresCatalogue(database),
            vectors,
            PostgresFeedback(database),
            PostgresQuestions(database),
            lock,
            incoming,
        )
        opened.pop_all()
    return storage


def read_properties(url: str) -> dict[str, str]:
    """The properties of a database before it is opened; none of a new one. Raises like :func:`open_storage`."""
    with closing(connect(url)) as connection, translated():
        return read_all(connection)
