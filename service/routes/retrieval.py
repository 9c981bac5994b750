"""Retrieval: a question in, the episode's chunks out, at once or step by step."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from dataclasses import dataclass

from anyio import to_thread
from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import StreamingResponse
from starlette.background import BackgroundTask

from index.catalog import SearchScope
from index.documents import Document
from index.encoder import Encoder, TokenIds
from index.episode import ChunkTokens, Episode, Limits, Step
from index.errors import UnknownDocument
from index.heat import HeatMap
from index.scoring import Candidate
from index.stopping import StopRule, Sufficiency
from index.vectors import nearest
from service import examples
from service.context import block, render
from service.dependencies import AppServices, RequestAccess, client_gone, known_query
from service.engine import Run, RunEvents
from service.errors import DocumentsChanged, NotCalibrated, QuestionTooLong, UnsupportedMediaType
from service.problems import problem_of, responses
from service.retrieval_schemas import (
    MAX_STEPS,
    TRACE_CANDIDATES,
    CandidateOut,
    HeatMapOut,
    RetrieveIn,
    RetrieveOut,
    SelectedChunk,
    StepEvent,
    StepOut,
    Stop,
    SufficiencyOut,
    Timings,
    Usage,
)
from service.services import Services
from service.tracing import TRACER

router = APIRouter(dependencies=[Depends(known_query)])

ATTEMPTS = 3
"""How often a request starts over when documents are deleted under it."""


async def _must_be_json(request: Request) -> None:
    essence = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if essence != "application/json":
        raise UnsupportedMediaType("Send the question as JSON, with Content-Type: application/json.")


@router.post(
    "/retrieve",
    response_model=RetrieveOut,
    dependencies=[Depends(_must_be_json)],
    responses={
        200: {
            "content": {
                "text/event-stream": {
                    "schema": {
                        "type": "string",
                        "description": "With `Accept: text/event-stream`: a `step` event for each step (StepEvent), "
                        "then one `result` (RetrieveOut), or one `error` (Problem).",
                    },
                    "example": examples.EVENTS,
                }
            }
        },
        **responses(400, 404, 409, 413, 415, 422, 503),
    },
    summary="Find the evidence for a question",
    tags=["retrieval"],
)
async def retrieve(request: Request, body: RetrieveIn, services: AppServices, access: RequestAccess) -> Response:
    """Run the episode: select chunks one by one, each with regard to those selected before."""
    access.require(body.collection)
    session = await _prepare(body, services)
    if "text/event-stream" in request.headers.get("accept", ""):
        events = _run(session)  # an overload is refused here, while the answer can still have a status
        return StreamingResponse(
            _stream(session, events),
            media_type="text/event-stream",
            headers={"Cache-Control": "no-cache"},
            background=BackgroundTask(events.aclose),  # the client may leave before the stream begins
        )
    gone = asyncio.create_task(client_gone(request))
    work = asyncio.create_task(_answer(session))
    try:
        await asyncio.wait([gone, work], return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            return Response(status_code=499)  # nobody will read it
        result = work.result()
        headers = {"Server-Timing": _server_timing(result.timings)}
        return Response(result.model_dump_json(), headers=headers, media_type="application/json")
    finally:
        gone.cancel()
        work.cancel()


def _server_timing(timings: Timings) -> str:
    """The phases for the browser's developer tools; the total is added to every answer."""
    phases = {"queue": timings.queue_ms, "encode": timings.encode_ms, "search": timings.search_ms}
    return ", ".join(f"{name};dur={milliseconds:.1f}" for name, milliseconds in phases.items())


@dataclass(frozen=True, slots=True)
class _Session:
    """A request on its way through the engine."""

    services: Services
    body: RetrieveIn
    question: TokenIds
    stop: StopRule | None
    scope: SearchScope
    began: float
    tokenize_seconds: float


async def _prepare(body: RetrieveIn, services: Services) -> _Session:
    began = time.perf_counter()
    with TRACER.start_as_current_span("tokenize"):
        question = services.encoder.question_tokens(body.question)
    tokenize_seconds = time.perf_counter() - began
    if len(question) > services.encoder.question_limit:
        raise QuestionTooLong(
            f"The question has {len(question)} tokens and may have {services.encoder.question_limit}. Shorten it; "
            "long material belongs into a document."
        )
    stop = _stop_rule(body.stop, services.encoder)
    scope = await to_thread.run_sync(services.catalog.scope, body.collection, body.document_ids, body.filter)
    return _Session(services, body, question, stop, scope, began, tokenize_seconds)


