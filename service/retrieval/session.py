"""A retrieval, from a request's body to what is answered: for every way in, whether all at once or step by step."""

from __future__ import annotations

import math
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from dataclasses import dataclass

from anyio import to_thread

from index.arrays import TokenIds
from index.encoders.encoder import Encoder
from index.episodes.episode import ChunkTokens, Episode, Limits, Step
from index.episodes.head import Sufficiency
from index.episodes.heat import HeatMap
from index.episodes.rules import STOP_RULES, StopBelow, has_learned
from index.errors import UnknownDocument
from index.search.scope import Candidate
from index.storage.documents import Document, StoredChunk
from index.storage.vectors import ChunkAddress, SearchScope
from qrag.wire.retrieval import (
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
from service.engine.checkpoints import Loaded
from service.engine.runs import Run, RunEvents
from service.errors import DocumentsChanged, NotCalibrated, QuestionTooLong
from service.observing.tracing import TRACER
from service.retrieval.context import block, render
from service.services import Services

ATTEMPTS = 3
"""How often a request starts over when documents are deleted under it."""


@dataclass(frozen=True, slots=True)
class Session:
    """A request on its way through the engine."""

    services: Services
    loaded: Loaded
    """The checkpoint that the request began with."""
    body: RetrieveIn
    question: TokenIds
    stop: StopBelow | None
    scope: SearchScope
    began: float
    tokenize_seconds: float


async def prepare(body: RetrieveIn, services: Services) -> Session:
    """Check what a schema cannot, and look up what is searched.

    Raises :class:`~service.errors.QuestionTooLong`, :class:`~service.errors.NotCalibrated`, and what
    :meth:`index.storage.protocols.Scopes.scope` raises.
    """
    began = time.perf_counter()
    loaded = services.checkpoints.current
    encoder = loaded.encoder
    with TRACER.start_as_current_span("tokenize"):
        question = encoder.question_tokens(body.question)
    tokenize_seconds = time.perf_counter() - began
    if len(question) > encoder.question_limit:
        raise QuestionTooLong(
            f"The question has {len(question)} tokens and may have {encoder.question_limit}. Shorten it; "
            "long material belongs into a document."
        )
    stop = _stop_rule(body.stop, encoder)
    scope = await to_thread.run_sync(loaded.scopes.scope, body.collection, body.document_ids, body.filter)
    return Session(services, loaded, body, question, stop, scope, began, tokenize_seconds)


def _stop_rule(wanted: Stop, encoder: Encoder) -> StopBelow | None:
    """The rule and its threshold; none where the budget alone ends the episode."""
    if wanted.rule == "budget":
        return None
    if wanted.rule is not None and wanted.threshold is not None:
        rule = STOP_RULES[wanted.rule]
        if not has_learned(encoder.stopping, rule):
            raise NotCalibrated(f"This checkpoint has not learned the rule {wanted.rule}. Name another.")
        return StopBelow(rule, wanted.threshold)
    source = encoder.config.stopping
    calibration = source.calibration if source else None
    if calibration is None:
        if wanted == Stop():
            return None
        raise NotCalibrated("This checkpoint is not calibrated. Give stop.rule and stop.threshold yourself.")
    if wanted.rule is not None and wanted.rule not in calibration.curves:
        raise NotCalibrated(f"This checkpoint is calibrated for {', '.join(calibration.curves)}. Name one of these.")
    return calibration.rule_for(wanted.rule, step_cost=wanted.step_cost, target_recall=wanted.target_recall)


async def find(session: Session) -> RetrieveOut:
    """Run to the end; starts over when a document is deleted under it, up to a point.

    Raises :class:`~service.errors.Overloaded` or :class:`~service.errors.DocumentsChanged`.
    """
    for attempt in range(ATTEMPTS):
        try:
            async with aclosing(start(session)) as events:
                async for run, step in events:
                    if step is None:
                        return await to_thread.run_sync(_result, session, run)
        except UnknownDocument:
            if attempt == ATTEMPTS - 1:
                break
            session = await prepare(session.body, session.services)
    raise DocumentsChanged("Documents were deleted while the question was being answered. Ask again.")


async def follow(session: Session, events: RunEvents) -> AsyncGenerator[StepEvent | RetrieveOut, None]:
    """Each step of a started episode as it is taken, then the evidence.

    Raises :class:`~service.errors.DocumentsChanged` when a document is deleted under it.
    """
    number = 0
    try:
        async with aclosing(events):
            async for run, step in events:
                if step is None:
                    yield await to_thread.run_sync(_result, session, run)
                else:
                    yield await to_thread.run_sync(_step_event, session, step, number)
                    number += 1
    except UnknownDocument as error:
        raise DocumentsChanged("A document was deleted while the question was being answered. Ask again.") from error


def start(session: Session) -> RunEvents:
    """Start the episode; raises :class:`~service.errors.Overloaded` if there is no room for it."""
    body, catalogue, encoder = session.body, session.services.storage.catalogue, session.loaded.encoder
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
        text = _stored_chunk(session, address).text
        cost = 0
        if body.max_context_tokens is not None:
            document = catalogue.documents_at([address.uid])[address.uid]
            cost = encoder.chunk_tokenizer.count([block(MAX_STEPS, document.title, document.id, text)])[0]
        return ChunkTokens(encoder.state_tokens([text])[0], cost)

    episode = Episode(session.scope.scope, limits, read_chunk, encoder.stopping)
    return session.services.engine.run(encoder, session.question, episode)


def _result(session: Session, run: Run) -> RetrieveOut:
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
            context_tokens=session.loaded.encoder.chunk_tokenizer.count([context])[0],
            candidates=session.scope.scope.size,
            exact=episode.exact,
            truncated_tokens=run.truncated_tokens,
        ),
        model=session.loaded.encoder.config.name,
        timings=Timings(
            queue_ms=1000 * run.queue_seconds,
            encode_ms=1000 * run.encode_seconds,
            search_ms=1000 * run.search_seconds,
            total_ms=1000 * (time.perf_counter() - session.began),
        ),
    )


