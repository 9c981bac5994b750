"""Storages that share one database and one engine of points, as those of several processes do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import psycopg
import pytest
from psycopg.rows import TupleRow

from index.storage.distributed.opening import DistributedStorage
from tests.engines.memory_points import MemoryPoints
from tests.engines.postgres import PostgresServer
from tests.engines.storages import open_distributed


@dataclass(frozen=True)
class Cluster:
    """An empty database, and the storages that are open on it."""

    url: str
    folder: Path
    opened: ExitStack
    points: MemoryPoints = field(default_factory=MemoryPoints)
    numbers: Iterator[int] = field(default_factory=count)

    def replica(self, fingerprint: str = "words", *, embed_again: bool = False) -> DistributedStorage:
        """One more storage."""
        folder = self.folder / str(next(self.numbers))
        storage = open_distributed(self.url, self.points, folder, fingerprint=fingerprint, embed_again=embed_again)
        return self.opened.enter_context(closing(storage))

    def execute(self, statement: str) -> list[TupleRow]:
        """Run SQL behind everybody's back."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def expire(self, storage: DistributedStorage) -> None:
        """Let the lease of a storage run out, as if its process had stood still."""
        self.execute(
            f"UPDATE replicas SET alive_until = now() - interval '1 second' WHERE replica = {storage.replica.number}"
        )


@pytest.fixture
def cluster(postgres: PostgresServer, tmp_path: Path) -> Iterator[Cluster]:
    with ExitStack() as opened:
        yield Cluster(postgres.new_url(), tmp_path, opened)
