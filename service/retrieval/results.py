"""The response: an episode's steps and chunks as they cross HTTP, with their texts and documents."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from index.arrays import TokenIds
from index.episodes.episode import Held, Step
from index.episodes.head import Sufficiency
from index.episodes.heat import HeatMap
from index.episodes.rules import StopBelow
from index.errors import UnknownDocument
from index.search.explanation import Parts
from index.search.scope import Candidate
from index.storage.documents import Document, StoredChunk
from index.storage.vectors import ChunkAddress, SearchScope
from qrag.wire.documents import Location
from qrag.wire.retrieval import (
    CandidateOut,
    HeatMapOut,
    PartsOut,
    RetrieveIn,
    RetrieveOut,
    SelectedChunk,
    StepEvent,
    StepOut,
    SufficiencyOut,
    TermOut,
    Timings,
    Usage,
)
from service.engine.loaded import Loaded
from service.engine.runs import Run
from service.keys import Access
from service.retrieval.context import render
from service.retrieval.continuation import Continuation, digest, token_of
from service.retrieval.past import Searched
from service.services import Services

ONE_STEP = 30
"""Chunks of the list of one step, where no more are asked for: as long as lists usually are that are fused."""


@dataclass(frozen=True, slots=True)
class Session:
    """A request on its way through the engine."""

    services: Services
    loaded: Loaded
    """The checkpoint that the request began with."""
    access: Access
    body: RetrieveIn
    """The request, with what it leaves out as it was in the call that it goes on from."""
    question: TokenIds
    """What is :attr:`asked`, as tokens."""
    stop: StopBelow | None
    searched: Searched
    began: float
    tokenize_seconds: float
    is_part: bool = False
    """Whether its question is a part of the one that was asked."""

    @property
    def asked(self) -> str:
        """What chunks are selected for in this call, in words: its focus, or the question."""
        asked = self.body.focus or self.body.question
        assert asked is not None  # the request has a question, or its continuation
        return asked

    @property
    def budget(self) -> int:
        """Most chunks that are selected."""
        return max(0, min(self.body.max_steps, self.body.max_total_chunks - len(self.searched.held)))

    @property
    def scope(self) -> SearchScope:
        """The chunks that the request may select from."""
        return self.searched.scope


def result(session: Session, run: Run) -> RetrieveOut:
    """The response for an episode that has ended.

    Raises :class:`~index.errors.UnknownDocument` where a document was deleted meanwhile.
    """
    body, episode = session.body, run.episode
    assert episode.stopped_by is not None  # the engine has finished it
    one_step = _one_step(session, run)
    positions = {position for step in episode.steps for position in _shown_positions(session, step)}
    documents = _documents(session, positions | {candidate.position for candidate in one_step or []})
    chunks = [_selected(session, step, number, documents) for number, step in enumerate(episode.steps)]
    if body.order == "document":
        position_of_step = {chunk.step: episode.steps[chunk.step].position for chunk in chunks}
        chunks.sort(key=lambda chunk: position_of_step[chunk.step])
    context, citations = render(chunks)
    return RetrieveOut(
        focus=body.focus,
        chunks=chunks,
        context=context,
        citations=citations,
        steps=[_step(session, step, number, documents) for number, step in enumerate(episode.steps)],
        one_step=None if one_step is None else _candidates(session, one_step, documents),
        stopped_by=episode.stopped_by,
        sufficiency=_sufficiency(episode.sufficiency),
        continuation=continuation_after(session, [(step.position, step.q) for step in episode.steps]),
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
            rerank_ms=1000 * run.second_look_seconds,
            total_ms=1000 * (time.perf_counter() - session.began),
        ),
    )


def _one_step(session: Session, run: Run) -> list[Candidate] | None:
    if not session.body.trace:
        return None
    if run.question_embedding is None:
        return []
    scope, _ = session.searched.beginning(alone=True)
    return scope.nearest(run.question_embedding, max(ONE_STEP, session.body.max_steps))


def continuation_after(session: Session, selections: Sequence[tuple[int, float]]) -> str | None:
    """What another call goes on from after selections, positions with their Q-values; raises like :func:`result`."""
    if session.body.focus is not None:  # what a chunk was worth to the focus says nothing of the question
        selections = [Held(position) for position, _ in selections]
    held = tuple((session.scope.address(position), q) for position, q in [*session.searched.held, *selections])
    uids = {address.uid for address in [*(address for address, _ in held), *session.searched.excluded]}
    continuation = Continuation(
        request=session.body,
        checkpoint=session.loaded.encoder.config.fingerprint,
        versions=digest(session.services.storage.catalogue.documents_at(uids).values()),
        held=held,
        excluded=session.searched.excluded,
    )
    return token_of(continuation, session.services.signer)


def step_event(session: Session, step: Step, number: int) -> StepEvent:
    """One step as it is streamed; raises like :func:`result`."""
    documents = _documents(session, set(_shown_positions(session, step)))
    step_out = _step(session, step, number, documents)
    return StepEvent(**step_out.model_dump(), chunk=_selected(session, step, number, documents))


def _shown_positions(session: Session, step: Step) -> Iterator[int]:
    """Positions of chunks, at least one of each document that the step mentions."""
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
        parts=_parts(session, step.parts) if session.body.trace and step.parts is not None else None,
        rerank_score=step.second_score,
        heatmap=[_heat_map(session, heat, documents) for heat in step.heat] if session.body.heatmap else None,
    )


def _parts(session: Session, parts: Parts) -> PartsOut:
    spelled = session.loaded.encoder.chunk_tokenizer.spelled([token for token, _ in parts.terms])
    return PartsOut(
        constant=parts.constant,
        meaning=parts.meaning,
        order=parts.order,
        spread=parts.spread,
        surroundings=parts.surroundings,
        terms=[TermOut(token=token, q=added) for token, (_, added) in zip(spelled, parts.terms, strict=True)],
    )


def _heat_map(session: Session, heat: HeatMap, documents: dict[int, Document]) -> HeatMapOut:
    return HeatMapOut(
        document_id=documents[int(session.scope.uids[heat.document])].id,
        chunks=heat.chunks,
        borders=list(heat.selected),
        q=[round(q, 4) if math.isfinite(q) else None for q in heat.largest.tolist()],
    )


def _sufficiency(sufficiency: Sufficiency | None) -> SufficiencyOut | None:
    if sufficiency is None:
        return None
    return SufficiencyOut(complete=sufficiency.complete, hopeless=sufficiency.hopeless)


def _candidates(
    session: Session, candidates: tuple[Candidate, ...] | list[Candidate], documents: dict[int, Document]
) -> list[CandidateOut]:
    scored = [(session.scope.address(candidate.position), candidate.q) for candidate in candidates]
    return [CandidateOut(document_id=documents[chunk.uid].id, index=chunk.number, q=q) for chunk, q in scored]


def stored_chunk(session: Session, address: ChunkAddress) -> StoredChunk:
    """A selected chunk; raises :class:`~index.errors.UnknownDocument`."""
    chunks = session.services.storage.catalogue.chunks(address.uid, first=address.number, limit=1)
    if not chunks:
        raise UnknownDocument("The document was deleted meanwhile.")
    return chunks[0]


def _selected(session: Session, step: Step, number: int, documents: dict[int, Document]) -> SelectedChunk:
    address = session.scope.address(step.position)
    stored = stored_chunk(session, address)
    document = documents[address.uid]
    return SelectedChunk(
        document_id=document.id,
        title=document.title,
        index=address.number,
        start=stored.chunk.start,
        end=stored.chunk.end,
        text=stored.text,
        step=number,
        q=step.q,
        metadata=dict(document.metadata),
        location=Location.model_validate(stored.location),
    )
