"""Questions that a frozen reader asks about chunks: of one chunk, and of two that name the same."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from trainer.readers.asking import LEAD
from trainer.readers.matching import contains, normalized
from trainer.readers.protocol import Prompt, Reader, generated

MOST_TOKENS = 48
"""Most tokens of a question."""

ANSWER_TOKENS = 16
"""Most tokens of an answer."""

FEWEST_WORDS = 12
"""Shorter chunks are headings and remains: nobody asks about them."""

MOST_NAMED = 12
"""A name in more chunks than this joins nothing."""

TOGETHER = 64
"""Chunks that the reader is asked about at once."""

_WORD = r"[^\W\d_][^\W_'’-]*(?:['’-][^\W_]+)*"
_CAPITAL = f"(?=[{''.join(filter(str.isupper, map(chr, range(0x10000))))}])"
"""Before a capital letter of any alphabet."""
_NAME = re.compile(rf"(?<![.!?]\s)(?<!^)\b{_CAPITAL}{_WORD}(?:\s+{_CAPITAL}{_WORD})*", re.MULTILINE)
_NUMBER = re.compile(r"(?<![\w.,])\d+(?:[.,]\d+)*(?:\s+[a-z]{3,})?")
_PHRASE = re.compile(r"\b(?:an?|the|his|her|its|their|our|my)\s+(?:[a-z]{3,}\s+)?[a-z]{3,}(?=[.,;:!?\"”])")
"""At the end of a clause, where it is most often a whole one."""
_LOWER = re.compile(rf"\b(?!{_CAPITAL}){_WORD}")
_OF_THE_TASK = re.compile(r"\b(?:answers?|questions?|texts?|passages?|sentences?)\b", re.IGNORECASE)
"""What a small reader writes about when it has nothing to ask."""


@dataclass(frozen=True, slots=True)
class Draft:
    """A question with its answer, and the positions of the chunks that it was asked about."""

    question: str
    answer: str
    chunks: tuple[int, ...]


def draft(reader: Reader, chunks: Sequence[str], singles: int, pairs: int, seed: int) -> Iterator[Draft]:
    """Questions about ``singles`` chunks and ``pairs`` of chunks, drawn at random; fewer where the reader fails to ask.

    Each is asked for with an answer, a name, a number or a phrase that stands in the chunk, of a pair in one of the two
    alone. Where the reader answers the question otherwise, from the chunk as well, that is its answer. Raises as
    :class:`~trainer.readers.protocol.Reader` says.
    """
    generator = np.random.default_rng(seed)
    lower = {word for chunk in chunks for word in _LOWER.findall(chunk)}
    usable = [position for position, chunk in enumerate(chunks) if len(chunk.split()) >= FEWEST_WORDS]
    asked = [(usable[place],) for place in generator.permutation(len(usable))[:singles].tolist()]
    joined = _joined(chunks, usable, lower)
    asked_of_two = [joined[place] for place in generator.permutation(len(joined))[:pairs].tolist()]
    every: list[tuple[tuple[int, ...], Prompt]] = []
    for positions in (*asked, *asked_of_two):
        texts = [chunks[position] for position in generator.permutation(positions).tolist()]
        if (answer := _answer(texts, lower, generator)) is not None:
            every.append((positions, Prompt(None, tuple(texts), answer)))
    for first in range(0, len(every), TOGETHER):
        group = every[first : first + TOGETHER]
        written = generated(reader, [prompt for _, prompt in group], MOST_TOKENS)
        questions = [
            (positions, prompt, question)
            for (positions, prompt), generation in zip(group, written, strict=True)
            if (question := parsed(generation.text, prompt.contexts)) is not None
        ]
        replies = generated(
            reader, [Prompt(question, prompt.contexts) for _, prompt, question in questions], ANSWER_TOKENS
        )
        for (positions, prompt, question), reply in zip(questions, replies, strict=True):
            told = _told(reply.text, prompt.contexts, lower)
            answers = [answer for answer in (*told, prompt.answer or "") if _answers(answer, question, prompt.contexts)]
            if answers:
                yield Draft(question, answers[0], positions)


def parsed(text: str, contexts: Sequence[str]) -> str | None:
    """The question that was written for the contexts; none where there is none.

    One about answers or texts is none either, unless the contexts are.
    """
    begun = text.replace("**", "").strip()  # bold, as chat models write
    question = " ".join(begun.removeprefix(LEAD).strip().partition("\n")[0].split())
    if not question.endswith("?"):
        return None
    known = {word.casefold() for word in _OF_THE_TASK.findall(" ".join(contexts))}
    return None if {word.casefold() for word in _OF_THE_TASK.findall(question)} - known else question


def _answers(answer: str, question: str, contexts: Sequence[str]) -> bool:
    """Whether an answer stands in exactly one of the contexts, and not in the question."""
    return (
        bool(normalized(answer))
        and not contains(question, [answer])
        and sum(contains(context, [answer]) for context in contexts) == 1
    )


def _answer(texts: Sequence[str], lower: Collection[str], generator: np.random.Generator) -> str | None:
    """A span of the last text that no other one has; none where there is none."""
    kinds = [[span for span in spans if _answers(span, "", texts)] for spans in _spans(texts[-1], lower)]
    found = [spans for spans in kinds if spans]
    if not found:
        return None
    spans = found[int(generator.integers(len(found)))]
    return spans[int(generator.integers(len(spans)))]


def _told(reply: str, texts: Sequence[str], lower: Collection[str]) -> list[str]:
    """What a reply may mean: its first line as it is, or what of the texts it repeats, the longest first."""
    line = reply.partition("\n")[0].strip().rstrip(".")
    spans = {span for text in texts for kind in _spans(text, lower) for span in kind if contains(line, [span])}
    return [line, *sorted(spans, key=lambda span: (-len(span), span))]


def _spans(text: str, lower: Collection[str]) -> list[list[str]]:
    """The names, the numbers and the phrases of a text: what a question could be asked for."""
    kinds = _names(text, lower), _NUMBER.findall(text), _PHRASE.findall(text)
    return [[" ".join(span.split()) for span in spans] for spans in kinds]


def _names(text: str, lower: Collection[str]) -> list[str]:
    """The names in a text, of which not every word is also written small somewhere (``lower``)."""
    return [name for name in _NAME.findall(text) if not all(word.lower() in lower for word in name.split())]


def _joined(chunks: Sequence[str], usable: Sequence[int], lower: Collection[str]) -> list[tuple[int, int]]:
    """Pairs of chunks that share a name which few chunks have, each pair once."""
    holders: dict[str, list[int]] = defaultdict(list)
    for position in usable:
        for name in set(_names(chunks[position], lower)):
            holders[" ".join(name.split())].append(position)
    pairs = {
        (first, second)
        for positions in holders.values()
        if 2 <= len(positions) <= MOST_NAMED
        for first, second in pairwise(positions)
        if second - first > 1  # neighbours say one thing together
    }
    return sorted(pairs)
