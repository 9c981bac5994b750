"""The logic of both clients without input and output: generators that yield steps and receive the outcome of each.

A client carries the steps out, one by blocking and one by awaiting, so retries, waiting and batches are written once.
"""

from __future__ import annotations

import random
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from itertools import count, islice
from typing import Any, TypeVar

import httpx

from qrag.client import calls
from qrag.client.calls import Call
from qrag.client.errors import IndexingFailed, Overloaded, UnexpectedAnswer, refused, unreachable
from qrag.client.options import BatchOptions, DocumentProgress
from qrag.wire.asking.batches import MAX_BATCH, BatchItem, BatchQuestion
from qrag.wire.documents import DocumentIn, DocumentOut

T = TypeVar("T")

BATCH_DOCUMENTS = 100
"""Most documents in one request of :meth:`Flows.index_many`."""

BATCH_CHARACTERS = 1 << 22
"""Most characters in one request of :meth:`Flows.index_many`, unless a single document is longer."""

POLLED_DOCUMENTS = 8
"""Documents polled in one round. They are indexed in order, so the ones behind have to wait anyway."""

SHORTEST_PAUSE = 0.05
LONGEST_PAUSE = 1.0
"""Seconds between two rounds of polling; the pause doubles while nothing changes."""


@dataclass(frozen=True, slots=True)
class Send:
    """The step of sending a request; its outcome is the response, or the error of the connection."""

    call: Call[Any]


@dataclass(frozen=True, slots=True)
class Pause:
    """The step of waiting; its outcome is None."""

    seconds: float


Outcome = httpx.Response | httpx.RequestError | None
"""The outcome of a step."""

Flow = Generator[Send | Pause, Outcome, T]


@dataclass(frozen=True, slots=True)
class Retries:
    """How often a request is repeated, and after which pauses.

    A request is repeated where the connection failed, and after ``429``, ``502``, ``503`` and ``504``; never where the
    service said that the request itself is wrong, nor when an answer takes too long. A pause has the length that the
    service asks for with ``Retry-After``; otherwise it is random, at most ``first`` seconds doubled with each failure,
    and at most ``longest``.
    """

    attempts: int = 5
    """Most attempts, the first one included."""
    seconds: float = 60.0
    """Most seconds in all pauses of a request."""
    first: float = 0.5
    """Most seconds of the first pause."""
    longest: float = 10.0
    """Most seconds of a pause that the service does not ask for."""

    def pause(self, attempt: int, retry_after: float | None) -> float:
        """Seconds to wait after the ``attempt``-th failure in a row; ``attempt`` counts from 1."""
        if retry_after is not None:
            return retry_after
        return random.uniform(0, min(self.longest, self.first * 2 ** (attempt - 1)))


PATIENT = Retries()
"""The default of both clients."""

ONCE = Retries(attempts=1)
"""No retries."""

_BROKEN = (httpx.ReadError, httpx.WriteError, httpx.CloseError, httpx.RemoteProtocolError)
"""Errors of a connection that broke: whether the request was carried out is unknown."""

_TOO_SLOW = "language_model_too_slow"
"""The code of a 504 after which a request is not repeated: the answer has taken too long."""

_RETRYABLE = (httpx.ConnectError, httpx.ConnectTimeout, *_BROKEN)
"""Errors after which a request is repeated."""


