"""The suite ``babilong``: bAbI stories hidden in books."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from trainer.datasets.babi import BabiQuestion, hide, read_babi
from trainer.datasets.question import Question
from trainer.evaluation.suites.test_sets import EVERY, Length, TestSet, chosen_lengths, generator_of
from trainer.tasks.babi import BUDGETS
from trainer.tasks.background import evaluation_sentences

LENGTHS = (
    Length("1K", 1_000, 50, EVERY),
    Length("4K", 4_000, 160, EVERY),
    Length("32K", 32_000, 1_200, EVERY),
    Length("128K", 128_000, 4_600, EVERY),
    Length("1M", 1_000_000, 40_000, 200),
    Length("10M", 10_000_000, 400_000, 100),
)


def babilong(data: Path, lengths: Sequence[str] | None, questions: int | None, seed: int) -> Iterator[TestSet]:
    """bAbI QA1 to QA5, published dev part, hidden among sentences of books that no training reads.

    A document of each length has the questions' facts in order at random places; questions, places and background
    differ with the seed.
    """
    items = {task: read_babi(data / "babi" / "published" / f"{task}_dev.txt", task) for task in BUDGETS}
    for length in chosen_lengths(LENGTHS, lengths):
        background = evaluation_sentences(data / "books", length.sentences)
        for task, all_items in items.items():
            # Not the first ones: they would be those of a few stories.
            order = generator_of(seed, task, length.label).permutation(len(all_items)).tolist()
            sample = [all_items[place] for place in order[: questions or length.questions]]
            draw = partial(_hidden, sample, background, length, BUDGETS[task], seed)
            yield TestSet(task, length.label, length.tokens, len(sample), draw, background)


def _hidden(
    items: Sequence[BabiQuestion], background: Sequence[str], length: Length, budget: int, seed: int
) -> Iterator[Question]:
    for item in items:
        # A generator for each question: it stays the same however many are asked.
        yield hide(item, background, length.sentences, generator_of(seed, item.id, length.label), budget)
