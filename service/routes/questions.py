"""Questions: what people asked and what came of it, where the operator keeps it, for those who keep the documents."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from pydantic import AfterValidator, AwareDatetime, BeforeValidator

from index.storage.questions import StoredQuestion
from qrag.wire import examples
from qrag.wire.feedback import (
    MAX_RECORDS,
    FeedbackCheckpoint,
    QuestionId,
    QuestionOut,
    QuestionPage,
    ReturnedChunk,
)
from qrag.wire.names import CollectionName
from qrag.wire.retrieval import SufficiencyOut
from service.errors import QuestionsOff
from service.http.dependencies import AppServices, Cursor, RequestAccess, known_query
from service.http.problems import responses
from service.http.records import lines, lines_described, page, wants_lines
from service.http.rights import needs
from service.observing.questions import QuestionLog
from service.routes.feedback import feedback_out


def _log(services: AppServices) -> QuestionLog:
    """The log, with everything in it that was answered before this request."""
    if services.questions is None:
        raise QuestionsOff("This service keeps no questions: its setting QRAG_KEEP_QUESTIONS_DAYS is 0.")
    services.questions.catch_up()
    return services.questions


_MOMENT = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)")
"""A date and time of RFC 3339; the framework would take a number of seconds, too."""


def _as_described(moment: object) -> object:
    if isinstance(moment, str) and not _MOMENT.fullmatch(moment):
        raise ValueError("give a date and a time with its zone: 2025-11-07T00:00:00Z")
    return moment


def _in_utc(moment: datetime) -> datetime:
    """The moment in UTC; the nearest that there is, in the first and the last hours of all."""
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        return (datetime.min if moment.year == 1 else datetime.max).replace(tzinfo=UTC)


router = APIRouter(tags=["questions"], dependencies=[Depends(known_query), Depends(_log)])


def _question_out(stored: StoredQuestion) -> QuestionOut:
    """The resource that shows a record."""
    question = stored.question
    sufficiency = None
    if question.complete is not None and question.hopeless is not None:
        sufficiency = SufficiencyOut(complete=question.complete, hopeless=question.hopeless)
    return QuestionOut.model_validate(
        {
            "id": question.id,
            "asked_at": question.asked_at,
            "collection": question.collection,
            "question": question.question,
            "checkpoint": FeedbackCheckpoint(name=question.checkpoint, fingerprint=question.fingerprint),
            "chunks": [ReturnedChunk(document_id=id, index=index) for id, index in question.chunks],
            "found_nothing": question.found_nothing,
            "stopped_by": question.stopped_by,
            "sufficiency": sufficiency,
            "seconds": question.seconds,
            "request_id": question.request_id,
            "feedback": [feedback_out(said) for said in stored.feedback],
        }
    )


@router.get(
    "/questions",
    response_model=QuestionPage,
    responses=lines_described(examples.QUESTION) | responses(400, 404, 422),
    summary="List or export questions",
)
@needs("write")
def list_questions(
    request: Request,
    services: AppServices,
    access: RequestAccess,
    collection: Annotated[CollectionName | None, Query(description="only of this collection")] = None,
    since: Annotated[
        AwareDatetime | None,
        BeforeValidator(_as_described),
        AfterValidator(lambda moment: None if moment is None else _in_utc(moment)),
        Query(description="only those asked then or later", examples=["2025-11-07T00:00:00Z"]),
    ] = None,
    found_nothing: Annotated[bool, Query(description="only those that found nothing")] = False,
    with_feedback: Annotated[bool, Query(description="only those of whose answers somebody said something")] = False,
    cursor: Cursor = None,
    limit: Annotated[int | None, Query(ge=1, le=MAX_RECORDS, description="most records on the page")] = None,
) -> QuestionPage | Response:
    """Questions in order of arrival, page by page; all of them as JSON Lines with `Accept: application/jsonl`.

    They are what people asked, and may hold texts of documents, so the key needs the right `read` as well.
    """
    access.require_right("read")
    collections = access.collections
    if collection is not None:
        access.require(collection)
        collections = frozenset({collection})

    def read(after: int, limit: int) -> list[StoredQuestion]:
        return services.storage.questions.records(
            collections,
            since=since,
            found_nothing=found_nothing,
            with_feedback=with_feedback,
            after=after,
            limit=limit,
        )

    if wants_lines(request, cursor, limit):
        return lines(read, _question_out)
    records, next_cursor = page(read, cursor, limit)
    return QuestionPage(questions=[_question_out(record) for record in records], next_cursor=next_cursor)


@router.delete("/questions/{id}", status_code=204, responses=responses(404, 422, 507), summary="Delete a question")
@needs("write")
def delete_question(services: AppServices, access: RequestAccess, id: Annotated[QuestionId, Path()]) -> None:
    """Remove one record."""
    services.storage.questions.delete(id, access.collections)


@router.delete("/questions", status_code=204, responses=responses(404, 422, 507), summary="Delete questions")
@needs("write")
def delete_all_questions(
    services: AppServices,
    access: RequestAccess,
    collection: Annotated[CollectionName | None, Query(description="only of this collection")] = None,
) -> None:
    """Remove the questions of a collection, or those of all collections that the key is for."""
    if collection is None:
        services.storage.questions.forget(within=access.collections)
    else:
        access.require(collection)
        services.storage.questions.delete_all(collection)
