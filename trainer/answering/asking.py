"""A frozen reader asked the questions of test sets, each with the evidence that a way of retrieving found."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from trainer.answering.reports import AnswerRow
from trainer.datasets.question import Question
from trainer.readers.matching import exact_match, f1
from trainer.readers.protocol import Prompt, Reader, Request, replied

MOST_TOKENS = 32
"""Most tokens of a written answer."""


class Asked(NamedTuple):
    """The questions of a task, each with the positions of the chunks that are read, the most important first."""

    task: str
    questions: Sequence[Question]
    selections: Sequence[Sequence[int]]


def answer(reader: Reader, asked: Asked) -> AnswerRow:
    """What the reader writes, how probable the gold answers are to it, and what it read.

    Raises :class:`~trainer.errors.ReaderError` as :class:`~trainer.readers.protocol.Reader` says.
    """
    prompts = list(_prompts(asked.questions, asked.selections))
    gold = [question.answers for question in asked.questions]
    requests = [Request(prompt, text) for prompt, texts in zip(prompts, gold, strict=True) for text in texts]
    scores, replies = replied(reader, requests, MOST_TOKENS)
    ends = np.cumsum([0, *map(len, gold)]).tolist()
    written = [replies[first] for first in ends[:-1]]
    texts = [generation.text for generation in written]
    # Of several gold answers the most probable one counts.
    probable = [float(scores.log_probability[first:end].max()) for first, end in pairwise(ends)]
    return AnswerRow(
        task=asked.task,
        chunks=tuple(len(selected) for selected in asked.selections),
        tokens=tuple(generation.prompt_tokens for generation in written),
        cut=sum(
            generation.contexts < len(prompt.contexts) for generation, prompt in zip(written, prompts, strict=True)
        ),
        exact_match=tuple(exact_match(text, answers) for text, answers in zip(texts, gold, strict=True)),
        f1=tuple(round(f1(text, answers), 4) for text, answers in zip(texts, gold, strict=True)),
        log_probability=tuple(round(value, 3) for value in probable),
    )


def _prompts(questions: Iterable[Question], selections: Iterable[Sequence[int]]) -> Iterator[Prompt]:
    for question, selected in zip(questions, selections, strict=True):
        yield Prompt(question.text, tuple(question.chunks[position] for position in selected))
