"""Chunks in batches, as indexing and re-embedding read them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple, TypeVar

from index.storage.protocols import Catalogue

Item = TypeVar("Item")

BATCH_CHUNKS = 1024
"""Chunks tokenised and embedded together: enough to fill batches of equal length."""


class ChunkText(NamedTuple):
    """Chunk ``number`` of the document ``uid``, to be embedded."""

    uid: int
    number: int
    heading: str
    """What stands above it, its document's title; empty for none."""
    text: str


def read_chunks(
    catalogue: Catalogue, uid: int, first: int, end: int, *, block: int, stopped: Callable[[], bool]
) -> Iterator[ChunkText]:
    """Chunks ``first <= number < end`` of a document, read ``block`` at a time.

    Ends early once ``stopped`` returns true, or where the document is deleted meanwhile.
    """
    while first < end and not stopped():
        chunks = catalogue.chunks(uid, first=first, limit=min(block, end - first))
        if not chunks:
            return
        yield from (ChunkText(uid, chunk.number, chunk.heading, chunk.text) for chunk in chunks)
        first += len(chunks)


def batches(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """The items in groups of ``size``; the last one may be smaller."""
    batch: list[Item] = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def one_ahead(items: Iterable[Item]) -> Iterator[Item]:
    """The items; the next one is taken from the iterable before each is yielded."""
    pending: list[Item] = []
    for item in items:
        yield from pending
        pending = [item]
    yield from pending
