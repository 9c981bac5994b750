"""The documents and chunks that the service has, fetched once: what expectations are resolved against."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

from qrag import Client
from qrag.wire.documents import ChunkOut

ChunkKey = tuple[str, int]
"""A chunk: the id of its document, and its index there."""


@dataclass(frozen=True, slots=True)
class Borders:
    """Where the chunks of a document start and end, in characters; they do not overlap."""

    starts: Sequence[int]
    ends: Sequence[int]

    def holding(self, start: int, end: int) -> Iterator[int]:
        """The chunks that share at least half of the shorter of themselves and the characters start to end."""
        for index in range(bisect_right(self.ends, start), len(self.starts)):
            if self.starts[index] >= end:
                return
            shared = min(end, self.ends[index]) - max(start, self.starts[index])
            if 2 * shared >= min(end - start, self.ends[index] - self.starts[index]):
                yield index


@dataclass(frozen=True)
class Document:
    """A document that can be searched."""

    id: str
    title: str | None
    characters: int
    chunks: Sequence[ChunkOut]

    def keys(self, indices: Iterable[int]) -> frozenset[ChunkKey]:
        """The chunks at these indices."""
        return frozenset((self.id, index) for index in indices)

    @cached_property
    def every(self) -> frozenset[ChunkKey]:
        """All of its chunks."""
        return self.keys(range(len(self.chunks)))

    @cached_property
    def borders(self) -> Borders:
        """The chunks in the text as it is."""
        return Borders([chunk.start for chunk in self.chunks], [chunk.end for chunk in self.chunks])

    @cached_property
    def folded(self) -> tuple[str, Borders]:
        """The text with one blank for any run of white space, and the chunks in it.

        Between chunks there is nothing but white space.
        """
        pieces: list[str] = []
        end = 0
        for chunk in self.chunks:
            pieces += [" " if chunk.start > end and pieces else "", fold(chunk.text)]
            end = chunk.end
        offsets = list(accumulate(map(len, pieces)))
        return "".join(pieces), Borders(offsets[0::2], offsets[1::2])

    def passages(self, passage: str) -> Iterator[int]:
        """The chunks that hold a passage, wherever it stands; white space counts as one blank."""
        text, borders = self.folded
        folded = fold(passage)
        start = text.find(folded)
        while start >= 0:
            yield from borders.holding(start, start + len(folded))
            start = text.find(folded, start + 1)

    def on_page(self, page: int | str) -> Iterator[int]:
        """The chunks that begin on a page, by its number, or by what the file calls it."""
        for index, chunk in enumerate(self.chunks):
            if page == (chunk.location.page if isinstance(page, int) else chunk.location.label):
                yield index


@dataclass(frozen=True, slots=True)
class Library:
    """The documents of a collection, by their ids, and those that cannot be searched yet."""

    collection: str
    documents: Mapping[str, Document]
    unready: frozenset[str]
    """Ids and titles."""

    def chunk(self, key: ChunkKey) -> tuple[Document, ChunkOut]:
        """A chunk and its document. Raises :class:`LookupError` where it was not there when all was fetched."""
        document = self.documents[key[0]]
        return document, document.chunks[key[1]]


def fetch(client: Client, collection: str) -> Library:
    """Fetch a collection; empty where there is none of the name."""
    documents: dict[str, Document] = {}
    unready: set[str] = set()
    for entry in list(client.documents(collection=collection)):
        if entry.status == "ready":
            documents[entry.id] = Document(entry.id, entry.title, entry.characters, list(client.chunks(entry.id)))
        else:
            unready |= {entry.id, entry.title or entry.id}
    return Library(collection, documents, frozenset(unready))


def fold(text: str) -> str:
    """A text with one blank for any run of white space, and none around it."""
    return " ".join(text.split())
