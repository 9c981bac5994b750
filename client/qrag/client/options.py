"""The keyword arguments of both clients beside a text or a question."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, TypedDict

from pydantic import JsonValue

from qrag.wire.chunking import Chunking, Mode
from qrag.wire.documents import ChunkReference, DocumentOut
from qrag.wire.filters import Filter, LocationFilter
from qrag.wire.retrieval import SelectedChunk
from qrag.wire.rules import Stop

DocumentProgress = Callable[[DocumentOut], None]
"""A function that is called with a document each time it has been polled."""

UploadProgress = Callable[[int, int | None], None]
"""A function that is called with the bytes sent so far and the length of the file, None where it is unknown.

Where an upload is repeated, the bytes sent count from 0 again.
"""


class DocumentOptions(TypedDict, total=False):
    """The description of a document; options that are left out or None have the service's defaults."""

    id: str | None
    """Default: derived from the content."""
    title: str | None
    collection: str | None
    metadata: Mapping[str, JsonValue] | None
    chunking: Chunking | Mode | None


class DocumentChanges(TypedDict, total=False):
    """What to change of a document; options that are left out stay as they are."""

    title: str | None
    metadata: Mapping[str, JsonValue]


class BatchOptions(TypedDict, total=False):
    """Where and how to search for all questions; options that are left out or None have the service's defaults."""

    collection: str | None
    document_ids: Sequence[str] | None
    filter: Filter | Mapping[str, JsonValue] | None
    location: LocationFilter | Mapping[str, JsonValue] | None
    max_total_chunks: int | None
    max_steps: int | None
    stop: Stop | None
    rerank: int | None
    max_context_tokens: int | None
    order: Literal["document", "selection"] | None
    decompose: bool | None
    """Let the service's language model split questions that join several."""


class RetrieveOptions(TypedDict, total=False):
    """Where and how to search; options that are left out or None have the service's defaults."""

    collection: str | None
    document_ids: Sequence[str] | None
    filter: Filter | Mapping[str, JsonValue] | None
    location: LocationFilter | Mapping[str, JsonValue] | None
    """For example ``{"field": "year", "gte": 1990}``."""
    focus: str | None
    """A sub-question on the way to the question, for this call alone."""
    given: Sequence[ChunkReference | SelectedChunk] | None
    """Chunks that you hold already."""
    exclude: Sequence[ChunkReference | SelectedChunk] | None
    """Chunks that you do not want."""
    continuation: str | None
    """That of an answer, to go on from there; the question may be left out."""
    max_total_chunks: int | None
    max_steps: int | None
    stop: Stop | None
    beam_width: int | None
    rerank: int | None
    max_context_tokens: int | None
    order: Literal["document", "selection"] | None
    trace: bool
    heatmap: int | None
    decompose: bool | None
    """Let the service's language model split a question that joins several."""


class AnswerOptions(RetrieveOptions, total=False):
    """The same, and how to write; options that are left out or None are up to the language model."""

    max_answer_tokens: int | None
    temperature: float | None
