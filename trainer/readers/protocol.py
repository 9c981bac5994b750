"""What a reader is.

A reader is frozen: its weights never change, so what it says about a request is a fact that can be kept
(:class:`~trainer.readers.cache.CachedReader`). Results come one by one, each as soon as it is known: whoever stores
them loses nothing where the reader fails in the middle.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from index.arrays import Float64Array, IntArray


@dataclass(frozen=True, slots=True)
class Prompt:
    """A question with the texts that its answer is to be read from, the most important first.

    Without a question the reader is to ask one itself: with its answer, or the one that the last of the contexts
    answers with ``answer``.
    """

    question: str | None
    contexts: tuple[str, ...] = ()
    answer: str | None = None

    @property
    def start(self) -> str:
        """The beginning of the question, for messages."""
        return (self.question or "")[:80]


@dataclass(frozen=True, slots=True)
class Request:
    """An answer to be scored."""

    prompt: Prompt
    answer: str


@dataclass(frozen=True, slots=True)
class Score:
    """How probable a request's answer is to a reader."""

    log_probability: float
    """``Σ log P(token | prompt, the answer's tokens before it)``, in nats: R3's ``S(q, d)`` is its exponential."""
    answer_tokens: int
    """Summands; the quotient is the mean log-probability of a token."""
    prompt_tokens: int
    """Tokens read before the answer."""
    contexts: int
    """Contexts that were read whole, from the first on: fewer than the prompt has where it was too long."""


@dataclass(frozen=True, slots=True)
class Generation:
    """What a reader wrote: the most probable token each time."""

    text: str
    prompt_tokens: int
    """As in :class:`Score`."""
    contexts: int
    """As in :class:`Score`."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What a reader says of a request's answer, and what it answers itself."""

    score: Score
    generation: Generation


@dataclass(frozen=True, slots=True)
class Scores:
    """The scores of several requests, arrays of shape ``[requests]``."""

    log_probability: Float64Array
    answer_tokens: IntArray
    prompt_tokens: IntArray
    contexts: IntArray

    @property
    def mean(self) -> Float64Array:
        """The mean log-probability of an answer's token, in nats."""
        return self.log_probability / self.answer_tokens


class Reader(Protocol):
    """A frozen language model.

    The iterators raise :class:`~trainer.errors.ReaderError` where the model fails, after everything that was done
    before, and for a request that cannot be read at all: an empty answer, a question that is too long by itself.
    """

    @property
    def identity(self) -> str:
        """Everything that decides a result beside the request: weights, precision, wording, limits."""

    def log_probability(self, requests: Sequence[Request], /) -> Iterator[tuple[int, Score]]:
        """Each request's place and score, in any order; one forward pass each, nothing is generated."""

    def generate(self, prompts: Sequence[Prompt], most_tokens: int, /) -> Iterator[tuple[int, Generation]]:
        """Each prompt's place and the answer that the reader writes, of at most ``most_tokens``, in any order."""

    def reply(self, requests: Sequence[Request], most_tokens: int, /) -> Iterator[tuple[int, Reply]]:
        """Each request's place, score and the answer to its prompt that the reader writes, in any order.

        The same as the two methods above say, for less: a prompt need not be read twice.
        """


def scored(reader: Reader, requests: Sequence[Request]) -> Scores:
    """The scores of all requests, in their order. Raises as :class:`Reader` says."""
    scores = dict(reader.log_probability(requests))
    return _together([scores[place] for place in range(len(requests))])


def _together(ordered: Sequence[Score]) -> Scores:
    return Scores(
        log_probability=np.array([score.log_probability for score in ordered], dtype=np.float64),
        answer_tokens=np.array([score.answer_tokens for score in ordered], dtype=np.int64),
        prompt_tokens=np.array([score.prompt_tokens for score in ordered], dtype=np.int64),
        contexts=np.array([score.contexts for score in ordered], dtype=np.int64),
    )


def generated(reader: Reader, prompts: Sequence[Prompt], most_tokens: int) -> list[Generation]:
    """What the reader writes for each prompt, in their order. Raises as :class:`Reader` says."""
    generations = dict(reader.generate(prompts, most_tokens))
    return [generations[place] for place in range(len(prompts))]


def replied(reader: Reader, requests: Sequence[Request], most_tokens: int) -> tuple[Scores, list[Generation]]:
    """The scores of all requests and what the reader writes to each, in order. Raises as :class:`Reader` says."""
    replies = dict(reader.reply(requests, most_tokens))
    ordered = [replies[place] for place in range(len(requests))]
    return _together([reply.score for reply in ordered]), [reply.generation for reply in ordered]
