"""The questions a run trains and validates on: a weighted mixture of tasks, each split once and for all."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, chain, groupby, islice, pairwise
from pathlib import Path
from typing import TypeVar

import numpy as np

from trainer.datasets.augment import PEOPLE, PLACES, THINGS, more_questions, rename
from trainer.datasets.babi import BabiQuestion, hide, read_babi
from trainer.datasets.books import book_sentences, read_books
from trainer.datasets.jsonl import read_jsonl
from trainer.datasets.lexical import most_alike
from trainer.datasets.multihop import read_2wiki, read_hotpotqa, read_musique, read_musique_single_hops
from trainer.datasets.question import Question
from trainer.datasets.ruler import generate_ruler
from trainer.datasets.squad import read_squad
from trainer.errors import DataError, RecipeError
from trainer.recipe import BabiTask, MultihopTask, Recipe, RulerTask

T = TypeVar("T")

BUDGETS = {"qa1": 4, "qa2": 4, "qa3": 6, "qa4": 4, "qa5": 4}
"""Selections that the evaluation allows for bAbI's tasks."""

READERS: dict[str, Callable[[Path], Iterable[Question]]] = {
    "hotpotqa": read_hotpotqa,
    "2wiki": read_2wiki,
    "musique": read_musique,
    "squad": read_squad,
    "jsonl": read_jsonl,
}
"""Of whole paragraphs, or whatever the file's chunks are."""

SENTENCE_READERS: dict[str, Callable[[Path, int], Iterable[Question]]] = {
    "hotpotqa": read_hotpotqa,
    "2wiki": read_2wiki,
    "musique": read_musique,
    "squad": read_squad,
}
"""Of chunks of at most so many words."""

BOOK_SHARE = 500
"""Sentences taken from each book, if they suffice: many voices rather than few whole books."""

LONG_VALIDATION = 10_000
"""Most chunks of a document to validate on, for tasks that mine: a stretch of what is searched for hard negatives."""

KEPT_BOOKS = range(60, 140)
"""Books of the training part that are never trained on: evaluation over the longest documents reads them."""


@dataclass(frozen=True)
class Source:
    """One task: questions to train on, drawn one at a time, and fixed ones to validate on."""

    weight: float
    draw: Callable[[np.random.Generator], Question]
    validation: tuple[Question, ...]
    chunks: Sequence[str]
    """Chunks that will all be needed, known before anything is drawn."""


@dataclass(frozen=True)
class Mixture:
    """All tasks of a recipe."""

    sources: tuple[Source, ...]
    background: Collection[str] = frozenset()
    """The texts that bAbI's facts are hidden among."""

    def draw(self, count: int, generator: np.random.Generator) -> list[Question]:
        """Training questions, each from a task drawn by weight."""
        weights = np.array([source.weight for source in self.sources])
        chosen = generator.choice(len(self.sources), size=count, p=weights / weights.sum())
        return [self.sources[at].draw(generator) for at in chosen]

    def known_chunks(self) -> Iterator[list[str]]:
        """The chunks known beforehand, each task's by themselves (another recipe may share it), none twice."""
        known: set[str] = set()
        for source in self.sources:
            if texts := [text for text in dict.fromkeys(source.chunks) if text not in known]:
                known.update(texts)
                yield texts

    @property
    def validation(self) -> list[Question]:
        """The held-out questions of all tasks."""
        return [question for source in self.sources for question in source.validation]


def build_mixture(recipe: Recipe, data: Path) -> Mixture:
    """Read what the recipe names below the folder ``data``.

    Which questions are held out depends on the files alone, not on the seed, so seeds can be compared. Raises
    :class:`~trainer.errors.DataError` for a bad file.
    """
    background: list[str] = []
    if recipe.books is not None:
        background = training_sentences(data / recipe.books, recipe.book_sentences)
        if not background:
            raise DataError(data / recipe.books, None, "no book has a sentence to hide facts among")
    pool = _negatives(recipe, data, background)
    # What one task holds out, no other may train on.
    held_out: dict[str, int] = {}
    for task in recipe.tasks:
        if not isinstance(task, RulerTask):
            held_out[task.path] = max(task.validation, held_out.get(task.path, 0))
    sources: list[Source] = []
    for task in recipe.tasks:
        if isinstance(task, BabiTask):
            sources.append(_babi(task, data, background, pool, held_out))
        elif isinstance(task, RulerTask):
            sources += [_ruler(task, variant, background) for variant in task.variants]
        else:
            sources.append(_multihop(task, data, held_out[task.path]))
    return Mixture(tuple(sources), frozenset(pool).union(background))


