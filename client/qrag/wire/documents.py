"""Documents, their chunks and collections, as they cross HTTP."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, JsonValue, StringConstraints

from qrag.wire import examples
from qrag.wire.chunking import Chunking
from qrag.wire.models import RequestModel, ResponseModel, whole_number
from qrag.wire.names import CollectionName, DocumentId

Status = Literal["queued", "indexing", "ready", "failed"]
"""The state of a document's indexing."""

METADATA_BYTES = 16_384
"""Most bytes of a document's metadata as JSON."""

METADATA_LEVELS = 64
"""Most levels of objects and lists in it."""

FILE_FIELDS = "file_fields"
"""The field of metadata in which the service notes what a file says of itself, for senders that ask for it."""

Title = Annotated[str, StringConstraints(max_length=1000)]
"""The title of a document."""


def _check_metadata(metadata: dict[str, JsonValue]) -> dict[str, JsonValue]:
    try:
        text = json.dumps(metadata, allow_nan=False, ensure_ascii=False).encode("utf-8")
    except ValueError as error:
        raise ValueError("metadata must be plain JSON: no NaN, no infinity, no lone surrogates") from error
    if _levels(metadata) > METADATA_LEVELS:
        raise ValueError(f"metadata may have at most {METADATA_LEVELS} levels of objects and lists")
    if len(text) > METADATA_BYTES:
        raise ValueError(f"metadata may have at most {METADATA_BYTES} bytes as JSON")
    return metadata


def _levels(metadata: JsonValue) -> int:
    """How deep objects and lists are nested."""
    level, depth = [metadata], 0
    while level := [node for node in level if isinstance(node, dict | list)]:
        level = [member for node in level for member in (node.values() if isinstance(node, dict) else node)]
        depth += 1
    return depth


Metadata = Annotated[dict[str, JsonValue], AfterValidator(_check_metadata)]
"""A JSON object of at most :data:`METADATA_BYTES` bytes and :data:`METADATA_LEVELS` levels."""


class ChunkReference(RequestModel):
    """A chunk, by its document and its number there."""

    document_id: DocumentId
    index: Annotated[int, Field(ge=0, le=1_000_000_000), BeforeValidator(whole_number)]


class DocumentFields(RequestModel):
    """The description of a document: all but its text."""

    id: DocumentId | None = None
    title: Title | None = None
    collection: CollectionName = "default"
    metadata: Metadata = Field(
        default_factory=dict, description="a JSON object, for you and for filters, which look at its top-level fields"
    )
    chunking: Chunking = Chunking()


class DocumentIn(DocumentFields):
    """One document as JSON."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": "minutes-2024-03",
                    "title": "Minutes, March 2024",
                    "text": "Ana signed the lease. The office moved to Lisbon in May.",
                    "metadata": {"year": 2024, "tags": ["minutes"]},
                }
            ]
        }
    )

    text: str


class DocumentsIn(RequestModel):
    """Many documents as JSON."""

    documents: list[DocumentIn] = Field(min_length=1)


class DocumentPatch(RequestModel):
    """A change of a document's description, as a merge patch (RFC 7396)."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"metadata": {"year": 2025, "draft": None}}]})

    title: Title | None = Field(None, description="in place of the present one; null removes it")
    metadata: Metadata = Field(
        default_factory=dict, description="fields to set; a field that is null is removed, an object is merged"
    )


class Location(ResponseModel):
    """Where text stands in the file that a document was read from; what the format does not know is empty."""

    page: int | None = Field(None, description="number of the page or slide, from 1")
    label: str | None = Field(None, description="what the file calls the page, where it is not its number")
    headings: list[str] = Field(default_factory=list, description="the headings above it, the highest first")
    sheet: str | None = Field(None, description="name of the sheet of a workbook")
    row: int | None = Field(None, description="number of the row, record or line, from 1")

    def words(self) -> str:
        """The place in words, as contexts and tables show it; empty where nothing is known."""
        page = self.label or (None if self.page is None else str(self.page))
        parts = [
            *([f"page {page}"] if page else []),
            *([f"sheet {self.sheet}"] if self.sheet else []),
            *([f"row {self.row}"] if self.row is not None else []),
            *([" > ".join(self.headings)] if self.headings else []),
        ]
        return ", ".join(parts)


class ReplacementOut(ResponseModel):
    """How far the content is that takes a document's place once it can be searched."""

    status: Status
    progress: float = Field(ge=0, le=1, description="share of the chunks that are embedded")
    error: str | None = Field(description="why indexing failed, or what it waits for")


class DocumentOut(ResponseModel):
    """A document resource."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.DOCUMENT]})

    id: str
    title: str | None
    collection: str
    metadata: dict[str, JsonValue]
    chunking: Chunking
    status: Status
    progress: float = Field(ge=0, le=1, description="share of the chunks that are embedded")
    chunks: int | None = Field(description="number of chunks; null until the document is cut")
    tokens: int | None = Field(description="tokens of all chunks; null until the document is cut")
    characters: int
    sha256: str = Field(description="of the document's text in UTF-8")
    error: str | None = Field(description="why indexing failed")
    warnings: list[str] = Field(
        default_factory=list, description="what was left out of the text: pages without any, pictures, attachments"
    )
    replacement: ReplacementOut | None = Field(
        None, description="newer content, not searchable yet; one that failed leaves the document as it is"
    )
    created_at: datetime
    updated_at: datetime


class DocumentsOut(ResponseModel):
    """Documents that were posted together."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"documents": [examples.DOCUMENT]}]})

    documents: list[DocumentOut]


class DocumentPage(ResponseModel):
    """One page of documents in order of arrival."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"documents": [examples.DOCUMENT], "next_cursor": "1"}]})

    documents: list[DocumentOut]
    next_cursor: str | None = Field(description="pass as `cursor` for the next page; null on the last")


class ChunkOut(ResponseModel):
    """A chunk: `text` is `document[start:end]`, counted in Unicode characters."""

    index: int
    start: int
    end: int
    tokens: int
    text: str
    location: Location = Field(default_factory=Location, description="where it begins in the file")


class ChunkPage(ResponseModel):
    """One page of a document's chunks."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.CHUNKS]})

    document_id: str
    chunks: list[ChunkOut]
    next_cursor: str | None = Field(description="pass as `cursor` for the next page; null on the last")


class CollectionOut(ResponseModel):
    """What a collection holds; `bytes` counts its texts in UTF-8."""

    name: str
    documents: int
    chunks: int
    bytes: int


class CollectionsOut(ResponseModel):
    """Every collection that holds a document."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.COLLECTIONS]})

    collections: list[CollectionOut]
