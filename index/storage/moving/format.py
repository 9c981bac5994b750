"""What an export holds.

A folder of parts, each with the next documents in order of arrival, and a manifest that is written last::

    part-000001/documents.jsonl   a line for each version of a document (Record)
    part-000001/places.jsonl      where texts stand in the files that they were read from (PlaceLine)
    part-000001/texts.utf8        the texts, one after the other, `bytes` of each record
    part-000001/chunks.npy        start, end and tokens of each chunk of what is ready, int64 [chunks, 3]
    part-000001/vectors.npy       their embeddings, float32 [chunks, dimension]
    part-000001/lengths.npy       how many tokens the bag of each has, int32 [chunks]
    part-000001/tokens.npy        the tokens of the bags, one after the other, int32
    part-000001/part.json         the sizes and checksums of these (Part)
    feedback.jsonl                what people said, in order of arrival (FeedbackLine)
    questions.jsonl               what people asked, as far as it is kept, in order of arrival (QuestionLine)
    manifest.json                 all parts again, and whose vectors these are (Manifest)

Version 1 had no questions.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, AwareDatetime, BaseModel, Field, JsonValue, StringConstraints

from index.storage.documents import Description, Document, Place
from index.storage.feedback import Feedback, JudgedChunk, StoredFeedback
from index.storage.questions import Question, StoredQuestion
from qrag.wire.chunking import Chunking
from qrag.wire.feedback import QuestionId
from qrag.wire.models import FrozenModel
from qrag.wire.names import CollectionName, DocumentId
from qrag.wire.rules import StoppedBy

FORMAT_VERSION = 2
"""The version of the format, which any change of it increases."""

OLDEST_VERSION = 1
"""The first version that is read."""

MANIFEST = "manifest.json"
PART_MANIFEST = "part.json"
FEEDBACK = "feedback.jsonl"
QUESTIONS = "questions.jsonl"
DOCUMENTS = "documents.jsonl"
PLACES = "places.jsonl"
TEXTS = "texts.utf8"
CHUNKS = "chunks.npy"
VECTORS = "vectors.npy"
LENGTHS = "lengths.npy"
TOKENS = "tokens.npy"

PART_FILES = (DOCUMENTS, PLACES, TEXTS, CHUNKS, VECTORS, LENGTHS, TOKENS)
"""The files of a part besides its manifest."""

Count = Annotated[int, Field(ge=0, lt=1 << 48)]
Label = Annotated[str, StringConstraints(pattern=r"^[^\x00]*$")]
"""A text in a column of PostgreSQL, which holds no NUL there."""
Moment = Annotated[
    AwareDatetime,
    Field(ge=datetime(1970, 1, 1, tzinfo=UTC), lt=datetime(9000, 1, 1, tzinfo=UTC)),
    AfterValidator(lambda moment: moment.astimezone(UTC)),
]
"""A time that exists in every time zone: PostgreSQL answers in one of its own."""
Probability = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
PartFile = Literal[
    "documents.jsonl", "places.jsonl", "texts.utf8", "chunks.npy", "vectors.npy", "lengths.npy", "tokens.npy"
]


def part_name(number: int) -> str:
    """The name of a part's folder; the first is 1."""
    return f"part-{number:06d}"


class Checksum(FrozenModel):
    """Size and SHA-256 of a file."""

    bytes: Count
    sha256: Sha256


class Part(FrozenModel):
    """A part: how much it holds, and its files."""

    documents: Count
    chunks: Count
    files: dict[PartFile, Checksum]


class PartManifest(FrozenModel):
    """What a part says of itself, for an export that goes on."""

    fingerprint: str
    dimension: int
    part: Part


class ManifestVersion(BaseModel):
    """The version of a manifest, whatever else a later one says."""

    format: Literal["qrag-export"]
    version: int


class Manifest(FrozenModel):
    """A finished export."""

    format: Literal["qrag-export"] = "qrag-export"
    version: int = FORMAT_VERSION
    fingerprint: str
    """The action tower whose vectors these are."""
    dimension: int = Field(ge=1, le=1 << 16)
    documents: Count
    """Versions of documents: those that wait to take another's place count too."""
    chunks: Count
    feedback_records: Count
    feedback: Checksum
    question_records: Count = 0
    questions: Checksum | None = None
    """None in version 1."""
    properties: dict[str, str]
    """Small texts that belong to the whole storage, by name."""
    parts: list[Part]


