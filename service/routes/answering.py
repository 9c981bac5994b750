"""Answers: a question in, a text that rests on the episode's chunks out, at once or as it is written."""

from __future__ import annotations

from fastapi import APIRouter, Depends, Request, Response

from qrag.wire import examples
from qrag.wire.asking.answers import AnswerIn, AnswerOut, TokenEvent
from qrag.wire.retrieval import RetrieveOut, StepEvent
from service.answering.answers import answer, language_model, stream
from service.http.dependencies import AppServices, RequestAccess, known_query, must_be_json, unless_gone
from service.http.event_stream import event_stream, events_described, wants_events
from service.http.problems import responses
from service.http.rights import needs
from service.openapi import refers_to
from service.retrieval.asking import follow_evidence
from service.retrieval.session import prepare

router = APIRouter(dependencies=[Depends(known_query)])

EVENTS = events_described(
    "With `Accept: text/event-stream`: a `step` event for each step (StepEvent), one `retrieval` (RetrieveOut), a "
    "`token` for each piece of the answer (TokenEvent), then one `result` (AnswerOut), or one `error` (Problem).",
    examples.ANSWER_EVENTS,
)


@router.post(
    "/answer",
    response_model=AnswerOut,
    dependencies=[Depends(must_be_json)],
    responses=EVENTS | responses(400, 404, 409, 413, 415, 422, 501, 502, 503, 504),
    summary="Answer a question, with citations",
    tags=["retrieval"],
)
@needs("read")
@refers_to(RetrieveOut, StepEvent, AnswerOut, TokenEvent)
async def answer_question(request: Request, body: AnswerIn, services: AppServices, access: RequestAccess) -> Response:
    """Retrieve, and let the configured language model answer from the chunks."""
    session = await prepare(body, services, access)
    model = language_model(services)
    if wants_events(request):
        steps, drop = follow_evidence(session)
        return event_stream(stream(session, steps, body, model), drop)
    out = await unless_gone(request, answer(session, body, model))
    return Response(out.model_dump_json(), media_type="application/json")
