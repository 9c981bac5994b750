"""Retrieval: a question in, the episode's chunks out, at once or step by step."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from fastapi import APIRouter, Depends, Request, Response

from qrag.wire import examples
from qrag.wire.asking.batches import BatchIn, BatchOut
from qrag.wire.retrieval import RetrieveIn, RetrieveOut, StepEvent, Timings
from service.http.dependencies import AppServices, RequestAccess, known_query, must_be_json, unless_gone
from service.http.event_stream import Named, event_stream, events_described, wants_events
from service.http.problems import responses
from service.http.rights import needs
from service.openapi import refers_to
from service.retrieval.asking import answer_batch, find_evidence, follow_evidence
from service.retrieval.canary import play_too
from service.retrieval.results import Session
from service.retrieval.session import prepare

router = APIRouter(dependencies=[Depends(known_query)])

EVENTS = events_described(
    "With `Accept: text/event-stream`: a `step` event for each step (StepEvent), then one `result` (RetrieveOut), or "
    "one `error` (Problem).",
    examples.EVENTS,
)


@router.post(
    "/retrieve",
    response_model=RetrieveOut,
    dependencies=[Depends(must_be_json)],
    responses=EVENTS | responses(400, 404, 409, 413, 415, 422, 503),
    summary="Find the evidence for a question",
    tags=["retrieval"],
)
@needs("read")
@refers_to(RetrieveOut, StepEvent)
async def retrieve(request: Request, body: RetrieveIn, services: AppServices, access: RequestAccess) -> Response:
    """Run the episode: select chunks one by one, each with regard to those selected before."""
    session = await prepare(body, services, access)
    if wants_events(request):
        steps, drop = follow_evidence(session)  # an overload is refused here, while the answer can still have a status
        return event_stream(_named(session, steps), drop)
    result = await unless_gone(request, find_evidence(session))
    play_too(session, result)
    headers = {"Server-Timing": server_timing(result.timings)}
    return Response(result.model_dump_json(), headers=headers, media_type="application/json")


@router.post(
    "/retrieve/batch",
    response_model=BatchOut,
    dependencies=[Depends(must_be_json)],
    responses=responses(400, 404, 413, 415, 422, 503),
    summary="Find the evidence for several questions",
    tags=["retrieval"],
)
@needs("read")
async def retrieve_batch(request: Request, body: BatchIn, services: AppServices, access: RequestAccess) -> Response:
    """Run an episode for each question, all together over one read of the documents."""
    out = await unless_gone(request, answer_batch(body, services, access))
    return Response(out.model_dump_json(), media_type="application/json")


async def _named(
    session: Session, events: AsyncGenerator[StepEvent | RetrieveOut, None]
) -> AsyncGenerator[Named, None]:
    async with aclosing(events):
        async for event in events:
            yield "step" if isinstance(event, StepEvent) else "result", event
            if isinstance(event, RetrieveOut):
                play_too(session, event)


def server_timing(timings: Timings) -> str:
    """The phases for the browser's developer tools; the total is added to every answer."""
    phases = {"queue": timings.queue_ms, "encode": timings.encode_ms, "search": timings.search_ms}
    return ", ".join(f"{name};dur={milliseconds:.1f}" for name, milliseconds in phases.items())