def _one_step(session: Session, run: Run) -> list[Candidate] | None:
    if not session.body.trace:
        return None
    if run.question_embedding is None:
        return []
    return session.scope.scope.nearest(run.question_embedding, session.body.max_steps)


def _step_event(session: Session, step: Step, number: int) -> StepEvent:
    documents = _documents(session, set(_shown_positions(session, step)))
    plain = _step(session, step, number, documents)
    return StepEvent(**plain.model_dump(), chunk=_selected(session, step, number, documents))


def _shown_positions(session: Session, step: Step) -> Iterator[int]:
    """A chunk of each document that the step is about."""
    yield step.position
    yield from (candidate.position for candidate in step.candidates)
    yield from (int(session.scope.scope.offsets[heat.document]) for heat in step.heat)


def _documents(session: Session, positions: set[int]) -> dict[int, Document]:
    uids = {session.scope.address(position).uid for position in positions}
    return session.services.storage.catalogue.documents_at(uids)


def _step(session: Session, step: Step, number: int, documents: dict[int, Document]) -> StepOut:
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


def _heat_map(session: Session, heat: HeatMap, documents: dict[int, Document]) -> HeatMapOut:
    return HeatMapOut(
        document_id=documents[int(session.scope.uids[heat.document])].id,
        chunks=heat.chunks,
        borders=list(heat.selected),
        q=[round(q, 4) if math.isfinite(q) else None for q in heat.largest.tolist()],
    )


def _sufficiency(found: Sufficiency | None) -> SufficiencyOut | None:
    return None if found is None else SufficiencyOut(complete=found.complete, hopeless=found.hopeless)


def _candidates(
    session: Session, candidates: tuple[Candidate, ...] | list[Candidate], documents: dict[int, Document]
) -> list[CandidateOut]:
    found = [(session.scope.address(candidate.position), candidate.q) for candidate in candidates]
    return [CandidateOut(document_id=documents[at.uid].id, index=at.number, q=q) for at, q in found]


def _stored_chunk(session: Session, address: ChunkAddress) -> StoredChunk:
    """A selected chunk; raises :class:`~index.errors.UnknownDocument`."""
    chunks = session.services.storage.catalogue.chunks(address.uid, first=address.number, limit=1)
    if not chunks:
        raise UnknownDocument("The document was deleted meanwhile.")
    return chunks[0]


def _selected(session: Session, step: Step, number: int, documents: dict[int, Document]) -> SelectedChunk:
    address = session.scope.address(step.position)
    _, chunk, text = _stored_chunk(session, address)
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
