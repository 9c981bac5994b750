"""Files of judgements: one JSON object a line, made by the command ``judge``, named by a task's ``judgements``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from pydantic import model_validator

from qrag.wire.models import FrozenModel
from trainer.datasets.files import entries
from trainer.datasets.question import Question
from trainer.errors import DataError


class Judgement(FrozenModel):
    """What a reader says of the chunks of one question; positions are those of its chunks, document after document."""

    id: str
    chunks: int
    """Chunks that the question has: another number means that they were cut in another way."""
    candidates: tuple[int, ...]
    """The chunks that were read."""
    values: tuple[float, ...]
    """What each is worth by itself, in nats."""
    support: tuple[int, ...]
    """The chunks that the question needs, in the order in which they were chosen; none where nothing helps."""
    gains: tuple[float, ...]
    """What each added, in nats."""
    correct: tuple[bool, ...] | None = None
    """Whether the reader answers right from each candidate: R3's pools; none where it was not asked."""

    @model_validator(mode="after")
    def _of_the_question(self) -> Judgement:
        if not all(0 <= position < self.chunks for position in (*self.candidates, *self.support)):
            raise ValueError(f"a position lies outside the {self.chunks} chunks")
        if len(self.values) != len(self.candidates) or len(self.correct or self.values) != len(self.values):
            raise ValueError("values and correct must have an entry for each candidate")
        return self


def write_judgements(path: Path, judgements: Iterable[Judgement]) -> int:
    """Write the file, whole or not at all; returns the number of judgements. The folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{path.name}.new")
    count = 0
    with unfinished.open("w", encoding="utf-8") as file:
        for judgement in judgements:
            file.write(judgement.model_dump_json(exclude_none=True) + "\n")
            count += 1
    unfinished.replace(path)
    return count


def read_judgements(path: Path) -> dict[str, Judgement]:
    """The judgements by the id of their question; raises :class:`~trainer.errors.DataError` for another file."""
    return {judgement.id: judgement for judgement in (entry.parse(Judgement) for entry in entries(path))}


def as_judged(questions: Iterable[Question], path: Path) -> list[Question]:
    """The questions with the support that the file gives them instead of their own; those that it does not know, or
    finds no support for, are left out.

    A question with pools (:attr:`Judgement.correct`) needs any one of the chunks that it can be answered from; without
    a right one or a wrong one it is left out. Raises :class:`~trainer.errors.DataError` where the chunks are others.
    """
    judgements = read_judgements(path)
    judged = []
    for question in questions:
        judgement = judgements.get(question.id)
        if judgement is None:
            continue
        if judgement.chunks != len(question.chunks):
            raise DataError(
                path,
                None,
                f"question {question.id} has {len(question.chunks)} chunks, not the {judgement.chunks} that were "
                "judged: judge the file again with the same `words`",
            )
        labelled = replace(question, removed=0, enough=None, judged=True)
        right, wrong = _pools(judgement)
        if right and wrong:
            judged.append(replace(labelled, support=right, facts=(right,), budget=1, wrong=wrong))
        elif judgement.correct is None and judgement.support:
            support = frozenset(judgement.support)
            judged.append(replace(labelled, support=support, facts=None, budget=len(support)))
    return judged


def _pools(judgement: Judgement) -> tuple[frozenset[int], tuple[int, ...]]:
    """The chunks that the reader answers right from, and those that it does not; both empty where it was not asked."""
    pairs = list(zip(judgement.candidates, judgement.correct or (), strict=False))
    return frozenset(position for position, right in pairs if right), tuple(p for p, right in pairs if not right)
