"""Tasks of kind ``babi``: stories hidden among sentences of books."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import chain, pairwise
from pathlib import Path

import numpy as np

from trainer.datasets.augment import PEOPLE, PLACES, THINGS, more_questions, rename
from trainer.datasets.babi import BabiQuestion, hide, read_babi
from trainer.datasets.lexical import most_alike
from trainer.datasets.question import Question
from trainer.errors import RecipeError
from trainer.recipe import BabiTask
from trainer.tasks.background import trainable_sentences
from trainer.tasks.source import Material, Source, check_budget, pick

BUDGETS = {"qa1": 4, "qa2": 4, "qa3": 6, "qa4": 4, "qa5": 4}
"""Selections that the evaluation allows for bAbI's tasks."""


def babi_sources(task: BabiTask, material: Material) -> list[Source]:
    """The source of a task.

    Raises :class:`~trainer.errors.RecipeError` for too few questions, a budget that is too small, or where nothing
    further can be asked.
    """
    every = read_babi(material.data / task.path, task.task)
    items = training_part(every, material.held_out[task.path])
    if not items:
        raise RecipeError(f"{task.path} has {len(every)} questions: too few to hold out {task.validation}.")
    held_out = every[len(every) - task.validation :]
    budget = task.budget or BUDGETS[task.task]
    check_budget(budget, max(len(item.support) for item in every), task.path)
    further = _further_questions(task, material)
    pool = material.pool if task.mine else material.background
    low, high = task.sentences

    def length(generator: np.random.Generator) -> int:
        if task.spread == "log":
            return int(np.exp(generator.uniform(np.log(low), np.log(high + 1))))
        return int(generator.integers(low, high + 1))

    def draw(generator: np.random.Generator) -> Question:
        item = pick(further if generator.random() < task.re_ask else items, generator)
        if generator.random() < task.rename:
            item = rename(item, generator)
        question = hide(item, material.background, length(generator), generator, budget)
        return replace(question, pool=pool) if task.mine else question

    fixed = np.random.default_rng(0)
    # What hard negatives are worth shows in long documents alone.
    longest = max(high, min(len(material.pool), material.longest_validation)) if task.mine else high
    validation = tuple(
        hide(item, pool, length(fixed) if task.spread == "log" else longest, fixed, BUDGETS[task.task])
        for item in held_out
    )
    return [Source(task.weight, draw, validation, pool)]


def book_negatives(tasks: Sequence[BabiTask], data: Path, books: Path, count: int) -> list[str]:
    """Book sentences that share telling words with a fact or question of the tasks: the ``count`` best for each.

    Where stories are renamed, also sentences with a name they may get.
    """
    items = [item for task in tasks for item in read_babi(data / task.path, task.task)]
    names = (*PEOPLE, *THINGS, *PLACES) if any(task.rename for task in tasks) else ()
    texts = dict.fromkeys(chain(names, *((*item.facts, item.question) for item in items)))
    return most_alike(list(texts), trainable_sentences(books), count)


def training_part(items: Sequence[BabiQuestion], held_out: int) -> list[BabiQuestion]:
    """The questions before the last ``held_out`` ones, without those of the story that the cut goes through."""
    cut = max(0, len(items) - held_out)
    while 0 < cut < len(items) and _goes_on(items[cut - 1], items[cut]):
        cut -= 1
    return list(items[:cut])


def _further_questions(task: BabiTask, material: Material) -> list[BabiQuestion]:
    """Questions of this task about whole stories that no task holds out; none where they are not asked for."""
    stories = [
        item
        for path in task.stories
        for item in _whole_stories(
            training_part(read_babi(material.data / path, task.task), material.held_out.get(path, 0))
        )
    ]
    if task.re_ask == 0:
        return []
    try:
        further = more_questions(stories, task.task)
    except ValueError as error:
        raise RecipeError(f"{task.task}: {error}.") from None
    if not further:
        raise RecipeError(f"{task.task}: nothing further can be asked about the stories of {', '.join(task.stories)}.")
    return further


def _whole_stories(items: Sequence[BabiQuestion]) -> list[BabiQuestion]:
    """The last question of each story: it has all of the story's facts."""
    return [item for item, after in pairwise(items) if not _goes_on(item, after)] + list(items[-1:])


def _goes_on(item: BabiQuestion, after: BabiQuestion) -> bool:
    """Whether ``after``, the next question of the file, is asked in the same story."""
    return after.facts[: len(item.facts)] == item.facts
