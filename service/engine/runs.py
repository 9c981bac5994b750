"""A request's episode in the engine, and its events as the request sees them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from opentelemetry import context
from opentelemetry.context import Context

from index.arrays import Float32Array
from index.encoders.encoder import Encoder
from index.episodes.episode import Episode, Step

SecondLook = Callable[[Sequence[int], Sequence[int]], Float32Array]
"""Scores candidates beside the evidence that is selected already, both by their positions; shape ``[candidates]``."""


@dataclass
class Run:
    """A request's episode in the engine, with its durations so far (in seconds) and its dropped tokens."""

    encoder: Encoder
    episode: Episode
    notify: Callable[[Step | Exception | None], None]
    second_look: SecondLook | None = None
    """What chooses from an episode's contenders."""
    cancelled: bool = False
    failed: bool = False
    submitted: float = field(default_factory=time.perf_counter)
    trace: Context = field(default_factory=context.get_current)
    """The request's tracing context, to which the engine's thread adds spans."""
    queue_seconds: float = 0.0
    encode_seconds: float = 0.0
    search_seconds: float = 0.0
    second_look_seconds: float = 0.0
    truncated_tokens: int = 0
    question_embedding: Float32Array | None = None
    """The embedding of the first state, shape ``[d]``."""

    def give_up(self, error: Exception) -> None:
        """End the run with an error."""
        self.failed = True
        self.notify(error)


class RunEvents:
    """An episode's steps as they are taken, then ``None`` once; raises what the episode raised.

    Greedy steps come one by one, those of a beam together at the end. Closing drops the episode.
    """

    def __init__(self, encoder: Encoder, episode: Episode, second_look: SecondLook | None = None) -> None:
        loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[Step | Exception | None] = asyncio.Queue()
        self._ended = False

        def notify(event: Step | Exception | None) -> None:
            loop.call_soon_threadsafe(self._queue.put_nowait, event)

        self.run = Run(encoder, episode, notify, second_look)

    def __aiter__(self) -> RunEvents:
        return self

    async def __anext__(self) -> tuple[Run, Step | None]:
        if self._ended:
            raise StopAsyncIteration
        event = await self._queue.get()
        if isinstance(event, Exception):
            raise event
        self._ended = event is None
        return self.run, event

    async def aclose(self) -> None:
        """Drop the episode if it still runs."""
        self.run.cancelled = True