def _stop_rule(wanted: Stop, encoder: Encoder) -> StopRule | None:
    """The rule and its threshold; none where the budget alone ends the episode."""
    if wanted.rule == "budget":
        return None
    learned = encoder.stopping
    missing = {"action": learned.action is None, "sufficiency": learned.head is None}
    if wanted.rule is not None and wanted.threshold is not None:
        if missing.get(wanted.rule, False):
            raise NotCalibrated(f"This checkpoint has not learned the rule {wanted.rule}. Name another.")
        return StopRule(wanted.rule, wanted.threshold)
    source = encoder.config.stopping
    calibration = source.calibration if source else None
    if calibration is None:
        if wanted == Stop():
            return None
        raise NotCalibrated("This checkpoint is not calibrated. Give stop.rule and stop.threshold yourself.")
    if wanted.rule is not None and wanted.rule not in calibration.curves:
        raise NotCalibrated(f"This checkpoint is calibrated for {', '.join(calibration.curves)}. Name one of these.")
    return calibration.rule_for(wanted.rule, step_cost=wanted.step_cost, target_recall=wanted.target_recall)


async def _answer(session: _Session) -> RetrieveOut:
    """Run to the end; starts over when a document is deleted under it."""
    for attempt in range(ATTEMPTS):
        try:
            async with aclosing(_run(session)) as events:
                async for run, step in events:
                    if step is None:
                        return await to_thread.run_sync(_result, session, run)
        except UnknownDocument:
            if attempt == ATTEMPTS - 1:
                break
            session = await _prepare(session.body, session.services)
    raise DocumentsChanged("Documents were deleted while the question was being answered. Ask again.")


async def _stream(session: _Session, events: RunEvents) -> AsyncIterator[str]:
    number = 0
    try:
        async with aclosing(events):
            async for run, step in events:
                if step is None:
                    result = await to_thread.run_sync(_result, session, run)
                    yield _event("result", result.model_dump_json())
                else:
                    event = await to_thread.run_sync(_step_event, session, step, number)
                    number += 1
                    yield _event("step", event.model_dump_json())
    except Exception as error:
        if isinstance(error, UnknownDocument):
            error = DocumentsChanged("A document was deleted while the question was being answered. Ask again.")
        problem, _ = problem_of(error)
        yield _event("error", problem.model_dump_json(exclude_none=True))


def _run(session: _Session) -> RunEvents:
    body, store, encoder = session.body, session.services.store, session.services.encoder
    limits = Limits(
        max_steps=body.max_steps,
        beam_width=body.beam_width,
        stop=session.stop,
        max_context_tokens=body.max_context_tokens,
        candidates=TRACE_CANDIDATES if body.trace or body.heatmap else 0,
        stretches=body.heatmap or 0,
    )

    def read_chunk(position: int) -> ChunkTokens:
        address = session.scope.address(position)
        rows = store.chunks(address.uid, first=address.number, limit=1)
        if not rows:
            raise UnknownDocument("The document was deleted meanwhile.")
        text = rows[0][2]
        cost = 0
        if body.max_context_tokens is not None:
            document = store.documents_at([address.uid])[address.uid]
            cost = encoder.chunk_tokenizer.count([block(MAX_STEPS, document.title, document.id, text)])[0]
        return ChunkTokens(encoder.state_tokens([text])[0], cost)

    episode = Episode(session.scope.scope, limits, read_chunk, encoder.stopping)
    return session.services.engine.run(session.question, episode)


