"""A language model behind an OpenAI-compatible chat completions endpoint."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
from pydantic import BaseModel, Field, JsonValue, ValidationError
from pydantic_core import from_json

from service.errors import LanguageModelFailed, LanguageModelTooSlow, ServiceError

log = logging.getLogger(__name__)

CONNECT_SECONDS = 10.0
MOST_BYTES = 16 << 20
"""Most bytes of an answer, streamed or not: more than any language model writes for one question."""

SHOWN_CHARACTERS = 300
"""Most characters that are quoted of what an endpoint says about a request that it refuses."""

Message = dict[str, str]


@dataclass(frozen=True, slots=True)
class Prompt:
    """What a completion is made of."""

    messages: list[Message]
    temperature: float | None = None
    max_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Piece:
    """Text that the model wrote; the last piece says why it stopped (``stop``, ``length``)."""

    text: str
    finish_reason: str | None


class _Text(BaseModel):
    content: str | None = None


class _Whole(BaseModel):
    message: _Text
    finish_reason: str | None = None


class _Part(BaseModel):
    delta: _Text = _Text()
    finish_reason: str | None = None


class _Completion(BaseModel):
    choices: list[_Whole] = Field(min_length=1)


class _Chunk(BaseModel):
    choices: list[_Part] = []
    error: JsonValue = None


class _NotACompletion(Exception):
    """The endpoint speaks another language, or without end."""


class LanguageModel:
    """A model at an endpoint; whatever goes wrong there is one of our errors.

    All methods raise :class:`~service.errors.LanguageModelFailed` or :class:`~service.errors.LanguageModelTooSlow`.
    A cancelled call closes its connection, which ends the work at the endpoint.
    """

    def __init__(self, base_url: str, name: str, key: str | None, seconds: float) -> None:
        self.name = name
        self._url = f"{base_url.rstrip('/')}/chat/completions"
        self._key = key
        self._seconds = seconds
        self._client = httpx.AsyncClient(
            # Nothing packed is read, for a little of it could fill the memory.
            headers={"Accept-Encoding": "identity"} | ({} if key is None else {"Authorization": f"Bearer {key}"}),
            timeout=httpx.Timeout(seconds, connect=min(CONNECT_SECONDS, seconds)),
        )

    async def complete(self, prompt: Prompt) -> Piece:
        """The whole completion."""
        with self._our_errors():
            async with asyncio.timeout(self._seconds), self._ask(prompt, stream=False) as blocks:
                whole = _Completion.model_validate_json(b"".join([block async for block in blocks])).choices[0]
        if whole.message.content is None:
            raise LanguageModelFailed("The language model answered without a text. Ask again, or ask otherwise.")
        return Piece(whole.message.content, whole.finish_reason)

    async def stream(self, prompt: Prompt) -> AsyncGenerator[Piece, None]:
        """The completion as it is written."""
        chunk: _Chunk | None = None
        finished = False
        with self._our_errors():
            async with self._ask(prompt, stream=True) as blocks:
                async for data in _event_data(blocks):
                    if data == b"[DONE]":
                        return
                    chunk = _Chunk.model_validate_json(data)
                    if chunk.error is not None:
                        words = f"The language model failed in the middle of its answer. Ask again. {self._said(data)}"
                        raise LanguageModelFailed(words.rstrip())
                    for part in chunk.choices[:1]:
                        finished = finished or part.finish_reason is not None
                        yield Piece(part.delta.content or "", part.finish_reason)
            if chunk is None:
                raise _NotACompletion
            if not finished:
                raise LanguageModelFailed("The language model broke off in the middle of its answer. Ask again.")

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    @asynccontextmanager
    async def _ask(self, prompt: Prompt, *, stream: bool) -> AsyncIterator[AsyncIterator[bytes]]:
        """What is answered, as it arrives."""
        deadline = time.monotonic() + self._seconds
        body: dict[str, Any] = {"model": self.name, "messages": prompt.messages, "stream": stream}
        if prompt.temperature is not None:
            body["temperature"] = prompt.temperature
        if prompt.max_tokens is not None:
            body["max_tokens"] = prompt.max_tokens
        async with self._client.stream("POST", self._url, json=body) as response:
            blocks = _bounded(response, deadline)
            if response.status_code != 200:
                raise self._refusal(response.status_code, b"".join([block async for block in blocks]))
            yield blocks

    @contextmanager
    def _our_errors(self) -> Iterator[None]:
        """Turn what goes wrong at the endpoint into errors that say what to do, and note it for the operator."""
        try:
            try:
                yield
            except (TimeoutError, httpx.TimeoutException) as error:
                raise LanguageModelTooSlow(
                    f"The language model did not answer within {self._seconds:g} seconds (QRAG_ANSWER_SECONDS). Ask "
                    "again, ask for less with max_answer_tokens, or take a faster model."
                ) from error
            except httpx.ConnectError as error:
                raise LanguageModelFailed(
                    "The language model's endpoint cannot be reached. Is it running, and is LLM_BASE_URL right?"
                ) from error
            except httpx.HTTPError as error:
                raise LanguageModelFailed(
                    "The language model's endpoint closed the connection in the middle of its answer. Ask again."
                ) from error
            except (ValidationError, _NotACompletion) as error:
                raise LanguageModelFailed(
                    "The language model's endpoint answered with something else than a chat completion. Does "
                    "LLM_BASE_URL lead to an OpenAI-compatible API, as http://127.0.0.1:11434/v1 does?"
                ) from error
        except ServiceError as error:
            log.warning("%s: %s", error.code, error.detail)
            raise

    def _refusal(self, status: int, body: bytes) -> LanguageModelFailed:
        advice = {
            401: "It refuses the service's key: check LLM_API_KEY.",
            403: "It refuses the service's key: check LLM_API_KEY.",
            404: "It knows no such address or model: check LLM_BASE_URL and LLM_MODEL.",
            429: "It is busy, or its quota is used up: try again later.",
        }.get(status, "")
        # Of a refused key nothing is repeated: some endpoints quote parts of it.
        said = "" if status in (401, 403) else self._said(body)
        words = [f"The language model's endpoint answered {status}.", advice, said]
        return LanguageModelFailed(" ".join(filter(None, words)))

    def _said(self, body: bytes) -> str:
        """An endpoint's own words, as far as they are fit to be shown."""
        try:
            message = from_json(body)["error"]["message"]
        except (ValueError, LookupError, TypeError):
            return ""
        words = " ".join(str(message).split())
        if self._key:
            words = words.replace(self._key, "***")
        return f"It says: {words[:SHOWN_CHARACTERS]}"


async def _bounded(response: httpx.Response, deadline: float) -> AsyncIterator[bytes]:
    """The body, unless it is too long or takes too long."""
    size = 0
    async for block in response.aiter_raw():
        size += len(block)
        if size > MOST_BYTES:
            raise _NotACompletion
        if time.monotonic() > deadline:
            raise TimeoutError
        yield block


async def _event_data(blocks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The data of each server-sent event."""
    async for line in _lines(blocks):
        field, _, value = line.partition(b":")
        if field == b"data":
            yield value.strip()


async def _lines(blocks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """What stands between line feeds: JSON may hold every other character that ends lines elsewhere, as U+2028 does."""
    rest = bytearray()
    async for block in blocks:
        rest += block
        if b"\n" in block:
            *lines, rest = rest.split(b"\n")
            for line in lines:
                yield bytes(line)
    yield bytes(rest)
