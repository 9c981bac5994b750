"""Every call of the service as a value: the request, and the reader of its answer. Nothing here touches the network."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Generic, TypeVar
from urllib.parse import quote

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic_core import to_json

from qrag.client.errors import InvalidRequest
from qrag.client.options import AnswerOptions, BatchOptions, DocumentOptions, RetrieveOptions
from qrag.client.uploads import FileBody
from qrag.wire.asking.answers import AnswerOut
from qrag.wire.asking.batches import BatchOut, BatchQuestion
from qrag.wire.checks.gates import GateIn
from qrag.wire.documents import (
    ChunkOut,
    ChunkPage,
    ChunkReference,
    CollectionOut,
    CollectionsOut,
    DocumentIn,
    DocumentOut,
    DocumentPage,
    DocumentsOut,
)
from qrag.wire.feedback import MAX_RECORDS, FeedbackOut, FeedbackPage, Judgement, QuestionOut, QuestionPage
from qrag.wire.models import Problem
from qrag.wire.names import DocumentId
from qrag.wire.operations import CheckpointsOut, ModelOut, Readiness
from qrag.wire.retrieval import RetrieveOut, SelectedChunk

T = TypeVar("T")

PAGE = 1000
"""Entries asked for in one page: the most that the service allows, but for feedback and questions."""

_NAME: TypeAdapter[str] = TypeAdapter(DocumentId)
_JSON = {"Content-Type": "application/json"}
_MERGE_PATCH = {"Content-Type": "application/merge-patch+json"}


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """One request, and the reader of its answer.

    ``read`` raises :class:`ValueError` for an answer that it does not understand.
    """

    method: str
    path: str
    read: Callable[[bytes], T]
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | FileBody | None = None
    streams: bool = False
    """Whether the answer is read while it arrives."""

    def __post_init__(self) -> None:
        for value in self.query.values():
            _json(value)  # raises: characters that JSON cannot hold cannot stand in a query either

    @property
    def repeatable(self) -> bool:
        """Whether the request can be sent again: every call is idempotent, but some files can be read only once."""
        return not isinstance(self.body, FileBody) or self.body.repeatable


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """One page of a list; ``next_cursor`` asks for the next page, and is None on the last."""

    entries: Sequence[T]
    next_cursor: str | None


Listing = Callable[[str | None], Call[Page[T]]]
"""A function from a cursor, None for the first page, to the call for that page."""


def index(text: str, options: DocumentOptions, *, replace: bool) -> Call[DocumentOut]:
    """Index a text."""
    fields = {"text": text, **_description(options)}
    return _post_documents(fields, DocumentOut.model_validate_json, replace)


def index_file(
    file: FileBody, options: DocumentOptions, *, replace: bool, file_fields: bool = False
) -> Call[DocumentOut]:
    """Index a file; its name is the title where neither the options nor the file have one."""
    fields = {"filename": file.name, **_description(options)}
    query = {name: value if isinstance(value, str) else _json(value).decode() for name, value in fields.items()}
    query |= _replacing(replace) | ({"file_fields": "true"} if file_fields else {})
    headers = {"Content-Type": file.media_type}
    if file.length is not None:
        headers["Content-Length"] = str(file.length)
    return Call("POST", "documents", DocumentOut.model_validate_json, query, headers, file)


def index_many(documents: Sequence[DocumentIn], *, replace: bool) -> Call[DocumentsOut]:
    """Index documents in one request: all of them, or, on an error, none."""
    fields = {"documents": [plain(document) for document in documents]}
    return _post_documents(fields, DocumentsOut.model_validate_json, replace)


def documents(collection: str | None, title: str | None) -> Listing[DocumentOut]:
    """List documents."""
    query = {name: value for name, value in (("collection", collection), ("title", title)) if value is not None}

    def read(content: bytes) -> Page[DocumentOut]:
        page = DocumentPage.model_validate_json(content)
        return Page(page.documents, page.next_cursor)

    return lambda cursor: Call("GET", "documents", read, query | _paging(cursor))


def document(id: str) -> Call[DocumentOut]:
    """Get a document."""
    return Call("GET", f"documents/{_segment(id)}", DocumentOut.model_validate_json)


def text(id: str, start: int, end: int | None) -> Call[str]:
    """Get the text of a document, or a range of it."""
    query = {"start": str(start)} | ({} if end is None else {"end": str(end)})
    return Call("GET", f"documents/{_segment(id)}/text", bytes.decode, query)


def chunks(id: str) -> Listing[ChunkOut]:
    """List the chunks of a document."""
    path = f"documents/{_segment(id)}/chunks"

    def read(content: bytes) -> Page[ChunkOut]:
        page = ChunkPage.model_validate_json(content)
        return Page(page.chunks, page.next_cursor)

    return lambda cursor: Call("GET", path, read, _paging(cursor))


def update(id: str, fields: Mapping[str, object]) -> Call[DocumentOut]:
    """Change what describes a document."""
    path = f"documents/{_segment(id)}"
    return Call("PATCH", path, DocumentOut.model_validate_json, headers=_MERGE_PATCH, body=_json(fields))


def retry(id: str) -> Call[DocumentOut]:
    """Index a failed document again."""
    return Call("POST", f"documents/{_segment(id)}/retry", DocumentOut.model_validate_json)


def delete(id: str) -> Call[None]:
    """Delete a document."""
    return Call("DELETE", f"documents/{_segment(id)}", _nothing)


def collections() -> Call[list[CollectionOut]]:
    """List collections."""
    return Call("GET", "collections", lambda content: CollectionsOut.model_validate_json(content).collections)


def delete_collection(name: str) -> Call[None]:
    """Delete a collection."""
    return Call("DELETE", f"collections/{_segment(name)}", _nothing)


def retrieve(question: str | None, options: RetrieveOptions, *, streams: bool = False) -> Call[RetrieveOut]:
    """Ask a question, or go on from an answer whose continuation is among the options."""
    headers = _JSON | ({"Accept": "text/event-stream"} if streams else {})
    body = _asking(question, options)
    return Call("POST", "retrieve", RetrieveOut.model_validate_json, headers=headers, body=body, streams=streams)


def answer(question: str | None, options: AnswerOptions) -> Call[AnswerOut]:
    """Let the language model answer a question."""
    return Call("POST", "answer", AnswerOut.model_validate_json, headers=_JSON, body=_asking(question, options))


def retrieve_batch(questions: Sequence[str | BatchQuestion], options: BatchOptions) -> Call[BatchOut]:
    """Ask several questions at once."""
    body = _json(_given({"questions": [plain(question) for question in questions], **options}))
    return Call("POST", "retrieve/batch", BatchOut.model_validate_json, headers=_JSON, body=body)


def _asking(question: str | None, options: RetrieveOptions) -> bytes:
    chunks = {"given": _references(options.get("given")), "exclude": _references(options.get("exclude"))}
    return _json(_given({"question": question, **options, **chunks}))


def _references(chunks: Sequence[ChunkReference | SelectedChunk] | None) -> list[dict[str, object]] | None:
    """What names the chunks, and nothing else of them."""
    return None if chunks is None else [{"document_id": chunk.document_id, "index": chunk.index} for chunk in chunks]


def give_feedback(
    question: str,
    chunks: Iterable[Judgement],
    collection: str | None,
    answer: str | None,
    comment: str | None,
) -> Call[FeedbackOut]:
    """Say which chunks helped."""
    said = _given({"collection": collection, "answer": answer, "comment": comment})
    body = _json({"question": question, "chunks": [plain(chunk) for chunk in chunks], **said})
    return Call("POST", "feedback", FeedbackOut.model_validate_json, headers=_JSON, body=body)


def feedback(collection: str | None) -> Listing[FeedbackOut]:
    """List feedback."""
    query = {} if collection is None else {"collection": collection}

    def read(content: bytes) -> Page[FeedbackOut]:
        page = FeedbackPage.model_validate_json(content)
        return Page(page.feedback, page.next_cursor)

    return lambda cursor: Call("GET", "feedback", read, query | _paging(cursor, MAX_RECORDS))


def delete_feedback(id: str) -> Call[None]:
    """Delete a record of feedback."""
    return Call("DELETE", f"feedback/{_segment(id)}", _nothing)


def delete_all_feedback(collection: str) -> Call[None]:
    """Delete the feedback of a collection."""
    return Call("DELETE", "feedback", _nothing, {"collection": collection})


def questions(
    collection: str | None, since: datetime | None, *, found_nothing: bool, with_feedback: bool
) -> Listing[QuestionOut]:
    """List what people asked."""
    query = {} if collection is None else {"collection": collection}
    if since is not None:
        query["since"] = since.astimezone(UTC).isoformat()
    query |= {"found_nothing": "true"} if found_nothing else {}
    query |= {"with_feedback": "true"} if with_feedback else {}

    def read(content: bytes) -> Page[QuestionOut]:
        page = QuestionPage.model_validate_json(content)
        return Page(page.questions, page.next_cursor)

    return lambda cursor: Call("GET", "questions", read, query | _paging(cursor, MAX_RECORDS))


def delete_question(id: str) -> Call[None]:
    """Delete a question that was kept."""
    return Call("DELETE", f"questions/{_segment(id)}", _nothing)


def delete_all_questions(collection: str | None) -> Call[None]:
    """Delete the questions of a collection, or all."""
    return Call("DELETE", "questions", _nothing, {} if collection is None else {"collection": collection})


def model() -> Call[ModelOut]:
    """Get the loaded checkpoint."""
    return Call("GET", "model", ModelOut.model_validate_json)


def checkpoints() -> Call[CheckpointsOut]:
    """Get which checkpoint is served, and how far a change is."""
    return Call("GET", "admin/checkpoints", CheckpointsOut.model_validate_json)


def change_checkpoint(name: str, gate: GateIn | None, canary: float | None) -> Call[CheckpointsOut]:
    """Serve another checkpoint."""
    body = _json(_given({"checkpoint": name, "gate": gate, "canary": canary}))
    return Call("POST", "admin/checkpoints", CheckpointsOut.model_validate_json, headers=_JSON, body=body)


def forget_checkpoint(name: str) -> Call[None]:
    """Give up a change to a checkpoint, or drop its vectors."""
    if name in ("", ".", ".."):
        raise invalid(f"{name!r} is no checkpoint: it would lead to another path.")
    return Call("DELETE", f"admin/checkpoints/{quote(name, safe='')}", _nothing)


def ready() -> Call[bool]:
    """Ask whether the service is ready."""
    return Call("GET", "readyz", lambda content: Readiness.model_validate_json(content).status == "ready")


def _post_documents(fields: Mapping[str, Any], read: Callable[[bytes], T], replace: bool) -> Call[T]:
    return Call("POST", "documents", read, _replacing(replace), _JSON, _json(fields))


def _replacing(replace: bool) -> dict[str, str]:
    return {"replace": "true"} if replace else {}


def _paging(cursor: str | None, limit: int = PAGE) -> dict[str, str]:
    return {"limit": str(limit)} | ({} if cursor is None else {"cursor": cursor})


def _description(options: DocumentOptions) -> dict[str, Any]:
    given = _given(options)
    if isinstance(given.get("chunking"), str):
        given["chunking"] = {"mode": given["chunking"]}
    return given


def _given(options: Mapping[str, object]) -> dict[str, Any]:
    return {name: plain(value) for name, value in options.items() if value is not None}


def plain(value: object) -> object:
    """A value as JSON has it: of a model, only the fields that were set."""
    return value.model_dump(mode="json", by_alias=True, exclude_unset=True) if isinstance(value, BaseModel) else value


def _json(value: object) -> bytes:
    try:
        return to_json(value)
    except ValueError as error:
        raise invalid(f"JSON cannot hold what is to be sent. {error}") from None


def _segment(name: str) -> str:
    """A name as a segment of a path.

    Raises :class:`~qrag.client.errors.InvalidRequest` for a name that the service cannot have given: a slash in it,
    for instance, would lead to another path.
    """
    try:
        return _NAME.validate_python(name)
    except ValidationError:
        raise invalid(f"{name!r} is no name: 1-200 letters, digits and `._:@-`.") from None


def invalid(detail: str) -> InvalidRequest:
    """The error that the service would answer with."""
    return InvalidRequest(
        Problem(type="about:blank", title="Invalid request", status=422, code="validation_error", detail=detail)
    )


def _nothing(_content: bytes) -> None:
    return None
