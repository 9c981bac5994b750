"""Tasks over the files of a data set: each question brings the documents that it is asked about."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from itertools import accumulate, chain, groupby
from pathlib import Path

import numpy as np

from trainer.datasets.question import Question
from trainer.errors import RecipeError
from trainer.recipe import DatasetTask
from trainer.tasks.judgements import as_judged
from trainer.tasks.source import Material, Source, fixed_source, pick


def dataset_sources(task: DatasetTask, material: Material) -> list[Source]:
    """The source of a task; raises :class:`~trainer.errors.RecipeError` for too few questions or a budget too small."""
    dataset, path = task.dataset, material.data / task.path
    questions = asked(task, material.data)
    questions, held_out = _divided(questions, task.validation, material.held_out_ids.get(task.path, frozenset()))
    others: Sequence[Question] = ()
    if task.questions is not None:
        # What is held out stands at the end.
        first = max(0, len(questions) - held_out - task.questions)
        others, questions = questions[max(0, first - task.evidence_only) : first], questions[first:]
    source = fixed_source(questions, task.weight, task.validation, task.budget, held_out)
    training = questions[: len(questions) - held_out]
    bare = [
        bare_question(replace(question, budget=task.budget or question.budget))
        for question in others
        if question.support
    ]
    chunks = list(dict.fromkeys(chain(source.chunks, (chunk for question, _ in bare for chunk in question.chunks))))
    pool = list(dict.fromkeys((*chunks, *(material.passages if task.in_books else ())))) if task.mine else ()
    hops: list[Question] = []
    if task.single_hops > 0 and dataset.read_single_hops is not None:
        known = {question.id for question in training}
        hops = [
            replace(hop, budget=task.budget or hop.budget)
            for hop in dataset.read_single_hops(path, task.words)
            if hop.id.rpartition("#")[0] in known
        ]

    def draw(generator: np.random.Generator) -> Question:
        single = hops and generator.random() < task.single_hops
        if not single and generator.random() * (len(bare) + len(training)) < len(bare):
            question, lost = pick(bare, generator)
            question = with_distractors(question, training, lost + task.distractors, generator)
        else:
            question = pick(hops, generator) if single else source.draw(generator)
            question = with_distractors(question, training, task.distractors, generator)
        question = shuffled(question, generator) if len(question.counts) > 1 else question
        question = joined(question, task.joined, generator)
        if task.in_books > 0 and generator.random() < task.in_books:
            question = in_a_book(question, material.passages, stretch(task.stretch, generator), generator)
        if (
            task.unanswerable > 0
            and question.support
            and len(question.chunks) > 1
            and generator.random() < task.unanswerable
        ):
            # Its pool would hold what was taken out.
            return question.without([int(generator.choice(sorted(question.support)))])
        return replace(question, pool=pool)

    validation = source.validation
    fixed = np.random.default_rng(0)
    if dataset.one_article:
        validation = tuple(with_distractors(question, training, task.distractors, fixed) for question in validation)
    validation = tuple(joined(question, task.joined, fixed) for question in validation)
    validation = tuple(
        in_a_book(question, material.passages, stretch(task.stretch, fixed), fixed)
        if fixed.random() < task.in_books
        else question
        for question in validation
    )
    return [replace(source, draw=draw, validation=validation, chunks=chunks)]


def asked(task: DatasetTask, data: Path) -> list[Question]:
    """The questions of a task in an order of their own; raises as :func:`dataset_sources`."""
    # A cross-encoder does not know what is found already: of several facts it would teach the first alone.
    questions = _in_random_order([replace(q, distil=task.distil and q.needed == 1) for q in _labelled(task, data)])
    return questions if task.unanswerable > 0 else [question for question in questions if question.support]


def held_out_ids(task: DatasetTask, questions: Sequence[Question]) -> frozenset[str]:
    """Which of its questions a task validates on: the last ones."""
    return frozenset(question.id for question in questions[max(0, len(questions) - task.validation) :])


def _divided(questions: Sequence[Question], validation: int, elsewhere: Collection[str]) -> tuple[list[Question], int]:
    """The questions with those behind the others that are not trained on, and how many these are.

    These are the last ``validation``, those held out ``elsewhere``, and what is asked about the same article. Where all
    questions are asked of one pool of texts, they share it.
    """
    trained: list[Question] = []
    held_out: list[Question] = []
    left = len(questions) - validation  # before the held-out ones
    for article in _articles(questions):
        left -= len(article)
        apart = left < 0 or any(question.id in elsewhere for question in article)
        (held_out if apart else trained).extend(article)
    return [*trained, *held_out], len(held_out)


def _articles(questions: Sequence[Question]) -> list[list[Question]]:
    """The questions about each article, one after the other; each by itself where all are about one."""
    articles = [list(group) for _, group in groupby(questions, key=lambda question: id(question.chunks))]
    return articles if len(articles) > 1 else [[question] for question in questions]


def _labelled(task: DatasetTask, data: Path) -> list[Question]:
    """The questions of the file, with the support that its judgements give them where the task names some."""
    path = data / task.path
    questions = task.dataset.questions(path, task.words)
    if task.judgements is not None:
        return as_judged(questions, data / task.judgements)
    labelled = list(questions)
    if any(question.unlabelled for question in labelled):
        raise RecipeError(
            f"{path} has questions without support. Let a reader judge them (python -m trainer judge), and name what "
            "it says with the task's `judgements`."
        )
    return labelled


def _in_random_order(questions: Sequence[Question]) -> list[Question]:
    """The questions in an order of their own, those about the same article one after the other.

    Files are often sorted, MuSiQue's by the number of hops: what is held out must be like the rest.
    """
    articles = _articles(questions)
    order = np.random.default_rng(0).permutation(len(articles))
    return [question for place in order for question in articles[place]]


def joined(question: Question, share: float, generator: np.random.Generator) -> Question:
    """The question, with this probability as :func:`as_one_document`."""
    return as_one_document(question) if share > 0 and generator.random() < share else question


def as_one_document(question: Question) -> Question:
    """The question, its documents laid end to end."""
    return replace(question, counts=(len(question.chunks),))


def stretch(lengths: tuple[int, int], generator: np.random.Generator) -> int:
    """How many packed sentences of a book stand around a question's documents, between these: all orders of magnitude
    alike."""
    low, high = lengths
    return int(np.exp(generator.uniform(np.log(low), np.log(high + 1))))


def in_a_book(question: Question, passages: Sequence[str], count: int, generator: np.random.Generator) -> Question:
    """The question, its documents laid end to end somewhere in a run of ``count`` of the ``passages``."""
    known = set(question.chunks)
    first = int(generator.integers(max(1, len(passages) - count)))
    run = [passage for passage in passages[first : first + count] if passage not in known]
    before = int(generator.integers(len(run) + 1))
    chunks = [*run[:before], *question.chunks, *run[before:]]
    return question.placed(chunks, before)


def bare_question(question: Question) -> tuple[Question, int]:
    """The question with its evidence alone, and how many of its documents are gone."""
    bare = question.without(frozenset(range(len(question.chunks))).difference(question.support))
    return bare, len(question.counts) - len(bare.counts)


def with_distractors(
    question: Question, others: Sequence[Question], count: int, generator: np.random.Generator
) -> Question:
    """The question with at most ``count`` more documents of other questions, none that shares a chunk with it."""
    known = set(question.chunks)
    chunks, counts = list(question.chunks), list(question.counts)
    for _ in range(count):
        document = pick(documents(pick(others, generator)), generator)
        if known.isdisjoint(document):
            known.update(document)
            chunks += document
            counts.append(len(document))
    return replace(question, chunks=chunks, counts=tuple(counts))


def documents(question: Question) -> list[Sequence[str]]:
    """The question's chunks by document."""
    ends = list(accumulate(question.counts))
    return [question.chunks[end - count : end] for end, count in zip(ends, question.counts, strict=True)]


def shuffled(question: Question, generator: np.random.Generator) -> Question:
    """The question with its documents in another order."""
    firsts = [0, *accumulate(question.counts)]
    documents_in_order = generator.permutation(len(question.counts)).tolist()
    order = [chunk for document in documents_in_order for chunk in range(firsts[document], firsts[document + 1])]
    return question.rearranged(order, tuple(question.counts[document] for document in documents_in_order))
