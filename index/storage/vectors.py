"""What a vector store says about embeddings: values that every storage engine shares."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from index.arrays import IntArray
from index.search.scope import Scope


class Space(NamedTuple):
    """The vectors of one action tower, whose weights have this fingerprint and whose embeddings this dimension.

    A number is never used again, so late work for a space that was dropped finds none.
    """

    number: int
    fingerprint: str
    dimension: int


class Unembedded(NamedTuple):
    """A searchable document with ``chunks`` chunks, of which a space has the first ``embedded``."""

    uid: int
    chunks: int
    embedded: int


class EngineCalls(NamedTuple):
    """The calls of one kind to an engine beyond this process: how many, and how long they took together."""

    kind: str
    calls: int
    seconds: float


class ChunkAddress(NamedTuple):
    """Chunk ``number`` of the document ``uid``."""

    uid: int
    number: int


class Unbagged(NamedTuple):
    """Chunks that a space has vectors of and no bags; ``batch`` is the engine's own number for them."""

    batch: int
    rows: Sequence[ChunkAddress | None]
    """None for what was deleted meanwhile."""


@dataclass(frozen=True)
class SearchScope:
    """A scope, and whose chunks its candidate axis holds: document ``d`` of it is ``uids[d]``."""

    scope: Scope
    uids: IntArray
    """Increasing."""

    def address(self, position: int) -> ChunkAddress:
        """The chunk at a position of the candidate axis."""
        document = self.scope.document_of(position)
        return ChunkAddress(int(self.uids[document]), position - int(self.scope.offsets[document]))

    def position(self, address: ChunkAddress) -> int | None:
        """The position of a chunk on the candidate axis; none where it is not there."""
        document = int(np.searchsorted(self.uids, address.uid))
        if document == len(self.uids) or self.uids[document] != address.uid:
            return None
        first, end = self.scope.offsets[document : document + 2].tolist()
        return first + address.number if address.number < end - first else None