def _result(session: _Session, run: Run) -> RetrieveOut:
    body, services, episode = session.body, session.services, run.episode
    assert episode.stopped_by is not None  # the engine has finished it
    one_step = _one_step(session, run)
    positions = {position for step in episode.steps for position in _shown_positions(session, step)}
    documents = _documents(session, positions | {candidate.position for candidate in one_step or []})
    chunks = [_selected(session, step, number, documents) for number, step in enumerate(episode.steps)]
    if body.order == "document":
        place = {chunk.step: episode.steps[chunk.step].position for chunk in chunks}
        chunks.sort(key=lambda chunk: place[chunk.step])
    context, citations = render(chunks)
    services.metrics.episode(run, session.tokenize_seconds)
    return RetrieveOut(
        chunks=chunks,
        context=context,
        citations=citations,
        steps=[_step(session, step, number, documents) for number, step in enumerate(episode.steps)],
        one_step=None if one_step is None else _candidates(session, one_step, documents),
        stopped_by=episode.stopped_by,
        sufficiency=_sufficiency(episode.sufficiency),
        usage=Usage(
            question_tokens=len(session.question),
            context_tokens=services.encoder.chunk_tokenizer.count([context])[0],
            candidates=session.scope.scope.size,
            exact=session.scope.scope.preselected is None,
            truncated_tokens=run.truncated_tokens,
        ),
        model=services.encoder.config.name,
        timings=Timings(
            queue_ms=1000 * run.queue_seconds,
            encode_ms=1000 * run.encode_seconds,
            search_ms=1000 * run.search_seconds,
            total_ms=1000 * (time.perf_counter() - session.began),
        ),
    )


def _one_step(session: _Session, run: Run) -> list[Candidate] | None:
    if not session.body.trace:
        return None
    if run.question_embedding is None:
        return []
    return nearest(run.question_embedding, session.scope.scope, session.body.max_steps)


def _step_event(session: _Session, step: Step, number: int) -> StepEvent:
    documents = _documents(session, set(_shown_positions(session, step)))
    plain = _step(session, step, number, documents)
    return StepEvent(**plain.model_dump(), chunk=_selected(session, step, number, documents))


def _shown_positions(session: _Session, step: Step) -> Iterator[int]:
    """A chunk of each document that the step is about."""
    yield step.position
    yield from (candidate.position for candidate in step.candidates)
    yield from (int(session.scope.scope.offsets[heat.document]) for heat in step.heat)


def _documents(session: _Session, positions: set[int]) -> dict[int, Document]:
    return session.services.store.documents_at({session.scope.address(position).uid for position in positions})


def _step(session: _Session, step: Step, number: int, documents: dict[int, Document]) -> StepOut:
    address = session.scope.address(step.position)
    return StepOut(
        step=number,
        q=step.q,
        document_id=documents[address.uid].id,
        index=address.number,
        sufficiency=_sufficiency(step.sufficiency),
        candidates=_candidates(session, step.candidates, documents) if session.body.trace else None,
        heatmap=[_heat_map(session, heat, documents) for heat in step.heat] if session.body.heatmap else None,
    )


def _heat_map(session: _Session, heat: HeatMap, documents: dict[int, Document]) -> HeatMapOut:
    return HeatMapOut(
        document_id=documents[int(session.scope.uids[heat.document])].id,
        chunks=heat.chunks,
        borders=list(heat.selected),
        q=[round(q, 4) if math.isfinite(q) else None for q in heat.largest.tolist()],
    )


def _sufficiency(found: Sufficiency | None) -> SufficiencyOut | None:
    return None if found is None else SufficiencyOut(complete=found.complete, hopeless=found.hopeless)


def _candidates(
    session: _Session, candidates: tuple[Candidate, ...] | list[Candidate], documents: dict[int, Document]
) -> list[CandidateOut]:
    found = [(session.scope.address(candidate.position), candidate.q) for candidate in candidates]
    return [CandidateOut(document_id=documents[at.uid].id, index=at.number, q=q) for at, q in found]


def _selected(session: _Session, step: Step, number: int, documents: dict[int, Document]) -> SelectedChunk:
    address = session.scope.address(step.position)
    rows = session.services.store.chunks(address.uid, first=address.number, limit=1)
    if not rows:
        raise UnknownDocument("The document was deleted meanwhile.")
    _, chunk, text = rows[0]
    document = documents[address.uid]
    return SelectedChunk(
        document_id=document.id,
        title=document.title,
        index=address.number,
        start=chunk.start,
        end=chunk.end,
        text=text,
        step=number,
        q=step.q,
        metadata=dict(document.metadata),
    )


def _event(name: str, data: str) -> str:
    return f"event: {name}\ndata: {data}\n\n"
