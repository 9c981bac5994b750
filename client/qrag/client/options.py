"""What can be said beside a text or a question: keyword arguments of both clients."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, TypedDict

from pydantic import JsonValue

from qrag.wire.chunking import Chunking, Mode
from qrag.wire.documents import DocumentOut
from qrag.wire.filters import Filter
from qrag.wire.retrieval import Stop

DocumentProgress = Callable[[DocumentOut], None]
"""Is given a document each time it has been looked at."""

UploadProgress = Callable[[int, int | None], None]
"""Is given the bytes sent so far, from 0 again where an upload is repeated; and how many there are, if it is known."""


class DocumentOptions(TypedDict, total=False):
    """About a document; what is left out, or none, is as the service has it by default."""

    id: str | None
    """By default derived from the content."""
    title: str | None
    collection: str | None
    metadata: Mapping[str, JsonValue] | None
    chunking: Chunking | Mode | None


class RetrieveOptions(TypedDict, total=False):
    """Where and how to look; what is left out, or none, is as the service has it by default."""

    collection: str | None
    document_ids: Sequence[str] | None
    filter: Filter | Mapping[str, JsonValue] | None
    """For example ``{"field": "year", "gte": 1990}``."""
    max_steps: int | None
    stop: Stop | None
    beam_width: int | None
    max_context_tokens: int | None
    order: Literal["document", "selection"] | None
    trace: bool
    heatmap: int | None
