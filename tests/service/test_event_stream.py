"""Streams of events: what is sent between them, and what is left of one whose client has gone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from typing import cast

from qrag.wire.asking.answers import TokenEvent
from service.errors import DocumentsChanged
from service.http.event_stream import COMMENT, SILENT_SECONDS, Named, event_stream

NO_TIME = 1e-4
"""Seconds of a silence that any wait is longer than."""


async def nothing() -> None:
    pass


def texts(events: AsyncGenerator[Named, None], silent_seconds: float = NO_TIME) -> AsyncGenerator[str, None]:
    """What is sent, piece by piece."""
    return cast(AsyncGenerator[str, None], event_stream(events, nothing, silent_seconds).body_iterator)


async def next_event(sent: AsyncIterator[str]) -> str:
    async for text in sent:
        if text != COMMENT:
            return text
    raise AssertionError("the stream has ended")


def test_comments_are_sent_while_there_is_no_event() -> None:
    async def work() -> None:
        go_on = asyncio.Event()

        async def events() -> AsyncGenerator[Named, None]:
            yield "token", TokenEvent(text="Ana")
            await go_on.wait()
            yield "token", TokenEvent(text=" signed")

        sent = texts(events())
        assert await next_event(sent) == 'event: token\ndata: {"text":"Ana"}\n\n'
        assert [await anext(sent), await anext(sent)] == [COMMENT, COMMENT]
        go_on.set()
        assert await next_event(sent) == 'event: token\ndata: {"text":" signed"}\n\n'
        assert [text async for text in sent] == []

    asyncio.run(work())


def test_a_comment_is_none_of_the_fields_of_an_event() -> None:
    assert COMMENT.startswith(":")
    assert COMMENT.endswith("\n\n")
    assert SILENT_SECONDS < 60


def test_there_are_no_comments_between_events_that_come_at_once() -> None:
    async def work() -> None:
        async def events() -> AsyncGenerator[Named, None]:
            for number in range(100):
                yield "token", TokenEvent(text=f"{number}")

        sent = [text async for text in texts(events(), SILENT_SECONDS)]
        assert sent == [f'event: token\ndata: {{"text":"{number}"}}\n\n' for number in range(100)]

    asyncio.run(work())


def test_an_error_after_a_silence_is_the_last_event() -> None:
    async def work() -> None:
        go_on = asyncio.Event()

        async def events() -> AsyncGenerator[Named, None]:
            yield "token", TokenEvent(text="Ana")
            await go_on.wait()
            raise DocumentsChanged("A document was deleted meanwhile.")

        sent = texts(events())
        await next_event(sent)
        assert await anext(sent) == COMMENT
        go_on.set()
        assert '"code":"documents_changed"' in await next_event(sent)
        assert [text async for text in sent] == []

    asyncio.run(work())


def test_events_are_closed_when_the_client_leaves_in_a_silence() -> None:
    async def work() -> None:
        closed = asyncio.Event()

        async def events() -> AsyncGenerator[Named, None]:
            try:
                await asyncio.Event().wait()
                yield "token", TokenEvent(text="never")
            finally:
                await asyncio.to_thread(int)  # closing may have to wait, too
                closed.set()

        sent = texts(events())
        assert await anext(sent) == COMMENT
        await sent.aclose()
        assert closed.is_set()

    asyncio.run(work())
