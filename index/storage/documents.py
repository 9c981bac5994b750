"""What a catalogue says about documents: values that every storage engine shares."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from index.arrays import IntArray
from index.chunking import Chunk
from qrag.wire.chunking import Chunking
from qrag.wire.documents import Status


@dataclass(frozen=True, slots=True)
class Description:
    """What an upload says about its text; without an ``id``, one is derived from the content."""

    id: str | None
    collection: str
    title: str | None
    metadata: Mapping[str, Any]
    chunking: Chunking


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
    """What stands above it: the document's title; empty for none."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """The documents that a request may search, in order of arrival; two arrays of one shape ``[documents]``."""

    uids: IntArray
    """Increasing."""
    counts: IntArray
    """Chunks of each document, at least one."""
