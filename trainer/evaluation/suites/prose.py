"""The suite ``squad``: single facts of running prose."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby, islice
from pathlib import Path

from trainer.datasets.question import Question
from trainer.datasets.registry import tested_in
from trainer.datasets.squad import SENTENCE_WORDS
from trainer.evaluation.suites.test_sets import (
    EVERY,
    Length,
    TestSet,
    chosen_lengths,
    generator_of,
    listed,
)
from trainer.tasks.background import evaluation_passages

LENGTHS = (
    Length("32K", 32_000, 650, EVERY),
    Length("128K", 128_000, 2_600, EVERY),
    Length("1M", 1_000_000, 20_000, EVERY),
)
"""Here ``sentences`` are packed ones, of some fifty tokens."""

BUDGET = 4
"""Selections for one fact, as BabiLong allows."""


def squad(data: Path, lengths: Sequence[str] | None, questions: int | None, seed: int) -> Iterator[TestSet]:
    """SQuAD's questions, dev part: each asks for one fact of running prose.

    All articles, one after the other, are the middle of one document; before and after them are books. It is cut into
    packed sentences.
    """
    for dataset in tested_in("squad"):
        every = list(dataset.questions(data / dataset.test_files["squad"], SENTENCE_WORDS))
        yield from _sets_of(every, data / "books", chosen_lengths(LENGTHS, lengths), questions, seed)


def _sets_of(
    every: Sequence[Question], books: Path, lengths: Sequence[Length], questions: int | None, seed: int
) -> Iterator[TestSet]:
    articles = [list(group) for _, group in groupby(every, key=lambda question: question.chunks)]
    texts = [chunk for article in articles for chunk in article[0].chunks]
    for length in lengths:
        count = max(0, length.sentences - len(texts))
        around = list(islice(evaluation_passages(books, SENTENCE_WORDS), count))
        first = len(around) // 2
        document = [*around[:first], *texts, *around[first:]]
        asked = []
        for article in articles:
            for question in article:
                support = frozenset(first + position for position in question.support)
                asked.append(
                    replace(question, chunks=document, counts=(len(document),), support=support, budget=BUDGET)
                )
            first += len(article[0].chunks)
        order = generator_of(seed, "squad").permutation(len(asked)).tolist()
        sample = [asked[place] for place in order[: questions or length.questions]]
        yield replace(listed(sample, length.label, length.tokens), background=document)
