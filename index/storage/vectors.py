"""What a vector store says about embeddings: values that every storage engine shares."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

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

    def address(self, position: int) -> ChunkAddress:
        """The chunk at a position of the candidate axis."""
        document = self.scope.document_of(position)
        return ChunkAddress(int(self.uids[document]), position - int(self.scope.offsets[document]))
