"""Expectations resolved: which chunks of the service would count as finding each expected piece."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from qrag.evaluation.library import ChunkKey, Document, Library
from qrag.wire.checks.questions import Expected, Question


@dataclass(frozen=True, slots=True)
class Resolved:
    """A question, and for each expected piece the chunks any one of which finds it."""

    question: Question
    library: Library
    targets: Sequence[frozenset[ChunkKey]]
    """Empty for a piece that nothing can find."""
    unresolved: Sequence[str]
    """What could not be resolved, in words; also an alternative beside one that could."""

    def found_at(self, chunks: Sequence[ChunkKey]) -> list[int | None]:
        """The rank, from 1, at which each expected piece is found among chunks in the order of their selection."""
        return [next((rank for rank, key in enumerate(chunks, 1) if key in target), None) for target in self.targets]


def resolve(question: Question, library: Library) -> Resolved:
    """Resolve what a question expects against the documents of its collection."""
    targets: list[frozenset[ChunkKey]] = []
    unresolved: list[str] = []
    for alternatives in question.expected or ():
        target: frozenset[ChunkKey] = frozenset()
        for expected in alternatives:
            try:
                target |= _chunks(expected, library)
            except LookupError as error:
                unresolved.append(str(error.args[0]))
        targets.append(target)
    return Resolved(question, library, targets, unresolved)


def _chunks(expected: Expected, library: Library) -> frozenset[ChunkKey]:
    """The chunks that find an expected piece. Raises :class:`LookupError` with the reason where there are none."""
    documents = list(_documents(expected, library))
    if not documents:
        name = expected.document_id or expected.title
        if name is not None and name in library.unready:
            raise LookupError(f"{expected.document()} cannot be searched yet")
        where = expected.document() or "document that can be searched"
        raise LookupError(f"{expected.words()}: there is no {where} in collection {library.collection}")
    keys = frozenset[ChunkKey]().union(*(chunks_of(document, expected) for document in documents))
    if keys:
        return keys
    if expected.start is not None:
        characters = max(document.characters for document in documents)
        raise LookupError(f"{expected.words()}: no chunk is there, the text has {characters} characters")
    if expected.page is not None:
        raise LookupError(f"{expected.words()}: no chunk begins on such a page")
    place = expected.document() or f"collection {library.collection}"
    raise LookupError(f"{expected.words()}: the passage does not stand in {place}")


def _documents(expected: Expected, library: Library) -> Iterator[Document]:
    if expected.document_id is not None:
        if expected.document_id in library.documents:
            yield library.documents[expected.document_id]
        return
    for document in library.documents.values():
        if is_meant(document, expected):
            yield document


def is_meant(document: Document, expected: Expected) -> bool:
    """Whether an expected piece can be in a document: it names this one, or none."""
    if expected.document_id is not None:
        return document.id == expected.document_id
    return expected.title is None or document.title == expected.title


def chunks_of(document: Document, expected: Expected) -> frozenset[ChunkKey]:
    """The chunks of a document that find an expected piece there."""
    if expected.text is not None:
        return document.keys(document.passages(expected.text))
    if expected.start is not None and expected.end is not None:
        return document.keys(document.borders.holding(expected.start, expected.end))
    return document.every if expected.page is None else document.keys(document.on_page(expected.page))
