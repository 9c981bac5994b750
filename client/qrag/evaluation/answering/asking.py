"""The answers that the service's language model writes, several questions at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from qrag import ApiError, Client, Conflict, InvalidRequest, NotFound
from qrag.evaluation.answering.matching import exact_match, f1
from qrag.evaluation.report import Written
from qrag.evaluation.together import together
from qrag.wire.asking.answers import MARKERS

_OF_ONE_QUESTION = ("language_model_failed", "language_model_too_slow")
"""Codes of failures after which the others are asked."""


class NoLanguageModel(Exception):
    """The service has nothing that could write an answer."""


@dataclass(frozen=True, slots=True)
class Answerable:
    """A question with accepted answers, and where to search."""

    question: str
    collection: str
    accepted: Sequence[str]


def write(
    client: Client, questions: Sequence[Answerable], max_steps: int, parallel: int, progress: Callable[[], object]
) -> list[Written]:
    """What is written for each question, ``parallel`` requests at a time; ``progress`` is called after each.

    Raises :class:`NoLanguageModel`, and the exceptions of :class:`~qrag.Client` but for a question that the service
    refuses or that the language model fails on: its answer is an error.
    """
    return together([partial(_written, client, question, max_steps) for question in questions], parallel, progress)


def _written(client: Client, asked: Answerable, max_steps: int) -> Written:
    try:
        answer = client.answer(asked.question, collection=asked.collection, max_steps=max_steps)
    except ApiError as error:
        if error.code == "no_language_model":
            raise NoLanguageModel from error
        if isinstance(error, InvalidRequest | NotFound | Conflict) or error.code in _OF_ONE_QUESTION:
            return Written(error=str(error))
        raise
    text = MARKERS.sub(" ", answer.answer)
    return Written(
        text=answer.answer,
        language_model=answer.language_model,
        exact=exact_match(text, asked.accepted),
        f1=f1(text, asked.accepted),
    )
