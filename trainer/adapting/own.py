"""Users' own questions about a collection: pairs of question and answer, and the service's feedback."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import torch
from pydantic import StringConstraints

from qrag.wire.feedback import FeedbackOut
from qrag.wire.models import FrozenModel
from trainer.adapting.collection import Collection
from trainer.adapting.confirming import BUDGET, MOST_FACTS
from trainer.datasets.files import entries
from trainer.datasets.question import Question, known_answers
from trainer.errors import DataError
from trainer.judging.candidates import first_candidates
from trainer.judging.judge import Judge
from trainer.judging.support import LEAST_GAIN, find_support

CANDIDATES = 20
"""Chunks that are read for a question whose evidence nobody has named."""


class Pair(FrozenModel):
    """A question with its answer."""

    question: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
    answer: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]


def read_pairs(path: Path) -> list[Pair]:
    """The pairs of a CSV file with the columns ``question`` and ``answer``, or of JSON objects with these fields, one a
    line.

    Raises :class:`~trainer.errors.DataError` for another file.
    """
    if path.suffix.lower() != ".csv":
        return [entry.parse(Pair) for entry in entries(path)]
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.DictReader(file)
            if not {"question", "answer"} <= set(rows.fieldnames or ()):
                raise DataError(path, 1, "must have the columns question and answer")
            return [_pair(path, rows.line_num, row) for row in rows]  # a field may have lines of its own
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(path, None, f"cannot be read: {error}") from None


def _pair(path: Path, line: int, row: dict[str, str]) -> Pair:
    question, answer = ((row[name] or "").strip() for name in ("question", "answer"))
    if not question or not answer:
        raise DataError(path, line, "needs a question and an answer")
    return Pair(question=question, answer=answer)


def judged_pairs(
    judge: Judge, pairs: Iterable[Pair], collection: Collection, device: torch.device, cache: Path
) -> Iterator[Question]:
    """The pairs as questions, with the chunks that the reader needs for them; those for which none helps are left out.

    Raises as :class:`~trainer.readers.protocol.Reader` says.
    """
    questions = [
        _about(collection, f"own-{number}", pair.question, answer=pair.answer) for number, pair in enumerate(pairs)
    ]
    candidates = first_candidates(questions, CANDIDATES, device, cache)
    judgements = find_support(judge, questions, candidates, least_gain=LEAST_GAIN, most_chunks=MOST_FACTS)
    for question, judgement in zip(questions, judgements, strict=True):
        if judgement.support:
            yield replace(question, support=frozenset(judgement.support), judged=True)


def from_feedback(records: Iterable[FeedbackOut], collection: Collection) -> Iterator[Question]:
    """The questions of which people said that chunks helped; each of these is needed.

    ``records`` are in order of arrival: of a question's judgements of a chunk the latest counts. Chunks that are no
    longer there, or whose text is another now, do not count.
    """
    judged: dict[str, dict[int, bool]] = {}
    last: dict[str, FeedbackOut] = {}
    for record in records:
        for chunk in record.chunks:
            position = collection.position(chunk.document_id, chunk.index)
            if position is not None and collection.chunks[position] == chunk.text:
                judged.setdefault(record.question, {})[position] = chunk.helpful
                last[record.question] = record
    for text, positions in judged.items():
        if helpful := frozenset(position for position, helped in positions.items() if helped):
            yield _about(collection, last[text].id, text, answer=last[text].answer, support=helpful)


def _about(
    collection: Collection, id: str, text: str, *, answer: str | None, support: frozenset[int] = frozenset()
) -> Question:
    return Question(
        id=id,
        task="own",
        text=text,
        chunks=collection.chunks,
        counts=collection.counts,
        support=support,
        budget=BUDGET,
        answers=known_answers(answer),
    )
