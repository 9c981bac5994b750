"""One question or several: their episodes start together over one scope, so the engine reads it once for all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Iterable, Sequence
from itertools import islice
from typing import Any, TypeVar

from anyio import to_thread

from qrag.wire.asking.batches import BatchIn, BatchItem, BatchOut
from qrag.wire.retrieval import RetrieveOut, StepEvent
from service.errors import Overloaded
from service.http.problems import problem_of
from service.keys import Access
from service.retrieval.parts import Inquiry, joined, plan
from service.retrieval.past import Settled, scope_of
from service.retrieval.results import Session
from service.retrieval.session import find, follow, prepare, start, start_together
from service.services import Services

SPLIT_TOGETHER = 8
"""Most questions of a batch that the language model splits at the same time."""

Steps = AsyncGenerator[StepEvent | RetrieveOut, None]
"""Each step of an answer, then the answer."""

T = TypeVar("T")


async def find_evidence(session: Session) -> RetrieveOut:
    """The evidence for a question, and for each of its parts where it is to be split.

    Raises what :func:`~service.retrieval.session.find` raises, and :class:`~service.errors.TooManyQuestions`.
    """
    if not session.body.decompose:
        return await find(session)
    (answer,) = await _answers([await plan(session)])
    if isinstance(answer, Exception):
        raise answer
    return answer


def follow_evidence(session: Session) -> tuple[Steps, Callable[[], Awaitable[None]]]:
    """The steps of an episode as they are taken, and what drops it; those of a split question come at the end.

    Raises :class:`~service.errors.Overloaded` if there is no room for the episode; a split question does so later.
    """
    if session.body.decompose:
        steps = _follow_parts(session)
        return steps, steps.aclose
    events = start(session)
    return follow(session, events), events.aclose


async def _follow_parts(session: Session) -> Steps:
    answer = await find_evidence(session)
    chunks = {chunk.step: chunk for chunk in answer.chunks}
    for step in answer.steps:
        yield StepEvent(**step.model_dump(), chunk=chunks[step.step])
    yield answer


async def answer_batch(body: BatchIn, services: Services, access: Access) -> BatchOut:
    """What came of each question. A problem of one question is its own; all others are those of the batch.

    Raises :class:`~service.errors.Forbidden`, :class:`~service.errors.Overloaded`,
    :class:`~service.errors.TooManyQuestions`, and what :func:`~service.retrieval.past.scope_of` raises.
    """
    access.require(body.collection)
    retrievals = body.retrievals()
    loaded = services.checkpoints.current
    scope = await to_thread.run_sync(scope_of, retrievals[0], None, loaded, services.storage.catalogue)
    settled = Settled(loaded, scope)
    splitting = asyncio.Semaphore(SPLIT_TOGETHER)

    async def planned(number: int) -> Inquiry:
        session = await prepare(retrievals[number], services, access, settled)
        async with splitting:
            return await plan(session)

    inquiries = await _outcomes(planned(number) for number in range(len(retrievals)))
    answers = iter(await _answers([inquiry for inquiry in inquiries if isinstance(inquiry, Inquiry)]))
    outcomes = [next(answers) if isinstance(inquiry, Inquiry) else inquiry for inquiry in inquiries]
    return BatchOut(items=[_item(outcome) for outcome in outcomes])


async def _answers(inquiries: Sequence[Inquiry]) -> list[RetrieveOut | Exception]:
    """The answer to each inquiry, or the error for which it has none; their episodes start all or none.

    Raises :class:`~service.errors.Overloaded`, whichever episode has no room, and
    :class:`~service.errors.TooManyQuestions`.
    """
    sessions = [session for inquiry in inquiries for session in inquiry.episodes]
    started = start_together(sessions)
    try:
        outcomes = await _outcomes(find(session, events) for session, events in zip(sessions, started, strict=True))
    finally:
        for events in started:  # those that were not even begun
            await events.aclose()
    for outcome in outcomes:
        if isinstance(outcome, Overloaded):
            raise outcome
    episodes = iter(outcomes)
    grouped = [list(islice(episodes, len(inquiry.episodes))) for inquiry in inquiries]
    return [await _joined(inquiry, group) for inquiry, group in zip(inquiries, grouped, strict=True)]


async def _joined(inquiry: Inquiry, outcomes: Sequence[RetrieveOut | Exception]) -> RetrieveOut | Exception:
    found = []
    for outcome in outcomes:
        if isinstance(outcome, Exception):
            return outcome
        found.append(outcome)
    return await to_thread.run_sync(joined, inquiry, found)


async def _outcomes(work: Iterable[Coroutine[Any, Any, T]]) -> list[T | Exception]:
    """What comes of each, or the error that it raises."""
    outcomes: list[T | Exception] = []
    for outcome in await asyncio.gather(*work, return_exceptions=True):
        if isinstance(outcome, BaseException) and not isinstance(outcome, Exception):
            raise outcome
        outcomes.append(outcome)
    return outcomes


def _item(outcome: RetrieveOut | Exception) -> BatchItem:
    if isinstance(outcome, Exception):
        return BatchItem(problem=problem_of(outcome)[0])
    return BatchItem(result=outcome)
