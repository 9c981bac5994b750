"""What OpenAI-compatible completions say about the tokens of a prompt.

Two forms are read. ``echo``: the old ``logprobs`` object with ``tokens`` and ``token_logprobs``, the prompt's before
what was written, as OpenAI defined it and llama-cpp-python's server and vLLM have it. ``prompt_logprobs``: vLLM's own
list, for each token of the prompt its id with text and log-probability. The first token of a text has none in either.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from pydantic import BaseModel

POSITIVE = 1e-3
"""By how much rounding may lift a log-probability above 0."""


class NotScored(Exception):
    """A response does not say what the tokens of its prompt were worth; the message says what is wrong with it."""


class Token(NamedTuple):
    """A token of a prompt; the text may be incomplete where a character is several tokens."""

    text: str
    log_probability: float | None


class _Old(BaseModel):
    tokens: list[str] | None = None
    token_logprobs: list[float | None] | None = None


class _Detail(BaseModel):
    logprob: float
    decoded_token: str | None = None


class _Choice(BaseModel):
    text: str = ""
    logprobs: _Old | None = None
    prompt_logprobs: list[Mapping[str, _Detail] | None] | None = None


class _Usage(BaseModel):
    prompt_tokens: int
    completion_tokens: int


class Completion(BaseModel):
    """The parts of a response that are read."""

    choices: list[_Choice]
    usage: _Usage | None = None


@dataclass(frozen=True, slots=True)
class Form:
    """One of the two forms: what a request asks for."""

    name: str
    fields: Mapping[str, Any]

    def tokens(self, completion: Completion) -> list[Token]:
        """The tokens of the prompt; raises :class:`NotScored` where the response does not have all of them."""
        if not completion.choices:
            raise NotScored("it has no choices")
        choice = completion.choices[0]
        return _listed(choice) if self.name == "prompt_logprobs" else _echoed(choice, completion.usage)


ECHO = Form("echo", {"echo": True, "logprobs": 1})
PROMPT_LOGPROBS = Form("prompt_logprobs", {"prompt_logprobs": 0})


def _echoed(choice: _Choice, usage: _Usage | None) -> list[Token]:
    if choice.logprobs is None or choice.logprobs.tokens is None or choice.logprobs.token_logprobs is None:
        raise NotScored("it has no logprobs with tokens and token_logprobs")
    texts, values = choice.logprobs.tokens, choice.logprobs.token_logprobs
    if len(texts) != len(values):
        raise NotScored(f"it has {len(texts)} tokens and {len(values)} log-probabilities")
    written = 1 if usage is None else usage.completion_tokens
    if len(texts) <= written:
        raise NotScored("it has no tokens of the prompt")
    return [Token(text, value) for text, value in zip(texts, values, strict=True)][: len(texts) - written]


def _listed(choice: _Choice) -> list[Token]:
    if not choice.prompt_logprobs:
        raise NotScored("it has no prompt_logprobs")
    tokens = []
    for entry in choice.prompt_logprobs:
        # The prompt's own token comes first, whatever else is listed.
        detail = next(iter(entry.values()), None) if entry else None
        text = detail.decoded_token if detail is not None else ""
        if text is None:
            raise NotScored("its prompt_logprobs have no texts")
        tokens.append(Token(text, None if detail is None else detail.logprob))
    return tokens


def log_probability(tokens: list[Token]) -> float:
    """The sum over these tokens, in nats; raises :class:`NotScored` for what is no log-probability."""
    total = 0.0
    for token in tokens:
        value = token.log_probability
        if value is None or not math.isfinite(value) or value > POSITIVE:
            raise NotScored(f"it gives the token {token.text!r} the log-probability {value}")
        total += value
    return total
