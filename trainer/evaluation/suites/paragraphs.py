"""The suites ``multihop``, ``multihop-joined`` and ``jsonl``: questions that bring their documents."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path

from trainer.datasets.jsonl import read_jsonl
from trainer.datasets.question import Question
from trainer.datasets.registry import Dataset, tested_in
from trainer.datasets.squad import SENTENCE_WORDS
from trainer.errors import DataError, RecipeError
from trainer.evaluation.suites.test_sets import TestSet, listed
from trainer.tasks.documents import as_one_document

MOST_HOPS = 4


def multihop(data: Path, _lengths: Sequence[str] | None, questions: int | None, _seed: int) -> Iterator[TestSet]:
    """HotpotQA, 2WikiMultihopQA, MuSiQue and further data sets of several hops, dev parts.

    A question has as many selections as there are gold chunks. Chunks are paragraphs, and in ``hotpotqa_sentences`` and
    ``2wiki_sentences`` packed sentences.
    """
    for dataset in tested_in("multihop"):
        for test_set in _sets_of(dataset, data / dataset.test_files["multihop"], questions):
            yield replace(test_set, removable=True)


def _sets_of(dataset: Dataset, path: Path, count: int | None) -> Iterator[TestSet]:
    """The questions of a file over its paragraphs, then over packed sentences, then those of each number of hops."""
    questions = list(islice(dataset.questions(path), count))
    yield listed(questions)
    if dataset.sentence_labels:
        yield listed(list(islice(dataset.questions(path, SENTENCE_WORDS), count)))
    if dataset.hops is not None:
        try:
            numbers = [dataset.hops(question.id) for question in questions]
        except ValueError as error:
            raise DataError(path, None, str(error)) from None
        for hops in range(2, MOST_HOPS + 1):
            task = f"{dataset.name}_{hops}hop"
            part = [
                replace(question, task=task)
                for question, number in zip(questions, numbers, strict=True)
                if number == hops
            ]
            if part:
                yield replace(listed(part), part=True)


def multihop_joined(data: Path, lengths: Sequence[str] | None, questions: int | None, seed: int) -> Iterator[TestSet]:
    """The same, the chunks of a question being one document in the order of the file, as they would stand in a book."""
    for test_set in multihop(data, lengths, questions, seed):
        joined = [as_one_document(question) for question in test_set.draw()]
        yield replace(test_set, draw=partial(iter, joined))


def own_file(data: Path, _lengths: Sequence[str] | None, questions: int | None, _seed: int) -> Iterator[TestSet]:
    """One's own file in the plain format, see ``docs/data.md``; ``data`` is the file. A row for each of its tasks.

    Raises :class:`~trainer.errors.RecipeError` for questions without support: whatever is selected would complete them.
    """
    tasks: dict[str, list[Question]] = {}
    for question in read_jsonl(data):
        if question.unlabelled:
            raise RecipeError(
                f"{data}: question {question.id} has no support, so nothing says whether it is found. Give it one, or "
                "leave it out."
            )
        tasks.setdefault(question.task, []).append(question)
    for asked in tasks.values():
        yield replace(listed(asked[:questions]), removable=True)
