"""Feedback: which chunks of an answer helped, given by those who ask and read by those who keep the documents."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Request, Response

from index.errors import UnknownDocument
from index.storage.documents import Document
from index.storage.feedback import Feedback, JudgedChunk, StoredFeedback
from qrag.wire import examples
from qrag.wire.feedback import (
    MAX_RECORDS,
    FeedbackCheckpoint,
    FeedbackId,
    FeedbackIn,
    FeedbackOut,
    FeedbackPage,
    JudgedChunkOut,
    Judgement,
)
from qrag.wire.names import CollectionName
from service.errors import DocumentsChanged, FeedbackOff, UnknownChunk
from service.http.dependencies import (
    AppServices,
    Cursor,
    RequestAccess,
    known_query,
    must_be_json,
    visible_document,
)
from service.http.problems import responses
from service.http.records import lines, lines_described, page, wants_lines
from service.http.rights import needs
from service.keys import Access
from service.services import Services


async def _is_on(services: AppServices) -> None:
    if not services.settings.feedback:
        raise FeedbackOff("This service collects no feedback: its setting QRAG_FEEDBACK is off. Ask its operator.")


router = APIRouter(tags=["feedback"], dependencies=[Depends(known_query), Depends(_is_on)])


@router.post(
    "/feedback",
    status_code=201,
    dependencies=[Depends(must_be_json)],
    responses=responses(400, 404, 409, 413, 415, 422, 507),
    summary="Say which chunks helped",
)
@needs("read")
def give_feedback(services: AppServices, access: RequestAccess, body: FeedbackIn) -> FeedbackOut:
    """Store which chunks of an answer helped, with the texts that they have now and the checkpoint that is served.

    The same feedback again is the same record, the latest from then on.
    """
    access.require(body.collection)
    services.require_free_space()
    ids = {judgement.document_id for judgement in body.chunks}
    documents = {id: _searchable(services, access, id, body.collection) for id in ids}
    config = services.checkpoints.current.encoder.config
    feedback = Feedback(
        collection=body.collection,
        question=body.question,
        chunks=[
            _judged(services, documents[judgement.document_id], judgement)
            for judgement in sorted(body.chunks, key=lambda judgement: (judgement.document_id, judgement.index))
        ],
        answer=body.answer,
        comment=body.comment,
        checkpoint=config.name,
        fingerprint=config.fingerprint,
    )
    try:
        stored = services.storage.feedback.add(feedback, [document.uid for document in documents.values()])
    except UnknownDocument:
        raise DocumentsChanged("A document was deleted or replaced while its chunks were judged. Ask again.") from None
    return feedback_out(stored)


def _searchable(services: Services, access: Access, id: str, collection: str) -> Document:
    """A document of the collection.

    Raises :class:`~index.errors.UnknownDocument`, or :class:`~service.errors.UnknownChunk` where no search finds it.
    """
    document = visible_document(services, access, id)
    if document.collection != collection:
        raise UnknownDocument(f"There is no document {id!r} in the collection {collection!r}.")
    if document.status != "ready":
        raise UnknownChunk(f"No chunk of document {id!r} can be found yet: it is {document.status}.")
    return document


def _judged(services: Services, document: Document, judgement: Judgement) -> JudgedChunk:
    found = services.storage.catalogue.chunks(document.uid, first=judgement.index, limit=1)
    if not found:
        raise UnknownChunk(
            f"Document {document.id!r} has no chunk {judgement.index}. GET /documents/{document.id}/chunks lists them."
        )
    return JudgedChunk(document.id, judgement.index, found[0].text, judgement.helpful)


def feedback_out(stored: StoredFeedback) -> FeedbackOut:
    """The resource that shows stored feedback."""
    feedback = stored.feedback
    return FeedbackOut(
        id=stored.id,
        created_at=stored.created_at,
        collection=feedback.collection,
        question=feedback.question,
        checkpoint=FeedbackCheckpoint(name=feedback.checkpoint, fingerprint=feedback.fingerprint),
        chunks=[JudgedChunkOut.model_validate(chunk, from_attributes=True) for chunk in feedback.chunks],
        answer=feedback.answer,
        comment=feedback.comment,
    )


@router.get(
    "/feedback",
    response_model=FeedbackPage,
    responses=lines_described(examples.FEEDBACK) | responses(400, 404, 422),
    summary="List or export feedback",
)
@needs("write")
def list_feedback(
    request: Request,
    services: AppServices,
    access: RequestAccess,
    collection: Annotated[CollectionName | None, Query(description="only of this collection")] = None,
    cursor: Cursor = None,
    limit: Annotated[int | None, Query(ge=1, le=MAX_RECORDS, description="most records on the page")] = None,
) -> FeedbackPage | Response:
    """Feedback in order of arrival, page by page; all of it as JSON Lines with `Accept: application/jsonl`.

    It holds texts of documents, so the key needs the right `read` as well.
    """
    access.require_right("read")
    collections = access.collections
    if collection is not None:
        access.require(collection)
        collections = frozenset({collection})

    def read(after: int, limit: int) -> list[StoredFeedback]:
        return services.storage.feedback.records(collections, after=after, limit=limit)

    if wants_lines(request, cursor, limit):
        return lines(read, feedback_out)
    records, next_cursor = page(read, cursor, limit)
    return FeedbackPage(feedback=[feedback_out(record) for record in records], next_cursor=next_cursor)


@router.delete("/feedback/{id}", status_code=204, responses=responses(404, 422, 507), summary="Delete a record")
@needs("write")
def delete_feedback(services: AppServices, access: RequestAccess, id: Annotated[FeedbackId, Path()]) -> None:
    """Remove one record."""
    services.storage.feedback.delete(id, access.collections)


@router.delete("/feedback", status_code=204, responses=responses(404, 422, 507), summary="Delete a collection's")
@needs("write")
def delete_all_feedback(
    services: AppServices, access: RequestAccess, collection: Annotated[CollectionName, Query()]
) -> None:
    """Remove all feedback of a collection; its documents stay."""
    access.require(collection)
    services.storage.feedback.delete_all(collection)
