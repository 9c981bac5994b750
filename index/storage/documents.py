"""What a catalogue says about documents: values that every storage engine shares."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Any, NamedTuple

from index.arrays import IntArray
from index.chunking import Chunk
from qrag.wire.chunking import Chunking
from qrag.wire.documents import Status


class Place(NamedTuple):
    """Where the text from a character on stands in the file that it was read from."""

    start: int
    location: Mapping[str, Any]
    """The fields of :class:`qrag.wire.documents.Location` that are known."""


def heading(title: str | None, location: Mapping[str, Any]) -> str:
    """What stands above a chunk: the document's title and the path of headings, the highest first."""
    headings: Sequence[str] = location.get("headings", ())
    return " > ".join([*([title] if title and title not in headings[:1] else []), *headings])


@dataclass(frozen=True, slots=True)
class Description:
    """What an upload says about its text; without an ``id``, one is derived from the content."""

    id: str | None
    collection: str
    title: str | None
    metadata: Mapping[str, Any]
    chunking: Chunking
    warnings: tuple[str, ...] = ()
    """What was left out of the text, in words."""
    places: Iterable[Place] = ()
    """Where the parts of the text stand in the file that it was read from, in order; iterated more than once."""


@dataclass(frozen=True, slots=True)
class Replacement:
    """How far the version is that takes a document's place once it is ready."""

    status: Status
    progress: float
    error: str | None


@dataclass(frozen=True, slots=True)
class Document:
    """One version of a document. ``progress`` is the share of its chunks that are embedded."""

    uid: int
    id: str
    collection: str
    title: str | None
    metadata: Mapping[str, Any]
    chunking: Chunking
    sha256: str
    characters: int
    bytes: int
    status: Status
    progress: float
    error: str | None
    chunks: int | None
    tokens: int | None
    created_at: datetime
    updated_at: datetime
    warnings: tuple[str, ...] = ()
    replaces: int | None = None
    """The ``uid`` of the version that is searched until this one is ready, if there is one."""
    replacement: Replacement | None = None
    """The version that waits to take this one's place, if there is one."""


def metadata_text(metadata: Mapping[str, Any]) -> str:
    """Metadata as JSON: equal metadata is equal text."""
    return json.dumps(metadata, sort_keys=True, ensure_ascii=False)


def content_of(about: Description | Document, sha256: str) -> dict[str, Any]:
    """What two uploads of the same content have in common; ``sha256`` is that of their text."""
    return {
        "collection": about.collection,
        "title": about.title,
        "metadata": metadata_text(about.metadata),
        "mode": about.chunking.mode,
        "max_tokens": about.chunking.max_tokens,
        "sha256": sha256,
    }


def derived_id(content: Mapping[str, Any]) -> str:
    """The id of a document that was given none: a repeated request does not make a second copy."""
    return f"doc-{hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:24]}"


DESCRIPTION = ("title", "metadata")
"""What of a document's content can be changed in place."""


def is_same(stored: Mapping[str, Any], content: Mapping[str, Any], *, named: bool) -> bool:
    """Whether an upload's ``content`` is that of a stored document, whose id the uploader has ``named`` or not.

    An id that is derived from the content is that of what was uploaded first, whatever its description is now.
    """
    return all(stored[name] == value for name, value in content.items() if named or name not in DESCRIPTION)


class Published(NamedTuple):
    """A document after publication; ``created`` is false where it existed already."""

    document: Document
    created: bool


@dataclass(frozen=True, slots=True)
class CollectionSize:
    """What a collection holds; ``bytes`` counts the texts in UTF-8."""

    name: str
    documents: int
    chunks: int
    bytes: int


class StoredChunk(NamedTuple):
    """Chunk ``number`` of a document: its range and its text."""

    number: int
    chunk: Chunk
    text: str
    heading: str
    """What stands above it (:func:`heading`); empty for nothing."""
    location: Mapping[str, Any] = MappingProxyType({})
    """Where it begins in the file that the document was read from, as :class:`Place` has it; empty where unknown."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """The documents that a request may search, in order of arrival; two arrays of one shape ``[documents]``."""

    uids: IntArray
    """Increasing."""
    counts: IntArray
    """Chunks of each document, at least one."""
