"""What a distributed storage needs of an engine that keeps vectors and searches them, such as Qdrant.

A *point* is a chunk's vector and bag. It stands in a space, and its place there follows from the document and the
number of the chunk, so storing it again overwrites it. The engine decides nothing: which documents exist, how many of
their first chunks a space has, and what a search may see, is said by the catalogue, whose transactions are committed
*after* points were stored and *before* points are removed. So there may be points that nobody counts, after a crash
between the two; they are overwritten or removed later, and no search may show them meanwhile.

Every call may raise :class:`~index.errors.StorageUnavailable`. Its effect is unknown then, and it can be repeated. All
calls are safe from many threads and many processes.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from index.arrays import Float32Array, IntArray, TokenIds
from index.search.scope import Scope
from index.storage.vectors import ChunkAddress, EngineCalls, Space

WRITE_SECONDS = 60.0
"""A call of :meth:`Points.upsert` that takes longer is given up, and has no effect from then on: points of deleted
documents are removed once that has passed since their deletion."""


class PointDocument(NamedTuple):
    """The document that points belong to. None of this ever changes while the points are there."""

    uid: int
    collection: str
    chunks: int
    """Chunks of the whole document: a chunk's place in it is its number among these."""


@dataclass(frozen=True, slots=True)
class Membership:
    """The documents that a scope holds; two arrays of one shape ``[documents]``, in order of arrival.

    Equivalent conditions for an engine that would rather not be given thousands of ``uids``: where ``hidden`` is not
    none, the documents are exactly those points of the ``collection`` whose ``uid`` is at most the last of ``uids``
    and not one of ``hidden``.
    """

    collection: str
    uids: IntArray
    """Increasing."""
    counts: IntArray
    """Chunks of each document, at least one; all of them have points, numbered from 0."""
    hidden: IntArray | None
    """Documents of the collection that may have points and are not searched: those on their way in, and deleted ones.
    Increasing. None where the scope is narrowed, so that ``uids`` have to be named."""


class Points(Protocol):
    """Vectors and bags of chunks, in spaces."""

    def open(self, space: Space) -> None:
        """Make a space that holds nothing yet; does nothing where it is there."""

    def spaces(self) -> Collection[int]:
        """The numbers of the spaces that are there."""

    def drop(self, number: int) -> None:
        """Remove a space with all its points; does nothing where it is not there."""

    def upsert(
        self,
        space: Space,
        documents: Sequence[PointDocument],
        rows: Sequence[ChunkAddress],
        vectors: Float32Array,
        bags: Sequence[TokenIds],
    ) -> None:
        """Store chunks with their vectors, shape ``[len(rows), space.dimension]``, and bags; at least one.

        ``documents`` names each document of the rows once. When this returns the points are durable, and any search
        from any process can see them. Does nothing where the space was dropped.
        """

    def delete(self, uids: Collection[int]) -> None:
        """Remove the points of documents from every space."""

    def rows(self, space: Space, uid: int, numbers: IntArray) -> Float32Array | None:
        """The vectors of some chunks of a document, shape ``[len(numbers), d]``, as they were stored, to the bit.

        None where one of them, or the space, is missing.
        """

    def scope(self, space: Space, membership: Membership) -> Scope:
        """The candidate axis of these documents, laid end to end. It reads points when it is searched, not now.

        Its calls raise :class:`~index.errors.StorageUnavailable`, also where points that they need were removed
        meanwhile.
        """

    def called(self) -> Sequence[EngineCalls]:
        """The calls that this process has made."""

    def close(self) -> None:
        """Release connections. Idempotent."""