class Flows:
    """The flows of one client."""

    def __init__(self, base_url: str, retries: Retries) -> None:
        self._base_url = base_url
        self._retries = retries

    def answer(self, call: Call[Any], retries: Retries | None = None) -> Flow[httpx.Response]:
        """Send until the service answers with success.

        Raises :class:`~qrag.client.errors.ApiError` or :class:`~qrag.client.errors.Unreachable`.
        """
        retries = retries or self._retries
        paused = 0.0
        lost = False
        for attempt in count(1):
            outcome = yield Send(call)
            error: Exception
            if isinstance(outcome, httpx.Response):
                deleted = lost and call.method == "DELETE" and outcome.status_code == 404  # by a lost attempt
                if outcome.is_success or deleted:
                    return outcome
                error = refused(outcome)
                pause = retries.pause(attempt, error.retry_after)
                again = outcome.status_code in (429, 502, 503, 504) and error.code != _TOO_SLOW
                # 503 also says that the storage was lost, perhaps after the deletion was committed.
                lost = lost or outcome.status_code in (502, 503, 504)
            else:
                assert outcome is not None  # only a pause has none
                error = unreachable(outcome, self._base_url)
                pause = retries.pause(attempt, None)
                again = isinstance(outcome, _RETRYABLE)
                lost = lost or isinstance(outcome, _BROKEN)
            if not (again and call.repeatable and attempt < retries.attempts and paused + pause <= retries.seconds):
                raise error
            paused += pause
            yield Pause(pause)
        raise AssertionError("counting never ends")

    def send(self, call: Call[T]) -> Flow[T]:
        """Send a call and read the answer. Raises also :class:`~qrag.client.errors.UnexpectedAnswer`."""
        response = yield from self.answer(call)
        return self.read(call, response)

    def read(self, call: Call[T], response: httpx.Response) -> T:
        """Read the answer. Raises :class:`~qrag.client.errors.UnexpectedAnswer` for one that the call cannot read."""
        try:
            return call.read(response.content)
        except ValueError as error:
            raise self.not_understood() from error

    def not_understood(self) -> UnexpectedAnswer:
        """The exception for an answer that is not one of the service."""
        return UnexpectedAnswer(
            f"The answer from {self._base_url} is not one of this service. Check the address, and that client and "
            "service have the same version."
        )

    def ready(self) -> Flow[bool]:
        """Ask once whether the service is ready."""
        call = calls.ready()
        try:
            response = yield from self.answer(call, ONCE)
        except Overloaded:
            return False
        return self.read(call, response)

    def index(self, call: Call[DocumentOut], wait: bool) -> Flow[DocumentOut]:
        """Post a document, and with ``wait`` wait for it."""
        document = yield from self.send(call)
        if wait:
            (document,) = yield from self.until_ready([document.id])
        return document

    def index_many(self, documents: Iterable[DocumentIn], replace: bool, wait: bool) -> Flow[list[DocumentOut]]:
        """Post documents in as many requests as they need, and with ``wait`` wait for them."""
        posted: list[DocumentOut] = []
        for batch in _batches(documents):
            posted += (yield from self.send(calls.index_many(batch, replace=replace))).documents
        return (yield from self.until_ready([document.id for document in posted])) if wait else posted

    def retrieve_batch(self, questions: Iterable[str | BatchQuestion], options: BatchOptions) -> Flow[list[BatchItem]]:
        """Ask questions in as many requests as they need."""
        items: list[BatchItem] = []
        waiting = iter(questions)
        while batch := list(islice(waiting, MAX_BATCH)):
            items += (yield from self.send(calls.retrieve_batch(batch, options))).items
        return items

    def until_ready(self, ids: Iterable[str], progress: DocumentProgress | None = None) -> Flow[list[DocumentOut]]:
        """Poll documents until each is ready or has failed.

        Raises :class:`~qrag.client.errors.IndexingFailed` at the end for the documents that are not ready: also for
        one that waits for free space, whose indexing the service resumes by itself.
        """
        ids = list(ids)
        seen: dict[str, DocumentOut] = {}
        pending = list(dict.fromkeys(ids))
        pause = SHORTEST_PAUSE
        while pending:
            changed, before = False, len(pending)
            for id in pending[:POLLED_DOCUMENTS]:
                document = yield from self.send(calls.document(id))
                changed |= document != seen.get(id)
                seen[id] = document
                if progress is not None:
                    progress(document)
            pending = [id for id in pending if id not in seen or not _ended(seen[id])]
            if len(pending) == before:
                pause = SHORTEST_PAUSE if changed else min(2 * pause, LONGEST_PAUSE)
                yield Pause(pause)
        failed = [document for document in seen.values() if document.status != "ready" or document.replacement]
        if failed:
            raise IndexingFailed(failed)
        return [seen[id] for id in ids]


def _ended(document: DocumentOut) -> bool:
    waiting = document.replacement or document
    return waiting.status in ("ready", "failed") or waiting.error is not None


def _batches(documents: Iterable[DocumentIn]) -> Iterator[list[DocumentIn]]:
    batch: list[DocumentIn] = []
    characters = 0
    for document in documents:
        if batch and (len(batch) == BATCH_DOCUMENTS or characters + len(document.text) > BATCH_CHARACTERS):
            yield batch
            batch, characters = [], 0
        batch.append(document)
        characters += len(document.text)
    if batch:
        yield batch