class Record(FrozenModel):
    """A version of a document."""

    number: int = Field(ge=1)
    """Grows with the order of arrival; it means nothing outside the export."""
    id: DocumentId
    collection: CollectionName
    title: str | None
    metadata: dict[str, JsonValue]
    chunking: Chunking
    sha256: Sha256
    characters: Count
    bytes: Count
    status: Literal["ready", "queued", "failed"]
    error: str | None
    warnings: tuple[str, ...]
    replaces: int | None
    """The number of the version that is searched until this one is ready."""
    chunks: Count
    """Chunks in the part's arrays, which have what is ready alone."""
    created_at: datetime
    updated_at: datetime

    def description(self, places: list[Place]) -> Description:
        """What an upload of it says."""
        return Description(
            self.id, self.collection, self.title, self.metadata, self.chunking, tuple(self.warnings), places
        )


def record_of(document: Document) -> Record:
    """The record of a version."""
    is_ready, has_failed = document.status == "ready", document.status == "failed"
    return Record(
        number=document.uid,
        id=document.id,
        collection=document.collection,
        title=document.title,
        metadata=dict(document.metadata),
        chunking=document.chunking,
        sha256=document.sha256,
        characters=document.characters,
        bytes=document.bytes,
        status="ready" if is_ready else "failed" if has_failed else "queued",
        error=document.error if has_failed else None,
        warnings=document.warnings,
        replaces=document.replaces,
        chunks=(document.chunks or 0) if is_ready else 0,
        created_at=document.created_at,
        updated_at=document.updated_at,
    )


class PlaceLine(FrozenModel):
    """A place of the version with this number."""

    number: int
    start: Count
    location: dict[str, JsonValue]


class JudgedLine(FrozenModel):
    """A judged chunk of feedback."""

    document_id: DocumentId
    index: Count
    text: str
    helpful: bool


class FeedbackLine(FrozenModel):
    """A record of feedback."""

    id: str
    created_at: datetime
    collection: CollectionName
    question: str
    chunks: tuple[JudgedLine, ...] = Field(min_length=1)
    answer: str | None
    comment: str | None
    checkpoint: Label
    fingerprint: Label

    def feedback(self) -> Feedback:
        """What was said."""
        return Feedback(
            self.collection,
            self.question,
            [JudgedChunk(chunk.document_id, chunk.index, chunk.text, chunk.helpful) for chunk in self.chunks],
            self.answer,
            self.comment,
            self.checkpoint,
            self.fingerprint,
        )


def feedback_line(stored: StoredFeedback) -> FeedbackLine:
    """The line of a record of feedback."""
    said = stored.feedback
    return FeedbackLine(
        id=stored.id,
        created_at=stored.created_at,
        collection=said.collection,
        question=said.question,
        chunks=tuple(
            JudgedLine(document_id=chunk.document_id, index=chunk.index, text=chunk.text, helpful=chunk.helpful)
            for chunk in said.chunks
        ),
        answer=said.answer,
        comment=said.comment,
        checkpoint=said.checkpoint,
        fingerprint=said.fingerprint,
    )


class QuestionLine(FrozenModel):
    """A record of a question."""

    id: QuestionId
    asked_at: Moment
    collection: CollectionName
    question: str
    checkpoint: Label
    fingerprint: Label
    chunks: tuple[tuple[DocumentId, Count], ...]
    """Document and number of each chunk that was returned."""
    found_nothing: bool
    stopped_by: StoppedBy
    complete: Probability | None
    hopeless: Probability | None
    seconds: float = Field(ge=0, allow_inf_nan=False)
    request_id: str

    def record(self) -> Question:
        """What was asked, and what came of it."""
        return Question(**dict(self) | {"chunks": list(self.chunks)})


def question_line(stored: StoredQuestion) -> QuestionLine:
    """The line of a record of a question; what was said about its answer is among the feedback."""
    return QuestionLine.model_validate(stored.question, from_attributes=True)
