"""The questions of the end-to-end evaluation: gold answers, and documents to find their evidence in."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain, islice
from pathlib import Path

from trainer.datasets.evidence import read_evidence
from trainer.datasets.question import Question
from trainer.datasets.registry import DATASETS
from trainer.evaluation.suites.evidence import read_whole_books
from trainer.evaluation.suites.stories import babilong
from trainer.evaluation.suites.test_sets import TestSet, listed
from trainer.tasks.babi import BUDGETS

STORY_LENGTH = "128K"
"""The length of the books in which the stories of ``babilong`` stand."""


def paragraphs(data: Path, count: int, _seed: int, *, name: str) -> list[TestSet]:
    """Questions over paragraphs; those of MuSiQue are of both dev parts."""
    dataset = DATASETS[name]
    questions = dataset.questions(data / dataset.test_files["multihop"])
    further = data / "evidence" / f"{name}_dev.jsonl.gz"
    if further.exists():
        questions = chain(questions, (replace(question, task=name) for question in read_evidence(further)))
    return _listed(questions, count)


def stories(data: Path, count: int, seed: int) -> list[TestSet]:
    """BabiLong, as many questions of each of its five tasks."""
    return list(babilong(data, [STORY_LENGTH], max(1, count // len(BUDGETS)), seed))


def whole_books(data: Path, count: int, _seed: int) -> list[TestSet]:
    """A reader's questions on books: of a single fact and of two, as they come."""
    return _listed((replace(question, task="reader") for question in read_whole_books(data)), count)


SETS: Mapping[str, Callable[[Path, int, int], Sequence[TestSet]]] = {
    "hotpotqa": partial(paragraphs, name="hotpotqa"),
    "2wiki": partial(paragraphs, name="2wiki"),
    "musique": partial(paragraphs, name="musique"),
    "babilong": stories,
    "reader": whole_books,
}
"""Every set by name: a function of the data, the number of questions and the seed."""


def answerable(data: Path, names: Sequence[str], count: int, seed: int, budget: int) -> Iterator[TestSet]:
    """The test sets of these names, at most ``count`` questions in each name, with ``budget`` selections a question."""
    for name in names:
        for test_set in SETS[name](data, count, seed):
            yield replace(test_set, draw=partial(_drawn, test_set, budget))


def _drawn(test_set: TestSet, budget: int) -> Iterator[Question]:
    return (replace(question, budget=budget) for question in test_set.draw())


def _listed(questions: Iterable[Question], count: int) -> list[TestSet]:
    return [listed(list(islice((q for q in questions if q.support and q.answers), count)))]
