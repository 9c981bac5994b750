"""A language model behind an OpenAI-compatible chat completions endpoint."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Annotated, Any

import httpx
from pydantic import AfterValidator, BaseModel, JsonValue, ValidationError, field_validator
from pydantic_core import from_json

from qrag.client.proxies import proxy_settings
from service.errors import ConfigurationError, LanguageModelFailed, LanguageModelTooSlow, ServiceError
from service.thinking import ThinkingFilter

log = logging.getLogger(__name__)

CONNECT_SECONDS = 10.0
"""Most seconds that connecting may take."""

MOST_BYTES = 16 << 20
"""Most bytes of an answer, streamed or not: more than any language model writes for one question."""

SHOWN_CHARACTERS = 300
"""Most characters that are quoted of what an endpoint says about a request that it refuses."""

_TEXT_PARTS = frozenset({"text", "output_text"})
"""Parts of a content that are text for the reader."""

Message = dict[str, str]
"""A chat message: ``role`` and ``content``."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """The input of a completion."""

    messages: list[Message]
    temperature: float | None = None
    max_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Piece:
    """Text that the model wrote; the last piece says why it stopped (``stop``, ``length``)."""

    text: str
    finish_reason: str | None


_FinishReason = Annotated[str | None, AfterValidator(lambda reason: reason or None)]
"""Why the model stopped; None while it writes, for which some endpoints say ``""``."""


class _Text(BaseModel):
    content: str | None = None

    @field_validator("content", mode="before")
    @classmethod
    def _of_parts(cls, content: object) -> object:
        """The text of a content that comes in parts, some of which are the model's thinking."""
        if not isinstance(content, list):
            return content
        texts = [part.get("text") for part in content if isinstance(part, dict) and part.get("type") in _TEXT_PARTS]
        return "".join(text for text in texts if isinstance(text, str))


class _Whole(BaseModel):
    message: _Text
    finish_reason: _FinishReason = None


class _Part(BaseModel):
    delta: _Text | None = None
    finish_reason: _FinishReason = None


class _Completion(BaseModel):
    choices: list[_Whole] = []
    error: JsonValue = None


class _Chunk(BaseModel):
    choices: list[_Part] = []
    error: JsonValue = None


class _NotACompletion(Exception):
    """The response is no completion, or exceeds :data:`MOST_BYTES`."""


