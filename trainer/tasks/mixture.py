"""The questions a run trains and validates on: a weighted mixture of tasks, each split once and for all."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from trainer.datasets.question import Question
from trainer.datasets.squad import SENTENCE_WORDS
from trainer.errors import DataError
from trainer.recipe import BabiTask, DatasetTask, Recipe, RulerTask
from trainer.tasks.babi import babi_sources, book_negatives
from trainer.tasks.background import training_passages, training_sentences
from trainer.tasks.documents import asked, dataset_sources, held_out_ids
from trainer.tasks.ruler import ruler_sources
from trainer.tasks.source import Material, Source

LONG_VALIDATION = 10_000
"""Most chunks of a document to validate on, for stories that mine: a stretch of what is searched for hard negatives."""

PASSAGES = 8_000
"""Packed sentences of books for the questions that are asked among them."""

SOURCES: Mapping[type, Callable[[Any, Material], list[Source]]] = {
    BabiTask: babi_sources,
    RulerTask: ruler_sources,
    DatasetTask: dataset_sources,
}
"""What makes the sources of a task, by the task's class."""


@dataclass(frozen=True)
class Mixture:
    """All tasks of a recipe."""

    sources: tuple[Source, ...]
    background: Collection[str] = frozenset()
    """The texts that bAbI's facts are hidden among."""

    def draw(self, count: int, generator: np.random.Generator) -> list[Question]:
        """Training questions, each from a task drawn by weight."""
        weights = np.array([source.weight for source in self.sources])
        drawn = generator.choice(len(self.sources), size=count, p=weights / weights.sum())
        return [self.sources[number].draw(generator) for number in drawn]

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


def build_mixture(recipe: Recipe, data: Path, *, longest_validation: int = LONG_VALIDATION) -> Mixture:
    """Read what the recipe names below the folder ``data``.

    Which questions are held out depends on the files alone, not on the seed, so seeds can be compared. Raises
    :class:`~trainer.errors.DataError` for a bad file, :class:`~trainer.errors.RecipeError` where the data cannot give
    what the recipe asks for.
    """
    background: list[str] = []
    if recipe.books is not None:
        background = training_sentences(data / recipe.books, recipe.book_sentences)
        if not background:
            raise DataError(data / recipe.books, None, "no book has a sentence to hide facts among")
    pool = _pool(recipe, data, background)
    passages: list[str] = []
    if recipe.books is not None and any(isinstance(task, DatasetTask) and task.in_books for task in recipe.tasks):
        passages = training_passages(data / recipe.books, SENTENCE_WORDS, PASSAGES)
    material = Material(
        data, background, pool, _held_out(recipe), _held_out_ids(recipe, data), passages, longest_validation
    )
    sources = [source for task in recipe.tasks for source in SOURCES[type(task)](task, material)]
    return Mixture(tuple(sources), frozenset(pool).union(background))


def _held_out(recipe: Recipe) -> dict[str, int]:
    """How many questions of each file of stories are held out: what one task holds out, no other may train on."""
    held_out: dict[str, int] = {}
    for task in recipe.tasks:
        if isinstance(task, BabiTask):
            held_out[task.path] = max(task.validation, held_out.get(task.path, 0))
    return held_out


def _held_out_ids(recipe: Recipe, data: Path) -> dict[str, frozenset[str]]:
    """The questions that are held out of each file that several tasks read: each may leave out others of the file, and
    so hold out others."""
    readers: dict[str, list[DatasetTask]] = {}
    for task in recipe.tasks:
        if isinstance(task, DatasetTask):
            readers.setdefault(task.path, []).append(task)
    return {
        path: frozenset().union(*(held_out_ids(task, asked(task, data)) for task in tasks))
        for path, tasks in readers.items()
        if len(tasks) > 1
    }


def _pool(recipe: Recipe, data: Path, background: Sequence[str]) -> Sequence[str]:
    """What is searched for hard negatives of the bAbI tasks."""
    if not recipe.book_negatives or recipe.books is None:
        return background
    tasks = [task for task in recipe.tasks if isinstance(task, BabiTask) and task.mine]
    negatives = book_negatives(tasks, data, data / recipe.books, recipe.book_negatives)
    return list(dict.fromkeys((*background, *negatives)))
