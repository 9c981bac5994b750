"""Answers that are sent piece by piece, as server-sent events."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Any

from anyio import CancelScope
from fastapi import Request
from fastapi.responses import StreamingResponse
from starlette.background import BackgroundTask

from qrag.wire.models import ResponseModel
from service.http.dependencies import accepts
from service.http.problems import problem_of

UNICODE_LINE_ENDS = "\x85\u2028\u2029"
"""Many libraries take them for the end of a line, although events do not."""

SILENT_SECONDS = 15.0
"""How long nothing is sent before a comment is: many proxies cut connections that are silent for a minute."""

COMMENT = ": working\n\n"
"""What is sent where there is no event yet; parsers of events pass over it."""

Named = tuple[str, ResponseModel]
"""An event's name and its data."""


def events_described(description: str, example: str) -> dict[int | str, dict[str, Any]]:
    """For OpenAPI: what a route streams to those who ask for it."""
    content = {"schema": {"type": "string", "description": description}, "example": example}
    return {200: {"content": {"text/event-stream": content}}}


def wants_events(request: Request) -> bool:
    """Whether the client asks for events rather than for one answer."""
    return accepts(request, "text/event-stream")


def event_stream(
    events: AsyncGenerator[Named, None], at_end: Callable[[], Awaitable[None]], silent_seconds: float = SILENT_SECONDS
) -> StreamingResponse:
    """The events as they come, and a comment after each silence of ``silent_seconds``.

    What goes wrong after the first byte is an ``error`` event with a problem. ``at_end`` is called in any case: the
    client may leave before the stream begins.
    """
    text = _with_comments(_text(events), silent_seconds)

    async def close() -> None:
        await text.aclose()  # of a client that has left in the middle
        await at_end()

    return StreamingResponse(
        text,
        media_type="text/event-stream",
        # Proxies would otherwise collect events before they pass them on.
        headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"},
        background=BackgroundTask(close),
    )


async def _text(events: AsyncGenerator[Named, None]) -> AsyncGenerator[str, None]:
    try:
        async with aclosing(events):
            async for name, data in events:
                yield _event(name, data.model_dump_json())
    except Exception as error:
        problem, _ = problem_of(error)
        yield _event("error", problem.model_dump_json(exclude_none=True))


async def _with_comments(texts: AsyncGenerator[str, None], silent_seconds: float) -> AsyncGenerator[str, None]:
    """The texts, and comments between them. One task takes all texts: a timeout would end what is waited for."""
    ready: asyncio.Queue[str | None] = asyncio.Queue()

    async def take() -> None:
        try:
            async with aclosing(texts):
                async for text in texts:
                    ready.put_nowait(text)
        finally:
            ready.put_nowait(None)

    taking = asyncio.create_task(take())
    try:
        while True:
            try:
                async with asyncio.timeout(silent_seconds):
                    text = await ready.get()
            except TimeoutError:
                text = COMMENT
            if text is None:
                return
            yield text
    finally:
        taking.cancel()
        with CancelScope(shield=True):  # what the events hold is given back when this ends, if the client has left too
            await asyncio.wait([taking])


def _event(name: str, data: str) -> str:
    for character in UNICODE_LINE_ENDS:  # which JSON has in strings alone
        data = data.replace(character, f"\\u{ord(character):04x}")
    return f"event: {name}\ndata: {data}\n\n"