def training_sentences(books: Path, count: int) -> list[str]:
    """Background sentences from the first books of the training part, a share of each."""
    share = max(BOOK_SHARE, -(-count // KEPT_BOOKS.start))
    found: list[str] = []
    for book in islice(read_books(books, "train"), KEPT_BOOKS.start):
        found += middle_sentences(book.text, share)
        if len(found) >= count:
            break
    return found[:count]


def _negatives(recipe: Recipe, data: Path, background: Sequence[str]) -> Sequence[str]:
    """What is searched for hard negatives of the bAbI tasks: the background, and book sentences like their facts.

    Where stories are renamed, also sentences with a name they may get.
    """
    tasks = [task for task in recipe.tasks if isinstance(task, BabiTask) and task.mine]
    if not recipe.book_negatives or recipe.books is None:
        return background
    items = [item for task in tasks for item in read_babi(data / task.path, task.task)]
    names = (*PEOPLE, *THINGS, *PLACES) if any(task.rename for task in tasks) else ()
    texts = dict.fromkeys(chain(names, *((*item.facts, item.question) for item in items)))
    kept = set(KEPT_BOOKS)
    books = read_books(data / recipe.books, "train")
    sentences = [sentence for at, book in enumerate(books) if at not in kept for sentence in book_sentences(book.text)]
    found = most_alike(list(texts), sentences, recipe.book_negatives)
    return list(dict.fromkeys((*background, *found)))


def middle_sentences(text: str, share: int) -> list[str]:
    """At most ``share`` sentences from the middle of a book."""
    sentences = book_sentences(text)
    middle = len(sentences) // 2
    return sentences[max(0, middle - share // 2) : middle + share // 2]


def _babi(
    task: BabiTask, data: Path, background: Sequence[str], pool: Sequence[str], validation: Mapping[str, int]
) -> Source:
    every = read_babi(data / task.path, task.task)
    items = _training_part(every, validation[task.path])
    if not items:
        raise RecipeError(f"{task.path} has {len(every)} questions: too few to hold out {task.validation}.")
    held_out = every[len(every) - task.validation :]
    budget = task.budget or BUDGETS[task.task]
    _check_budget(budget, max(len(item.support) for item in every), task.path)
    # Neither this task's held-out stories nor another's are asked about.
    told = [
        item
        for path in task.stories
        for item in _whole_stories(_training_part(read_babi(data / path, task.task), validation.get(path, 0)))
    ]
    try:
        further = more_questions(told, task.task) if task.re_ask > 0 else []
    except ValueError as error:
        raise RecipeError(f"{task.task}: {error}.") from None
    if task.re_ask > 0 and not further:
        raise RecipeError(f"{task.task}: nothing further can be asked about the stories of {', '.join(task.stories)}.")
    low, high = task.sentences

    def length(generator: np.random.Generator) -> int:
        if task.spread == "log":
            return int(np.exp(generator.uniform(np.log(low), np.log(high + 1))))
        return int(generator.integers(low, high + 1))

    def draw(generator: np.random.Generator) -> Question:
        item = pick(further if generator.random() < task.re_ask else items, generator)
        if generator.random() < task.rename:
            item = rename(item, generator)
        question = hide(item, background, length(generator), generator, budget)
        return replace(question, pool=pool) if task.mine else question

    fixed = np.random.default_rng(0)
    # What hard negatives are worth shows in long documents alone.
    longest = max(high, min(len(pool), LONG_VALIDATION)) if task.mine else high
    hidden_in = pool if task.mine else background
    validated = tuple(
        hide(item, hidden_in, length(fixed) if task.spread == "log" else longest, fixed, BUDGETS[task.task])
        for item in held_out
    )
    return Source(task.weight, draw, validated, pool if task.mine else background)


def _training_part(items: Sequence[BabiQuestion], held_out: int) -> list[BabiQuestion]:
    """The questions before the last ``held_out`` ones, without those of the story that the cut goes through."""
    cut = max(0, len(items) - held_out)
    while 0 < cut < len(items) and _goes_on(items[cut - 1], items[cut]):
        cut -= 1
    return list(items[:cut])


def _whole_stories(items: Sequence[BabiQuestion]) -> list[BabiQuestion]:
    """The last question of each story: it has all of the story's facts."""
    return [item for item, after in pairwise(items) if not _goes_on(item, after)] + list(items[-1:])


def _goes_on(item: BabiQuestion, after: BabiQuestion) -> bool:
    """Whether ``after``, the next question of the file, is asked in the same story."""
    return after.facts[: len(item.facts)] == item.facts


def _check_budget(budget: int, support: int, where: str) -> None:
    if budget < support:
        raise RecipeError(f"budget: {where} has a question that needs {support} chunks; {budget} selections never do.")


def pick(pool: Sequence[T], generator: np.random.Generator) -> T:
    """One of them, all equally likely."""
    return pool[int(generator.integers(len(pool)))]


def _ruler(task: RulerTask, variant: str, background: Sequence[str]) -> Source:
    generator = np.random.default_rng([ord(letter) for letter in variant])
    questions = [
        generate_ruler(variant, task.tokens, background, generator) for _ in range(task.questions + task.validation)
    ]
    if task.mine:
        questions = [replace(question, pool=background) for question in questions]
    return _fixed(questions, task.weight, task.validation, task.budget, task.validation)


def _multihop(task: MultihopTask, data: Path, held_out: int) -> Source:
    path = data / task.path
    read = READERS[task.kind](path) if task.words is None else SENTENCE_READERS[task.kind](path, task.words)
    questions = list(read)
    # Files are often sorted, MuSiQue's by the number of hops: what is held out must be like the rest.
    articles = [list(group) for _, group in groupby(questions, key=lambda question: id(question.chunks))]
    turns = np.random.default_rng(0).permutation(len(articles))
    questions = [question for turn in turns for question in articles[turn]]
    source = _fixed(questions, task.weight, task.validation, task.budget, held_out)
    pool = source.chunks if task.mine else ()
    training = questions[: _cut(questions, held_out)]
    hops: list[Question] = []
    if task.single_hops > 0:
        known = {question.id for question in training}
        hops = [
            replace(hop, budget=task.budget or hop.budget)
            for hop in read_musique_single_hops(path, task.words)
            if hop.id.rpartition("#")[0] in known
        ]

    def draw(generator: np.random.Generator) -> Question:
        single = hops and generator.random() < task.single_hops
        question = pick(hops, generator) if single else source.draw(generator)
        question = with_distractors(question, training, task.distractors, generator)
        question = shuffled(question, generator) if len(question.counts) > 1 else question
        question = joined(question, task.joined, generator)
        if task.unanswerable > 0 and len(question.chunks) > 1 and generator.random() < task.unanswerable:
            # Its pool would hold what was taken out.
            return question.without([int(generator.choice(sorted(question.support)))])
        return replace(question, pool=pool)

    validation = source.validation
    fixed = np.random.default_rng(0)
    if task.kind == "squad":  # of its own it has an article alone, which is no search
        validation = tuple(with_distractors(question, training, task.distractors, fixed) for question in validation)
    validation = tuple(joined(question, task.joined, fixed) for question in validation)
    return replace(source, draw=draw, validation=validation)


def joined(question: Question, share: float, generator: np.random.Generator) -> Question:
    """The question, its documents with this probability laid end to end into one."""
    return as_one_document(question) if share > 0 and generator.random() < share else question


def as_one_document(question: Question) -> Question:
    """The question, its documents laid end to end."""
    return replace(question, counts=(len(question.chunks),))


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
    turns = generator.permutation(len(question.counts)).tolist()
    order = [chunk for document in turns for chunk in range(firsts[document], firsts[document + 1])]
    place = {old: new for new, old in enumerate(order)}
    return replace(
        question,
        chunks=[question.chunks[old] for old in order],
        counts=tuple(question.counts[document] for document in turns),
        support=frozenset(place[old] for old in question.support),
    )


def _cut(questions: Sequence[Question], held_out: int) -> int:
    """How many questions to train on: all but the last ``held_out`` and those about the same article (SQuAD)."""
    cut = len(questions) - held_out
    while 0 < cut < len(questions) and questions[cut - 1].chunks is questions[cut].chunks:
        cut -= 1
    return cut


def _fixed(questions: Sequence[Question], weight: float, validation: int, budget: int | None, held_out: int) -> Source:
    """The last ``validation`` questions to validate on, those before the :func:`_cut` to train on."""
    if budget is not None:
        _check_budget(budget, max(len(question.support) for question in questions), questions[0].task)
    cut = _cut(questions, held_out)
    if cut <= 0:
        raise RecipeError(f"{len(questions)} questions are too few to hold out {held_out}.")
    training = [question if budget is None else replace(question, budget=budget) for question in questions[:cut]]

    def draw(generator: np.random.Generator) -> Question:
        return pick(training, generator)

    chunks = list(dict.fromkeys(chunk for question in training for chunk in question.chunks))
    return Source(weight, draw, tuple(questions[len(questions) - validation :]), chunks)
