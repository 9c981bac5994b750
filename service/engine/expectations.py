"""What the questions of a gate expect, as the chunks of this service that would count as finding it."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from index.storage.documents import Document as StoredDocument
from index.storage.protocols import Catalogue
from qrag.evaluation.library import ChunkKey, Document
from qrag.evaluation.resolving import chunks_of, is_meant
from qrag.wire.checks.gates import GateIn
from qrag.wire.checks.questions import Alternatives
from qrag.wire.documents import ChunkOut, Location

PAGE = 1000
"""Documents, and chunks, that are read at once."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A question of a gate, and for each expected piece the chunks any one of which finds it, document by document."""

    id: str
    question: str
    collection: str
    pieces: list[list[frozenset[ChunkKey]]]

    def share(self, chunks: Collection[ChunkKey]) -> float:
        """The share of the pieces that are found among the chunks."""
        found = sum(any(key in target for target in targets for key in chunks) for targets in self.pieces)
        return found / len(self.pieces)


def resolve(gate: GateIn, catalogue: Catalogue) -> list[Asked]:
    """The questions with what they expect, resolved against the documents that can be searched.

    A piece that stands nowhere has no chunks. Each document is read once, and let go before the next.
    """
    asked = [
        Asked(id, question.question, question.collection or gate.collection, [[] for _ in question.expected])
        for id, question in zip(gate.ids, gate.questions, strict=True)
    ]
    for collection in {one.collection for one in asked}:
        expecting = [
            (alternatives, targets)
            for one, question in zip(asked, gate.questions, strict=True)
            if one.collection == collection
            for alternatives, targets in zip(question.expected, one.pieces, strict=True)
        ]
        for stored in _documents(catalogue, collection):
            _resolve_in(stored, catalogue, expecting)
    return asked


def _resolve_in(
    stored: StoredDocument,
    catalogue: Catalogue,
    expecting: Sequence[tuple[Alternatives, list[frozenset[ChunkKey]]]],
) -> None:
    """Add a document's chunks to the targets of those pieces that it can hold."""
    unread = Document(stored.id, stored.title, stored.characters, [])
    meant = [
        (expected, targets)
        for alternatives, targets in expecting
        for expected in alternatives
        if is_meant(unread, expected)
    ]
    if not meant:
        return
    document = Document(stored.id, stored.title, stored.characters, list(_chunks(catalogue, stored.uid)))
    for expected, targets in meant:
        if keys := chunks_of(document, expected):
            targets.append(keys)


def _documents(catalogue: Catalogue, collection: str) -> Iterator[StoredDocument]:
    after = 0
    while page := catalogue.documents([collection], after=after, limit=PAGE):
        yield from (document for document in page if document.status == "ready")
        after = page[-1].uid


def _chunks(catalogue: Catalogue, uid: int) -> Iterator[ChunkOut]:
    first = 0
    while page := catalogue.chunks(uid, first=first, limit=PAGE):
        for stored in page:
            yield ChunkOut(
                index=stored.number,
                start=stored.chunk.start,
                end=stored.chunk.end,
                tokens=stored.chunk.tokens,
                text=stored.text,
                location=Location.model_validate(stored.location),
            )
        first += len(page)
