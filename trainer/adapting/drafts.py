"""Questions that a frozen reader asks about chunks: of one chunk, and of two that name the same."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from trainer.readers.matching import contains, normalized
from trainer.readers.protocol import Prompt, Reader, generated

MOST_TOKENS = 96
"""Most tokens of a question with its answer."""

FEWEST_WORDS = 12
"""Shorter chunks are headings and remains: nobody asks about them."""

MOST_NAMED = 12
"""A name in more chunks than this joins nothing."""

LONGEST_ANSWER = 12
"""Most words of an answer."""

TOGETHER = 64
"""Chunks that the reader is asked about at once."""

_PAIR = re.compile(r"question:\s*(?P<question>.+?)\s*answer:\s*(?P<answer>.+)", re.IGNORECASE | re.DOTALL)
_NAME = re.compile(r"(?<![.!?]\s)(?<!^)\b[A-Z][\w'’-]+(?:\s+[A-Z][\w'’-]+)*", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Draft:
    """A question with its answer, and the positions of the chunks that it was asked about."""

    question: str
    answer: str
    chunks: tuple[int, ...]


def draft(reader: Reader, chunks: Sequence[str], singles: int, pairs: int, seed: int) -> Iterator[Draft]:
    """Questions about ``singles`` chunks and ``pairs`` of chunks, drawn at random; fewer where the reader fails to ask.

    Raises as :class:`~trainer.readers.protocol.Reader` says.
    """
    generator = np.random.default_rng(seed)
    usable = [position for position, chunk in enumerate(chunks) if len(chunk.split()) >= FEWEST_WORDS]
    asked = [(usable[place],) for place in generator.permutation(len(usable))[:singles].tolist()]
    joined = _joined(chunks, usable)
    asked_of_two = [joined[place] for place in generator.permutation(len(joined))[:pairs].tolist()]
    every: list[tuple[int, ...]] = [*asked, *asked_of_two]
    for first in range(0, len(every), TOGETHER):
        group = every[first : first + TOGETHER]
        prompts = [Prompt(None, tuple(chunks[position] for position in positions)) for positions in group]
        for positions, written in zip(group, generated(reader, prompts, MOST_TOKENS), strict=True):
            if (pair := parsed(written.text)) is not None:
                question, answer = pair
                if contains(" ".join(chunks[position] for position in positions), [answer]):
                    yield Draft(question, answer, positions)


def parsed(text: str) -> tuple[str, str] | None:
    """The question and the answer of what was written; none where there are none, or the answer is in the question."""
    found = _PAIR.search(text.replace("**", ""))  # bold, as chat models write
    if found is None:
        return None
    question = " ".join(found["question"].split())
    answer = " ".join(found["answer"].split("\n")[0].split()).rstrip(".")
    if not question.endswith("?") or not normalized(answer) or len(answer.split()) > LONGEST_ANSWER:
        return None
    return None if contains(question, [answer]) else (question, answer)


def _joined(chunks: Sequence[str], usable: Sequence[int]) -> list[tuple[int, int]]:
    """Pairs of chunks that share a name which few chunks have, each pair once."""
    holders: dict[str, list[int]] = defaultdict(list)
    for position in usable:
        for name in set(_NAME.findall(chunks[position])):
            holders[" ".join(name.split())].append(position)
    pairs = {
        (first, second)
        for positions in holders.values()
        if 2 <= len(positions) <= MOST_NAMED
        for first, second in pairwise(positions)
        if second - first > 1  # neighbours say one thing together
    }
    return sorted(pairs)
