"""Vectors and bags of chunks in Qdrant (:class:`~index.storage.points.Points`): a collection for each space."""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Sequence
from itertools import groupby

import numpy as np
from qdrant_client import QdrantClient
from qdrant_client.http import models
from qdrant_client.http.exceptions import UnexpectedResponse

from index.arrays import Float32Array, IntArray, TokenIds
from index.errors import StorageUnavailable
from index.search.scope import Scope
from index.storage.points import WRITE_SECONDS, Membership, PointDocument
from index.storage.qdrant.connection import Calls, Connection, MissingSpace
from index.storage.qdrant.contents import Contents
from index.storage.qdrant.layout import (
    BAG,
    EMBEDDING,
    INDEXES,
    bag_of,
    chunk_point,
    point_ids,
    summarise,
    summary_point,
)
from index.storage.qdrant.scope import QdrantScope
from index.storage.vectors import ChunkAddress, EngineCalls, Space

WRITTEN = 256
"""Points of one call: two or three megabytes."""


class QdrantPoints:
    """The points of a cluster.

    ``client`` is a connection of its own where none is given.
    """

    def __init__(self, connection: Connection, client: QdrantClient | None = None) -> None:
        self._connection = connection
        self.calls = Calls(
            client
            or QdrantClient(
                connection.url, api_key=connection.api_key, timeout=connection.seconds, check_compatibility=False
            ),
            connection.seconds,
        )
        """The calls that were made."""
        self._contents: dict[int, Contents] = {}
        self._lock = threading.Lock()

    def called(self) -> Sequence[EngineCalls]:
        """The calls that this process has made."""
        return self.calls.so_far()

    def close(self) -> None:
        """Release connections. Idempotent."""
        self.calls.client.close()

    # Spaces

    def open(self, space: Space) -> None:
        """Make a collection that holds nothing yet, with its indexes; those that are there stay."""
        name, connection = self._name(space.number), self._connection

        def create(client: QdrantClient, seconds: int) -> None:
            if client.collection_exists(name):
                return
            try:
                client.create_collection(
                    name,
                    vectors_config={EMBEDDING: models.VectorParams(size=space.dimension, distance=models.Distance.DOT)},
                    sparse_vectors_config={BAG: models.SparseVectorParams()},
                    shard_number=connection.shards,
                    replication_factor=connection.replicas,
                    write_consistency_factor=connection.write_consistency,
                    on_disk_payload=True,
                    hnsw_config=models.HnswConfigDiff(m=0),  # every search reads all that its conditions leave
                    timeout=seconds,
                )
            except UnexpectedResponse as error:
                if error.status_code != 409:  # another process was faster
                    raise

        self.calls.make("write", create)
        for field, schema in INDEXES.items():

            def index(
                client: QdrantClient, seconds: int, field: str = field, schema: models.PayloadSchemaType = schema
            ) -> None:
                client.create_payload_index(name, field, schema, wait=True, timeout=seconds)

            self.calls.make("write", index)

    def spaces(self) -> Collection[int]:
        """The numbers of the spaces that are there."""
        beginning = self._name("")
        names = self.calls.make(
            "read", lambda client, _: [found.name for found in client.get_collections().collections]
        )
        numbers = [name.removeprefix(beginning) for name in names if name.startswith(beginning)]
        return [int(number) for number in numbers if number.isdecimal()]

    def drop(self, number: int) -> None:
        """Remove a collection; does nothing where it is not there."""
        name = self._name(number)
        try:
            self.calls.make("write", lambda client, seconds: client.delete_collection(name, timeout=seconds))
        except MissingSpace:
            return
        finally:
            with self._lock:
                self._contents.pop(number, None)

    # Writing

    def upsert(
        self,
        space: Space,
        documents: Sequence[PointDocument],
        rows: Sequence[ChunkAddress],
        vectors: Float32Array,
        bags: Sequence[TokenIds],
    ) -> None:
        """Store chunks with their vectors and bags, and for each document a summary of them."""
        document_of = {document.uid: document for document in documents}
        counted = [bag_of(tokens) for tokens in bags]
        points = [
            chunk_point(
                address.uid,
                address.number,
                chunks=document_of[address.uid].chunks,
                collection=document_of[address.uid].collection,
                embedding=vector,
                bag=bag,
            )
            for address, vector, bag in zip(rows, vectors, counted, strict=True)
        ]
        for uid, group in groupby(range(len(rows)), key=lambda row: rows[row].uid):
            members = list(group)
            inside = slice(members[0], members[-1] + 1)
            points.append(summary_point(uid, summarise(rows[members[0]].number, vectors[inside], counted[inside])))
        end = time.monotonic() + WRITE_SECONDS
        try:
            for low in range(0, len(points), WRITTEN):
                self._write_points(self._name(space.number), points[low : low + WRITTEN], end - time.monotonic())
        except MissingSpace:
            return

    def delete(self, uids: Collection[int]) -> None:
        """Remove the points of documents from every space."""
        if not uids:
            return
        among = models.MatchAny(any=list(uids))
        condition = models.Filter(
            should=[models.FieldCondition(key=field, match=among) for field in ("uid", "document")]
        )
        selector = models.FilterSelector(filter=condition)
        ordering = self._connection.write_ordering
        for number in self.spaces():
            name = self._name(number)

            def delete(client: QdrantClient, seconds: int, name: str = name) -> models.UpdateResult:
                return client.delete(name, selector, wait=True, ordering=ordering, timeout=seconds)

            try:
                _require_done(self.calls.make("write", delete, WRITE_SECONDS))
            except MissingSpace:
                continue

    def _write_points(self, name: str, points: Sequence[models.PointStruct], seconds: float) -> None:
        ordering = self._connection.write_ordering

        def write(client: QdrantClient, seconds: int) -> models.UpdateResult:
            return client.upsert(name, list(points), wait=True, ordering=ordering, timeout=seconds)

        if seconds <= 0:
            raise StorageUnavailable(f"Qdrant did not store chunks within {WRITE_SECONDS:.0f} seconds: see its load")
        _require_done(self.calls.make("write", write, seconds))

    # Reading

    def rows(self, space: Space, uid: int, numbers: IntArray) -> Float32Array | None:
        """The vectors of some chunks of a document; none where one of them, or the space, is missing."""
        contents = self._contents_of(space)
        try:
            return contents.embeddings(point_ids(np.full(len(numbers), uid), numbers).tolist())
        except MissingSpace:
            return None

    def scope(self, space: Space, membership: Membership) -> Scope:
        """The candidate axis of these documents."""
        return QdrantScope.of(self._contents_of(space), membership)

    def _contents_of(self, space: Space) -> Contents:
        with self._lock:
            if space.number not in self._contents:
                self._contents[space.number] = Contents(
                    self.calls, self._connection, self._name(space.number), space.dimension
                )
            return self._contents[space.number]

    def _name(self, number: int | str) -> str:
        return f"{self._connection.prefix}-{number}"


def _require_done(result: models.UpdateResult) -> None:
    """Raises :class:`~index.errors.StorageUnavailable` where a write may not be seen yet."""
    if result.status != models.UpdateStatus.COMPLETED:
        raise StorageUnavailable(f"Qdrant has not finished a write in time (status {result.status}): see its load")
