"""A source of questions, and what the modules of the task kinds share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np

from trainer.datasets.question import Question
from trainer.errors import RecipeError

T = TypeVar("T")


@dataclass(frozen=True)
class Source:
    """One task: questions to train on, drawn one at a time, and fixed ones to validate on."""

    weight: float
    draw: Callable[[np.random.Generator], Question]
    validation: tuple[Question, ...]
    chunks: Sequence[str]
    """Chunks that will all be needed, known before anything is drawn."""


@dataclass(frozen=True)
class Material:
    """What the tasks of a recipe are made of."""

    data: Path
    """The folder that paths are relative to."""
    background: Sequence[str]
    """Sentences of books to hide facts among."""
    pool: Sequence[str]
    """What is searched for hard negatives of stories: the background, and sentences like their facts."""
    held_out: Mapping[str, int]
    """How many questions of each file of stories no task may train on."""
    held_out_ids: Mapping[str, frozenset[str]]
    """The questions that no task may train on, of each file that several tasks read."""
    passages: Sequence[str]
    """Packed sentences of books, in order, for questions that are asked ``in_books``."""
    longest_validation: int
    """Most chunks of a document to validate on, for stories that mine."""


def pick(pool: Sequence[T], generator: np.random.Generator) -> T:
    """A random one, all equally likely."""
    return pool[int(generator.integers(len(pool)))]


def check_budget(budget: int, support: int, where: str) -> None:
    """Raises :class:`~trainer.errors.RecipeError` for a budget below the ``support`` chunks of a question."""
    if budget < support:
        raise RecipeError(f"budget: {where} has a question that needs {support} chunks; {budget} selections never do.")


def fixed_source(
    questions: Sequence[Question], weight: float, validation: int, budget: int | None, held_out: int
) -> Source:
    """A source of given questions: the last ``validation`` to validate on, all before the last ``held_out`` to draw.

    Raises :class:`~trainer.errors.RecipeError` for too few questions, or a budget that is too small.
    """
    count = len(questions) - held_out
    if count <= 0:
        raise RecipeError(f"{len(questions)} questions are too few to hold out {max(validation, held_out)}.")
    if budget is not None:
        check_budget(budget, max(question.needed for question in questions), questions[0].task)
    training = [question if budget is None else replace(question, budget=budget) for question in questions[:count]]

    def draw(generator: np.random.Generator) -> Question:
        return pick(training, generator)

    chunks = list(dict.fromkeys(chunk for question in training for chunk in question.chunks))
    return Source(weight, draw, tuple(questions[len(questions) - validation :]), chunks)
