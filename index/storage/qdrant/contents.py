"""What a space holds, read by ids: chunks and summaries of documents, cached because neither ever changes.

A document that is replaced or embedded by another tower gets another uid or another space, so what was read once stays
right for as long as anybody asks for it.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Generic, NamedTuple, TypeVar

import numpy as np
from qdrant_client import QdrantClient
from qdrant_client.http import models

from index.arrays import Float32Array, IntArray
from index.errors import StorageUnavailable
from index.storage.qdrant.connection import Calls, Connection, MissingSpace
from index.storage.qdrant.layout import (
    BAG,
    EMBEDDING,
    Chunk,
    Summary,
    point_ids,
    read_chunk,
    read_summary,
    summarise,
)

READ_CHUNKS = 2048
"""Chunks read by one call: eight megabytes with embeddings of 384 numbers."""

READ_DOCUMENTS = 512
"""Documents whose summaries are read by one call."""

KEPT_NUMBERS = 1 << 24
"""Numbers of embeddings and bags that are cached, four bytes each: 64 MB, some 40,000 chunks."""

KEPT_FREQUENCIES = 1 << 24
"""Frequencies of tokens in documents that are cached, eight bytes each."""

Key = TypeVar("Key")
Kept = TypeVar("Kept")


class Cache(Generic[Key, Kept]):
    """The values used last, as long as their sizes add up to no more than ``room``."""

    def __init__(self, room: int, size: Callable[[Kept], int]) -> None:
        self._room, self._size = room, size
        self._values: OrderedDict[Key, Kept] = OrderedDict()
        self._filled = 0
        self._lock = threading.Lock()

    def get(self, key: Key) -> Kept | None:
        """The value of a key, if it is there."""
        with self._lock:
            value = self._values.get(key)
            if value is not None:
                self._values.move_to_end(key)
            return value

    def put(self, key: Key, value: Kept) -> None:
        """Cache a value; those that were not used for longest go."""
        with self._lock:
            if key in self._values:
                return
            self._values[key] = value
            self._filled += self._size(value)
            while self._filled > self._room:
                self._filled -= self._size(self._values.popitem(last=False)[1])


class Statistics(NamedTuple):
    """What is known of all chunks of some documents together."""

    frequencies: IntArray
    """In how many of them each token stands, up to the largest that any has."""
    length: int
    """Tokens of all of them."""
    longest: int
    norm: float
    """A bound of the Euclidean norms of their embeddings."""


@dataclass
class Contents:
    """One space."""

    calls: Calls
    connection: Connection
    name: str
    """The collection in Qdrant."""
    dimension: int
    _chunks: Cache[int, Chunk] = field(init=False)
    _summaries: Cache[int, tuple[Summary, ...]] = field(init=False)

    def __post_init__(self) -> None:
        self._chunks = Cache(KEPT_NUMBERS, lambda chunk: len(chunk.embedding) + 4 * len(chunk.bag.tokens))
        self._summaries = Cache(KEPT_FREQUENCIES, lambda parts: 64 + sum(len(part.tokens) for part in parts))

    def search(self, requests: Sequence[models.QueryRequest]) -> list[list[models.ScoredPoint]]:
        """The points that each request finds, by one call; none is made for none.

        Raises :class:`~index.errors.StorageUnavailable`.
        """
        if not requests:
            return []

        def query(client: QdrantClient, seconds: int) -> list[models.QueryResponse]:
            return client.query_batch_points(
                self.name, requests, consistency=self.connection.read_consistency, timeout=seconds
            )

        try:
            return [response.points for response in self.calls.make("search", query)]
        except MissingSpace as error:
            raise _gone() from error

    def kept(self, id: int) -> Chunk | None:
        """A chunk that is cached."""
        return self._chunks.get(id)

    def chunks(self, ids: IntArray) -> list[Chunk]:
        """The chunks with these ids. Raises :class:`~index.errors.StorageUnavailable`, also where one is missing."""
        found = {id: chunk for id in ids.tolist() if (chunk := self._chunks.get(id)) is not None}
        missing = [id for id in ids.tolist() if id not in found]
        for low in range(0, len(missing), READ_CHUNKS):
            block = list(dict.fromkeys(missing[low : low + READ_CHUNKS]))
            try:
                records = self._retrieve(block, [EMBEDDING, BAG])
            except MissingSpace as error:
                raise _gone() from error
            if len(records) < len(block):
                raise _gone()
            for record in records:
                chunk = read_chunk(record)
                found[int(record.id)] = chunk
                self._chunks.put(int(record.id), chunk)
        return [found[id] for id in ids.tolist()]

    def embeddings(self, ids: Sequence[int]) -> Float32Array | None:
        """The embeddings at these ids, shape ``[len(ids), dimension]``; none where one of them, or all, is missing."""
        found = {}
        for low in range(0, len(ids), READ_CHUNKS):
            for record in self._retrieve(ids[low : low + READ_CHUNKS], [EMBEDDING]):
                found[record.id] = record.vector[EMBEDDING]  # type: ignore[index, call-overload]
        if len(found) < len(set(ids)):
            return None
        return np.array([found[id] for id in ids], dtype=np.float32).reshape(-1, self.dimension)

    def statistics(self, uids: IntArray, counts: IntArray) -> Statistics:
        """The statistics of documents of ``counts`` chunks. Raises :class:`~index.errors.StorageUnavailable`."""
        parts = [part for parts in self._summaries_of(uids, counts) for part in parts]
        tokens = np.concatenate([part.tokens for part in parts])
        frequencies = np.bincount(tokens, np.concatenate([part.frequencies for part in parts]))
        return Statistics(
            frequencies.astype(np.int64),
            sum(part.length for part in parts),
            max(part.longest for part in parts),
            max(part.norm for part in parts),
        )

    def _summaries_of(self, uids: IntArray, counts: IntArray) -> Iterator[tuple[Summary, ...]]:
        for low in range(0, len(uids), READ_DOCUMENTS):
            block = dict(zip(uids[low : low + READ_DOCUMENTS].tolist(), counts[low:].tolist(), strict=False))
            found = {uid: parts for uid in block if (parts := self._summaries.get(uid)) is not None}
            stored = self._scroll_summaries([uid for uid in block if uid not in found])
            for uid, of_document in stored.items():
                found[uid] = self._covering(uid, of_document, block[uid])
                self._summaries.put(uid, found[uid])
            yield from found.values()

    def _scroll_summaries(self, uids: Sequence[int]) -> dict[int, dict[int, Summary]]:
        """What is stored of each document, by the number of its first chunk."""
        stored: dict[int, dict[int, Summary]] = {uid: {} for uid in uids}
        condition = models.Filter(must=[models.FieldCondition(key="document", match=models.MatchAny(any=list(uids)))])
        offset: int | None = None
        while uids:

            def scroll(
                client: QdrantClient, seconds: int, after: int | None = offset
            ) -> tuple[list[models.Record], object]:
                return client.scroll(
                    self.name,
                    scroll_filter=condition,
                    limit=READ_CHUNKS,
                    offset=after,
                    with_payload=True,
                    consistency=self.connection.read_consistency,
                    timeout=seconds,
                )

            try:
                records, following = self.calls.make("read", scroll)
            except MissingSpace as error:
                raise _gone() from error
            for record in records:
                payload = record.payload or {}
                summary = read_summary(payload)
                stored[payload["document"]][summary.first] = summary
            if following is None:
                break
            offset = int(following)  # type: ignore[call-overload]
        return stored

    def _covering(self, uid: int, stored: dict[int, Summary], count: int) -> tuple[Summary, ...]:
        """The summaries that follow each other through a document.

        They do not where a writer that had lost its work wrote late. Then the chunks themselves are counted.
        """
        parts: list[Summary] = []
        first = 0
        while first < count and (part := stored.get(first)) is not None:
            parts.append(part)
            first += part.chunks
        if first == count:
            return tuple(parts)
        counted = []
        for low in range(0, count, READ_CHUNKS):
            numbers = np.arange(low, min(low + READ_CHUNKS, count))
            chunks = self.chunks(point_ids(np.full(len(numbers), uid), numbers))
            embeddings = np.stack([chunk.embedding for chunk in chunks])
            counted.append(summarise(low, embeddings, [chunk.bag for chunk in chunks]))
        return tuple(counted)

    def _retrieve(self, ids: Sequence[int], vectors: Sequence[str]) -> list[models.Record]:
        def retrieve(client: QdrantClient, seconds: int) -> list[models.Record]:
            return client.retrieve(
                self.name,
                ids,
                with_payload=["length"],
                with_vectors=list(vectors),
                consistency=self.connection.read_consistency,
                timeout=seconds,
            )

        return self.calls.make("read", retrieve)


def _gone() -> StorageUnavailable:
    return StorageUnavailable(
        "chunks were removed from Qdrant while they were searched: ask again, and see that nothing but this service "
        "writes to its collections"
    )
