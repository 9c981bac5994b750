"""A test set, and what the suites share."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from trainer.datasets.question import Question
from trainer.errors import RecipeError

EVERY = 1_000_000
"""More questions than there are: all of them."""


@dataclass(frozen=True, slots=True)
class TestSet:
    """Questions that are reported as one row."""

    __test__ = False  # pytest: not a test case

    task: str
    length: str
    """Label of the documents' length; empty where it is as it comes."""
    tokens: int | None
    """The same as a number, for plots."""
    count: int
    draw: Callable[[], Iterator[Question]]
    """Makes the questions: the same ones each time."""
    background: Sequence[str] = ()
    """The text that most chunks come from, in order; the same object where it is shared between sets."""
    part: bool = False
    """Whether its questions are also in another set."""
    removable: bool = False
    """Whether a chunk of the support can be taken out without a trace: what is left then cannot answer the question."""
    unanswered: Sequence[Question] = ()
    """Further questions about such documents, which these do not answer."""


@dataclass(frozen=True, slots=True)
class Length:
    """A length of the protocol."""

    label: str
    tokens: int
    sentences: int
    """Chunks of a document."""
    questions: int
    """Asked of each task unless told otherwise."""


def listed(questions: Sequence[Question], length: str = "", tokens: int | None = None) -> TestSet:
    """A test set of questions that are there already, one at least."""
    return TestSet(questions[0].task, length, tokens, len(questions), partial(iter, questions))


def chosen_lengths(known: Iterable[Length], labels: Sequence[str] | None) -> list[Length]:
    """The lengths with these labels, all without; raises :class:`~trainer.errors.RecipeError` for an unknown one."""
    lengths = {length.label: length for length in known}
    if unknown := [label for label in labels or () if label not in lengths]:
        raise RecipeError(f"There is no length {unknown[0]} in this suite, but {', '.join(lengths)}.")
    return [length for label, length in lengths.items() if not labels or label in labels]


def generator_of(*names: str | int) -> np.random.Generator:
    """Random numbers that depend on the names alone, in every process."""
    return np.random.default_rng(list(hashlib.sha256("/".join(map(str, names)).encode()).digest()))
