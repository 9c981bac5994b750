"""What goes over the wire about documents and the service itself, and problems; see also
:mod:`service.retrieval_schemas`."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    StringConstraints,
)

from index.chunking import Chunking
from index.documents import CollectionSize, Document, Status
from index.rules import Rule
from service import examples
from service.names import CollectionName, DocumentId

METADATA_BYTES = 16_384

Title = Annotated[str, StringConstraints(max_length=1000)]


def _check_metadata(metadata: dict[str, JsonValue]) -> dict[str, JsonValue]:
    try:
        text = json.dumps(metadata, allow_nan=False, ensure_ascii=False).encode("utf-8")
    except ValueError as error:
        raise ValueError("metadata must be plain JSON: no NaN, no infinity, no lone surrogates") from error
    if len(text) > METADATA_BYTES:
        raise ValueError(f"metadata may have at most {METADATA_BYTES} bytes as JSON")
    return metadata


Metadata = Annotated[dict[str, JsonValue], AfterValidator(_check_metadata)]


class RequestModel(BaseModel):
    """What comes in: nothing unknown, nothing converted."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class ResponseModel(BaseModel):
    """What goes out."""

    model_config = ConfigDict(frozen=True)


class DocumentFields(RequestModel):
    """What can be said about a document beside its text."""

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
    created_at: datetime
    updated_at: datetime

    @classmethod
    def of(cls, document: Document) -> DocumentOut:
        """The resource that shows a stored document."""
        return cls.model_validate(document, from_attributes=True)


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

    @classmethod
    def of(cls, size: CollectionSize) -> CollectionOut:
        """The resource that shows a collection."""
        return cls.model_validate(size, from_attributes=True)


class CollectionsOut(ResponseModel):
    """Every collection that holds a document."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.COLLECTIONS]})

    collections: list[CollectionOut]


class StoppingOut(ResponseModel):
    """What the checkpoint was calibrated for."""

    rules: list[Rule] = Field(description="those a request may name without a threshold")
    default_rule: Rule
    step_cost: float = Field(description="the default")
    budget: int = Field(description="most selections of the episodes that it was calibrated on")


class ModelOut(ResponseModel):
    """The loaded checkpoint and the limits that follow from it."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.MODEL]})

    name: str
    checkpoint: str = Field(description="what it is called in /admin/checkpoints")
    base_model: str
    dimension: int
    device: str
    positions: dict[str, Any]
    stopping: StoppingOut | None = Field(description="null where the checkpoint was not calibrated")
    max_question_tokens: int
    max_chunk_tokens: int
    max_state_tokens: int
    max_steps: int
    max_beam_width: int
    max_body_bytes: int
    training: dict[str, Any] | None


class CheckpointIn(RequestModel):
    """Which checkpoint should be served."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"checkpoint": "tuned-on-minutes"}]})

    checkpoint: str = Field(min_length=1, max_length=255, description="a folder's name, or `configured`")


class CheckpointChangeOut(ResponseModel):
    """A change under way, or one that failed."""

    checkpoint: str
    state: Literal["loading", "embedding", "failed"]
    progress: float | None = Field(description="share of all chunks that are embedded; null unless embedding")
    error: str | None


class CheckpointsOut(ResponseModel):
    """What is served, what could be, and the change between them."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.CHECKPOINTS]})

    served: str
    available: list[str] = Field(description="folders of QRAG_CHECKPOINTS_DIR, and `configured` for QRAG_CHECKPOINT")
    change: CheckpointChangeOut | None
    vector_sets: int = Field(description="2 while the vectors of another checkpoint are being made, or kept")


class Health(ResponseModel):
    """The process answers."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"status": "ok"}]})

    status: Literal["ok"] = "ok"


class Readiness(ResponseModel):
    """The model is loaded and the store is open."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"status": "ready"}]})

    status: Literal["ready"] = "ready"


class Problem(ResponseModel):
    """An error as RFC 9457 has it; `code` is stable, `detail` says what to do."""

    type: str = Field(examples=["about:blank"])
    title: str
    status: int
    code: str = Field(examples=["unknown_document"])
    detail: str
    errors: list[dict[str, JsonValue]] | None = Field(default=None, description="for invalid requests: where and why")