class LanguageModel:
    """A model at an endpoint; its failures become errors of the service.

    All methods raise :class:`~service.errors.LanguageModelFailed` or :class:`~service.errors.LanguageModelTooSlow`.
    A cancelled call closes its connection, which ends the work at the endpoint.
    """

    def __init__(self, base_url: str, name: str, key: str | None, seconds: float) -> None:
        self.name = name
        self._url = f"{base_url.rstrip('/')}/chat/completions"
        self._key = key
        self._seconds = seconds
        self._limit = "max_tokens"
        """What the endpoint calls the most tokens of an answer."""
        self._thinks_unopened = False
        """Whether the last answer began with thinking that no tag opened: a stream tells only when it has passed."""
        self._client = httpx.AsyncClient(
            # Ask for uncompressed responses: a small compressed body could expand beyond MOST_BYTES.
            headers={"Accept-Encoding": "identity"} | ({} if key is None else {"Authorization": f"Bearer {key}"}),
            timeout=httpx.Timeout(seconds, connect=min(CONNECT_SECONDS, seconds)),
            **_proxy(self._url),
        )

    async def complete(self, prompt: Prompt) -> Piece:
        """The whole completion."""
        with self._translated_errors():
            async with self._ask(prompt, stream=False) as blocks:
                body = b"".join([block async for block in blocks])
            completion = _Completion.model_validate_json(body)
            if completion.error is not None:
                raise LanguageModelFailed(f"The language model failed. Ask again. {self._quoted(body)}".rstrip())
            if not completion.choices:
                raise _NotACompletion
        whole = completion.choices[0]
        if whole.message.content is None:
            raise LanguageModelFailed("The language model answered without a text. Ask again, or ask otherwise.")
        thinking = ThinkingFilter(opened=True)
        text = thinking.passed(whole.message.content, final=True)
        self._thinks_unopened = thinking.closed_only
        return Piece(text, whole.finish_reason)

    async def stream(self, prompt: Prompt) -> AsyncGenerator[Piece, None]:
        """The completion as it is written."""
        chunk: _Chunk | None = None
        finished = False
        thinking = ThinkingFilter(opened=self._thinks_unopened)
        with self._translated_errors():
            async with self._ask(prompt, stream=True) as blocks:
                async for data in _event_data(blocks):
                    if data == b"[DONE]":
                        finished = True
                        break
                    chunk = _Chunk.model_validate_json(data)
                    if chunk.error is not None:
                        message = (
                            f"The language model failed in the middle of its answer. Ask again. {self._quoted(data)}"
                        )
                        raise LanguageModelFailed(message.rstrip())
                    for part in chunk.choices[:1]:
                        finished = finished or part.finish_reason is not None
                        text = (part.delta and part.delta.content) or ""
                        yield Piece(thinking.passed(text, final=part.finish_reason is not None), part.finish_reason)
            if chunk is None:
                raise _NotACompletion
            if not finished:
                raise LanguageModelFailed("The language model broke off in the middle of its answer. Ask again.")
            self._thinks_unopened = thinking.closed_only
            if rest := thinking.passed("", final=True):
                yield Piece(rest, None)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    @asynccontextmanager
    async def _ask(self, prompt: Prompt, *, stream: bool) -> AsyncIterator[AsyncIterator[bytes]]:
        """The response's body, block by block."""
        deadline = asyncio.get_running_loop().time() + self._seconds
        body: dict[str, Any] = {"model": self.name, "messages": prompt.messages, "stream": stream}
        if prompt.temperature is not None:
            body["temperature"] = prompt.temperature
        for limit in dict.fromkeys((self._limit, "max_completion_tokens")):
            limited = body if prompt.max_tokens is None else {**body, limit: prompt.max_tokens}
            request = self._client.build_request("POST", self._url, json=limited)
            async with asyncio.timeout_at(deadline):
                response = await self._client.send(request, stream=True)
            async with aclosing(response):
                blocks = _bounded(response, deadline)
                if response.status_code == 200:
                    self._limit = limit
                    yield blocks
                    return
                refusal = b"".join([block async for block in blocks])
            # Newer models have another name for the limit, and say so.
            if response.status_code != 400 or limit not in limited or b"max_completion_tokens" not in refusal:
                break
        raise self._refusal(response.status_code, refusal)

    @contextmanager
    def _translated_errors(self) -> Iterator[None]:
        """Turn what goes wrong at the endpoint into errors that say what to do, and log it for the operator."""
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
        # Where the key is refused, the endpoint is not quoted: some repeat parts of the key.
        quotation = "" if status in (401, 403) else self._quoted(body)
        sentences = [f"The language model's endpoint answered {status}.", advice, quotation]
        return LanguageModelFailed(" ".join(filter(None, sentences)))

    def _quoted(self, body: bytes) -> str:
        """The endpoint's error message as a sentence, shortened and without the key; empty where there is none."""
        try:
            error = from_json(body)["error"]
            message = error if isinstance(error, str) else error["message"]
        except (ValueError, LookupError, TypeError):
            return ""
        shown = " ".join(str(message).split())
        if self._key:
            shown = shown.replace(self._key, "***")
        return f"It says: {shown[:SHOWN_CHARACTERS]}"


def _proxy(url: str) -> dict[str, Any]:
    """Raises :class:`~service.errors.ConfigurationError` for a proxy that cannot be used."""
    try:
        return proxy_settings(httpx.URL(url))
    except ValueError as error:
        raise ConfigurationError(str(error)) from None


async def _bounded(response: httpx.Response, deadline: float) -> AsyncIterator[bytes]:
    """The body; raises where it is too long, or is not complete at the ``deadline`` of the loop's clock."""
    blocks = response.aiter_raw()
    size = 0
    while True:
        async with asyncio.timeout_at(deadline):
            block = await anext(blocks, None)
        if block is None:
            return
        size += len(block)
        if size > MOST_BYTES:
            raise _NotACompletion
        yield block


async def _event_data(blocks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The data of each server-sent event."""
    async for line in _lines(blocks):
        field, _, value = line.partition(b":")
        if field == b"data":
            yield value.strip()


async def _lines(blocks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The lines, ended by line feeds alone: JSON may contain other line separators, such as U+2028."""
    incomplete = bytearray()
    async for block in blocks:
        incomplete += block
        if b"\n" in block:
            *lines, incomplete = incomplete.split(b"\n")
            for line in lines:
                yield bytes(line)
    yield bytes(incomplete)
