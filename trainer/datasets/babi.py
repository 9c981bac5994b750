"""bAbI stories, and hiding them in long text as BabiLong does.

A story is numbered from 1; a line is a fact, or ``question<TAB>answer<TAB>numbers of the supporting lines``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from trainer.datasets.files import numbered_lines
from trainer.datasets.question import Question
from trainer.errors import DataError

_LINE = re.compile(r"(\d{1,9}) (\S.*)")


@dataclass(frozen=True, slots=True)
class BabiQuestion:
    """A question and the facts told before it."""

    task: str
    """``qa1`` and so on."""
    question: str
    answer: str
    facts: tuple[str, ...]
    """In the story's order; other questions are left out."""
    support: tuple[int, ...]
    """The facts needed, as positions in ``facts``, in the file's order."""
    id: str


def read_babi(path: Path, task: str) -> list[BabiQuestion]:
    """The questions of a file in order; raises :class:`DataError` where it is not in the bAbI format."""
    questions = []
    facts: list[str] = []
    place: dict[int, int] = {}  # line of the story -> position in facts
    before = 0
    for number, line in numbered_lines(path):
        if not line.strip():
            continue
        match = _LINE.fullmatch(line)
        if match is None:
            raise DataError(path, number, "a line must be a number, a blank, and a fact or a question")
        in_story, text = int(match[1]), match[2]
        if in_story == 1:
            facts, place = [], {}
        elif in_story != before + 1:
            raise DataError(
                path, number, f"the story's line {before} is followed by {in_story}, not by {before + 1} or 1"
            )
        before = in_story
        if "\t" not in text:
            place[in_story] = len(facts)
            facts.append(text.strip())
            continue
        fields = [field.strip() for field in text.split("\t")]
        if len(fields) != 3 or not all(fields):
            raise DataError(
                path, number, "a question must be followed by its answer and its supporting lines, after tabs"
            )
        question, answer, numbers = fields
        if not all(word.isascii() and word.isdigit() for word in numbers.split()):
            raise DataError(path, number, f"supporting lines must be numbers with blanks between, not {numbers!r}")
        support = []
        for word in numbers.split():
            if int(word) not in place:
                raise DataError(path, number, f"supporting line {word} is no fact before this question")
            support.append(place[int(word)])
        questions.append(BabiQuestion(task, question, answer, tuple(facts), tuple(support), f"{path.name}:{number}"))
    if not questions:
        raise DataError(path, None, "the file holds no questions")
    return questions


def hide(
    item: BabiQuestion, sentences: Sequence[str], length: int, generator: np.random.Generator, budget: int
) -> Question:
    """The question over one document of ``max(length, number of facts)`` chunks, a sentence each.

    The facts stand in their order at random places, all equally likely, among consecutive ``sentences``
    that begin at a random one and go on from the first after the last. Raises :class:`ValueError`
    where sentences are needed and there are none.
    """
    total = max(length, len(item.facts))
    places = np.sort(generator.choice(total, size=len(item.facts), replace=False, shuffle=False)).tolist()
    filler = _consecutive(sentences, total - len(item.facts), generator)
    chunks: list[str] = []
    for hidden, (place, fact) in enumerate(zip(places, item.facts, strict=True)):
        chunks += filler[len(chunks) - hidden : place - hidden]
        chunks.append(fact)
    chunks += filler[len(chunks) - len(item.facts) :]
    return Question(
        id=item.id,
        task=item.task,
        text=item.question,
        chunks=chunks,
        counts=(total,),
        support=frozenset(places[index] for index in item.support),
        budget=budget,
        answers=(item.answer,),
    )


def _consecutive(sentences: Sequence[str], count: int, generator: np.random.Generator) -> list[str]:
    if count == 0:
        return []
    if not sentences:
        raise ValueError("no sentences to hide the facts among")
    if count <= len(sentences):
        start = int(generator.integers(len(sentences) - count + 1))
        return list(sentences[start : start + count])
    start = int(generator.integers(len(sentences)))
    once = [*sentences[start:], *sentences[:start]]
    return (once * -(-count // len(once)))[:count]
