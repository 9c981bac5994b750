"""A retrieval from a request's body to its response, at once or step by step."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import replace

from anyio import to_thread

from index.arrays import Float32Array, TokenIds
from index.encoders.encoder import Encoder
from index.episodes.episode import ChunkTokens, Episode, Limits
from index.episodes.rules import STOP_RULES, StopBelow, has_learned
from index.errors import UnknownDocument
from qrag.wire.documents import Location
from qrag.wire.retrieval import (
    MAX_STEPS,
    TRACE_CANDIDATES,
    RetrieveIn,
    RetrieveOut,
    StepEvent,
)
from qrag.wire.rules import Stop
from service.engine.runs import Run, RunEvents
from service.errors import CannotDecompose, CannotRerank, DocumentsChanged, NotCalibrated, QuestionTooLong
from service.keys import Access
from service.observing.tracing import TRACER
from service.retrieval.context import block
from service.retrieval.noting import count, keep
from service.retrieval.past import Settled, begin, look_up
from service.retrieval.results import Session, result, step_event, stored_chunk
from service.services import Services

ATTEMPTS = 3
"""Most attempts at a retrieval whose documents are deleted while it runs."""


async def prepare(body: RetrieveIn, services: Services, access: Access, settled: Settled | None = None) -> Session:
    """Check what a schema cannot, and look up the scope, with the served checkpoint unless all that is ``settled``.

    Raises :class:`~service.errors.Forbidden`, :class:`~service.errors.QuestionTooLong`,
    :class:`~service.errors.NotCalibrated`, :class:`~service.errors.CannotRerank`,
    :class:`~service.errors.CannotDecompose`, and what :func:`~service.retrieval.past.begin` and
    :func:`~service.retrieval.past.look_up` raise.
    """
    began = time.perf_counter()
    loaded = services.checkpoints.current if settled is None else settled.loaded
    scope = None if settled is None else settled.scope
    body, past = begin(body, services.signer)
    access.require(body.collection)

    def session() -> Session:
        tokenize_began = time.perf_counter()
        with TRACER.start_as_current_span("tokenize"):
            asked = _asked(body, loaded.encoder)
        tokenize_seconds = time.perf_counter() - tokenize_began
        _check_helpers(body, services)
        stop = _stop_rule(body.stop, loaded.encoder)
        searched = look_up(body, past, loaded, services.storage.catalogue, scope)
        return Session(services, loaded, access, body, asked, stop, searched, began, tokenize_seconds)

    # The storage is asked there, and the longest text that a body may hold takes seconds to become tokens.
    return await to_thread.run_sync(session)


def _asked(body: RetrieveIn, encoder: Encoder) -> TokenIds:
    """The tokens of what chunks are selected for; raises :class:`~service.errors.QuestionTooLong`."""
    assert body.question is not None  # given, or that of the continuation
    tokens = _tokens("question", body.question, encoder)
    return tokens if body.focus is None else _tokens("focus", body.focus, encoder)


def _tokens(field: str, text: str, encoder: Encoder) -> TokenIds:
    """The tokens of a question or focus; raises :class:`~service.errors.QuestionTooLong`."""
    tokens = encoder.question_tokens(text)
    if len(tokens) > encoder.question_limit:
        raise QuestionTooLong(
            f"The {field} has {len(tokens)} tokens and may have {encoder.question_limit}. Shorten it; "
            "long material belongs into a document."
        )
    return tokens


def _check_helpers(body: RetrieveIn, services: Services) -> None:
    """Raise where the service has not the models that the request wants beside the checkpoint."""
    if body.rerank is not None and services.reranker is None:
        raise CannotRerank("This service has no cross-encoder. Leave out rerank, or start it with QRAG_RERANKER.")
    if body.decompose and services.language_model is None:
        raise CannotDecompose(
            "This service has no language model that could split a question. Leave out decompose, or start it with "
            "LLM_BASE_URL (of any OpenAI-compatible endpoint) and LLM_MODEL."
        )


def _stop_rule(stop: Stop, encoder: Encoder) -> StopBelow | None:
    """The rule and its threshold; none where the budget alone ends the episode."""
    if stop.rule == "budget":
        return None
    if stop.rule is not None and stop.threshold is not None:
        rule = STOP_RULES[stop.rule]
        if not has_learned(encoder.stopping, rule):
            raise NotCalibrated(f"This checkpoint has not learned the rule {stop.rule}. Name another.")
        return StopBelow(rule, stop.threshold)
    source = encoder.config.stopping
    calibration = source.calibration if source else None
    if calibration is None:
        if stop == Stop():
            return None
        raise NotCalibrated("This checkpoint is not calibrated. Give stop.rule and stop.threshold yourself.")
    if stop.rule is not None and stop.rule not in calibration.curves:
        raise NotCalibrated(f"This checkpoint is calibrated for {', '.join(calibration.curves)}. Name one of these.")
    return calibration.rule_for(stop.rule, step_cost=stop.step_cost, target_recall=stop.target_recall)


async def find(session: Session, started: RunEvents | None = None) -> RetrieveOut:
    """Run the episode to its end; when a document is deleted meanwhile, start over, at most :data:`ATTEMPTS` times.

    The first attempt is the ``started`` episode, if there is one.

    Raises :class:`~service.errors.Overloaded` or :class:`~service.errors.DocumentsChanged`.
    """
    for attempt in range(ATTEMPTS):
        try:
            async with aclosing(start(session) if started is None else started) as events:
                async for run, step in events:
                    if step is None:
                        return await to_thread.run_sync(_ended, session, run)
        except UnknownDocument:
            if attempt == ATTEMPTS - 1:
                break
            again = await prepare(session.body, session.services, session.access)
            session, started = replace(again, is_part=session.is_part), None
    raise DocumentsChanged("Documents were deleted while the question was being answered. Ask again.")


async def follow(session: Session, events: RunEvents) -> AsyncGenerator[StepEvent | RetrieveOut, None]:
    """Each step of a started episode as it is taken, then the evidence.

    Raises :class:`~service.errors.DocumentsChanged` when a document is deleted meanwhile.
    """
    number = 0
    try:
        async with aclosing(events):
            async for run, step in events:
                if step is None:
                    yield await to_thread.run_sync(_ended, session, run)
                else:
                    yield await to_thread.run_sync(step_event, session, step, number)
                    number += 1
    except UnknownDocument as error:
        raise DocumentsChanged("A document was deleted while the question was being answered. Ask again.") from error


def _ended(session: Session, run: Run) -> RetrieveOut:
    """The response for an episode that has ended: it is counted, its question kept; raises like :func:`result`."""
    answer = result(session, run)
    count(session, run)
    if not session.is_part:
        keep(session, answer)
    return answer


def start(session: Session) -> RunEvents:
    """Start the episode; raises :class:`~service.errors.Overloaded` if there is no room for it."""
    (events,) = start_together([session])
    return events


def start_together(sessions: Sequence[Session]) -> list[RunEvents]:
    """Start the episodes of sessions over the same services, all of them or none.

    Raises what :meth:`service.engine.engine.Engine.submit` raises.
    """
    started = [_episode(session) for session in sessions]
    if sessions:
        sessions[0].services.engine.submit([events.run for events in started])
    return started


def _episode(session: Session) -> RunEvents:
    body, catalogue, encoder = session.body, session.services.storage.catalogue, session.loaded.encoder
    limits = Limits(
        max_steps=session.budget,
        beam_width=body.beam_width,
        stop=session.stop,
        max_context_tokens=body.max_context_tokens,
        candidates=TRACE_CANDIDATES if body.trace or body.heatmap else 0,
        stretches=body.heatmap or 0,
        second_look=body.rerank or 0,
    )

    def text_of(position: int) -> str:
        stored = stored_chunk(session, session.scope.address(position))
        return encoder.chunk_text(stored.heading, stored.text)

    def second_look(evidence: Sequence[int], contenders: Sequence[int]) -> Float32Array:
        reranker = session.services.reranker
        assert reranker is not None  # checked before
        return reranker.score(session.asked, [*map(text_of, contenders)], [*map(text_of, evidence)])

    def read_chunk(position: int) -> ChunkTokens:
        address = session.scope.address(position)
        stored = stored_chunk(session, address)
        cost = 0
        if body.max_context_tokens is not None:
            document = catalogue.documents_at([address.uid])[address.uid]
            location = Location.model_validate(stored.location)
            shown = block(MAX_STEPS, document.title or document.id, location, stored.text)
            cost = encoder.chunk_tokenizer.count([shown])[0]
        return ChunkTokens(encoder.state_tokens([encoder.chunk_text(stored.heading, stored.text)])[0], cost)

    scope, held = session.searched.beginning(alone=body.focus is not None)
    episode = Episode(scope, limits, read_chunk, encoder.stopping, held, session.question)
    return RunEvents(encoder, episode, second_look)
