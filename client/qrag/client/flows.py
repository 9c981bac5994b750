"""What both clients do, without doing it: generators that say what to send and when to pause, and are told the outcome.

The clients only carry it out, one by blocking and one by awaiting, so retries, waiting and batches are written once.
"""

from __future__ import annotations

import random
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from itertools import count
from typing import Any, TypeVar

import httpx

from qrag.client import calls
from qrag.client.calls import Call
from qrag.client.errors import IndexingFailed, Overloaded, UnexpectedAnswer, refused, unreachable
from qrag.client.options import DocumentProgress
from qrag.wire.documents import DocumentIn, DocumentOut

T = TypeVar("T")

BATCH_DOCUMENTS = 100
BATCH_CHARACTERS = 1 << 22
"""Most of :meth:`Flows.index_many` in one request, unless one document alone is longer."""

TOGETHER = 8
"""Documents asked after in one go. They are indexed in order, so that those behind have to wait anyway."""

SHORTEST_PAUSE = 0.05
LONGEST_PAUSE = 1.0
"""Seconds between two looks at documents that are being indexed; the longer, the longer nothing happens."""


@dataclass(frozen=True, slots=True)
class Send:
    """Send this, and say what came of it."""

    call: Call[Any]


@dataclass(frozen=True, slots=True)
class Pause:
    """Do nothing for so many seconds."""

    seconds: float


Outcome = httpx.Response | httpx.RequestError | None
"""Of :class:`Send` the first or the second, of :class:`Pause` none."""

Flow = Generator[Send | Pause, Outcome, T]


@dataclass(frozen=True, slots=True)
class Retries:
    """How often and how patiently a request is repeated.

    It is where the connection failed, and after ``429``, ``502``, ``503`` and ``504``; never where the service said
    that the request itself is wrong, nor when an answer takes too long. The pause is what the service asks for with
    ``Retry-After``, or else random, up to ``first`` seconds doubled with each failure, and up to ``longest``.
    """

    attempts: int = 5
    """At most, the first one included."""
    seconds: float = 60.0
    """Of pauses, at most, all together."""
    first: float = 0.5
    longest: float = 10.0

    def pause(self, attempt: int, asked: float | None) -> float:
        """Seconds after the ``attempt``-th failure in a row, which is 1 or more."""
        return random.uniform(0, min(self.longest, self.first * 2 ** (attempt - 1))) if asked is None else asked


PATIENT = Retries()
ONCE = Retries(attempts=1)

_LOST = (httpx.ReadError, httpx.WriteError, httpx.CloseError, httpx.RemoteProtocolError)
"""The connection broke: whether the request was carried out is not known."""

_WORTH_REPEATING = (httpx.ConnectError, httpx.ConnectTimeout, *_LOST)


class Flows:
    """The flows of one client."""

    def __init__(self, base_url: str, retries: Retries) -> None:
        self._base_url = base_url
        self._retries = retries

    def answer(self, call: Call[Any], retries: Retries | None = None) -> Flow[httpx.Response]:
        """Send until there is a success.

        Raises :class:`~qrag.client.errors.ApiError` or :class:`~qrag.client.errors.Unreachable`.
        """
        retries = retries or self._retries
        paused = 0.0
        lost = False
        for attempt in count(1):
            outcome = yield Send(call)
            error: Exception
            if isinstance(outcome, httpx.Response):
                gone = lost and call.method == "DELETE" and outcome.status_code == 404  # by a lost attempt
                if outcome.is_success or gone:
                    return outcome
                error = refused(outcome)
                pause = retries.pause(attempt, error.retry_after)
                again = outcome.status_code in (429, 502, 503, 504)
                lost = lost or outcome.status_code in (502, 504)
            else:
                assert outcome is not None  # of Send
                error = unreachable(outcome, self._base_url)
                pause = retries.pause(attempt, None)
                again = isinstance(outcome, _WORTH_REPEATING)
                lost = lost or isinstance(outcome, _LOST)
            if not (again and call.repeatable and attempt < retries.attempts and paused + pause <= retries.seconds):
                raise error
            paused += pause
            yield Pause(pause)
        raise AssertionError("counting never ends")

    def one(self, call: Call[T]) -> Flow[T]:
        """Send, and read the answer. Raises also :class:`~qrag.client.errors.UnexpectedAnswer`."""
        response = yield from self.answer(call)
        return self.read(call, response)

    def read(self, call: Call[T], response: httpx.Response) -> T:
        """The answer. Raises :class:`~qrag.client.errors.UnexpectedAnswer` for one that is not understood."""
        try:
            return call.read(response.content)
        except ValueError as error:
            raise self.not_understood() from error

    def not_understood(self) -> UnexpectedAnswer:
        """What to say where an answer is not one of the service."""
        return UnexpectedAnswer(
            f"What answers at {self._base_url} does not speak like this service. Check the address, and that client "
            "and service are of the same version."
        )

    def ready(self) -> Flow[bool]:
        """Whether the service is ready now: asked once."""
        call = calls.ready()
        try:
            response = yield from self.answer(call, ONCE)
        except Overloaded:
            return False
        return self.read(call, response)

    def index(self, call: Call[DocumentOut], wait: bool) -> Flow[DocumentOut]:
        """Post a document, and wait for it if that is wanted."""
        document = yield from self.one(call)
        if wait:
            (document,) = yield from self.until_ready([document.id])
        return document

    def index_many(self, documents: Iterable[DocumentIn], replace: bool, wait: bool) -> Flow[list[DocumentOut]]:
        """Post documents in as many requests as they need, and wait for them if that is wanted."""
        posted: list[DocumentOut] = []
        for batch in _batches(documents):
            posted += (yield from self.one(calls.index_many(batch, replace=replace))).documents
        return (yield from self.until_ready([each.id for each in posted])) if wait else posted

    def until_ready(self, ids: Iterable[str], progress: DocumentProgress | None = None) -> Flow[list[DocumentOut]]:
        """Look at documents again and again until each is ready or has failed.

        Raises :class:`~qrag.client.errors.IndexingFailed` at the end for those that are not ready: also for one that
        waits for free space, which the service goes on with by itself.
        """
        ids = list(ids)
        seen: dict[str, DocumentOut] = {}
        left = list(dict.fromkeys(ids))
        pause = SHORTEST_PAUSE
        while left:
            changed, before = False, len(left)
            for id in left[:TOGETHER]:
                document = yield from self.one(calls.document(id))
                changed |= document != seen.get(id)
                seen[id] = document
                if progress is not None:
                    progress(document)
            left = [id for id in left if id not in seen or not _ended(seen[id])]
            if len(left) == before:
                pause = SHORTEST_PAUSE if changed else min(2 * pause, LONGEST_PAUSE)
                yield Pause(pause)
        failed = [document for document in seen.values() if document.status != "ready"]
        if failed:
            raise IndexingFailed(failed)
        return [seen[id] for id in ids]


def _ended(document: DocumentOut) -> bool:
    return document.status in ("ready", "failed") or document.error is not None


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
