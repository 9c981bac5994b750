"""One's own questions: one JSON object a line, described in ``docs/data.md``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from trainer.datasets.files import entries
from trainer.datasets.question import Question, known_answers


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid")

    title: str | None = None
    text: str | None = None
    chunks: list[str] | None = Field(None, min_length=1)

    @model_validator(mode="before")
    @classmethod
    def _plain(cls, document: Any) -> Any:
        if isinstance(document, str):
            return {"text": document}
        if not isinstance(document, dict):
            raise ValueError("a document is a text, or an object with `text` or `chunks`")
        return document

    @model_validator(mode="after")
    def _one_body(self) -> _Document:
        if (self.text is None) == (self.chunks is None):
            raise ValueError("a document has either `text` (one chunk) or `chunks`")
        return self

    def pieces(self) -> list[str]:
        """Its chunks; the title stands before the first, on a line of its own."""
        pieces = [self.text] if self.text is not None else list(self.chunks or ())
        if self.title is not None:
            pieces[0] = f"{self.title}\n{pieces[0]}"
        return pieces


class _Own(BaseModel):
    model_config = ConfigDict(extra="forbid")

    question: str
    chunks: list[str] | None = Field(None, min_length=1)
    documents: list[_Document] | None = Field(None, min_length=1)
    support: list[int | list[int]] = Field([])
    id: str | None = None
    budget: int | None = Field(None, ge=1)
    task: str = "own"
    answer: Any = None
    metadata: Any = None

    @field_validator("support", mode="before")
    @classmethod
    def _numbers(cls, support: Any) -> Any:
        if isinstance(support, list):
            for index, entry in enumerate(support):
                numbers = entry if isinstance(entry, list) and len(entry) == 2 else [entry]
                if not all(type(number) is int for number in numbers):
                    raise ValueError(f"entry {index} must be a number, or a [document, chunk] pair of numbers")
        return support

    @model_validator(mode="after")
    def _one_source(self) -> _Own:
        if not self.support and not known_answers(*_texts(self.answer)):
            raise ValueError("give `support`, or at least an `answer` for a reader to judge chunks by")
        if (self.chunks is None) == (self.documents is None):
            raise ValueError("give either `chunks` (one document) or `documents`")
        return self


def read_jsonl(path: Path) -> Iterator[Question]:
    """The questions of a file in the plain format.

    Raises :class:`DataError` for a record that is not as described, also where its support names a document
    or a chunk that the record does not have.
    """
    for entry in entries(path):
        record = entry.parse(_Own)
        documents = [document.pieces() for document in record.documents or ()]
        if record.chunks is not None:
            documents = [record.chunks]
        try:
            support = frozenset(_position(documents, place, record.documents is None) for place in record.support)
            question = Question(
                id=record.id or entry.name(),
                task=record.task,
                text=record.question,
                chunks=_filled(documents),
                counts=tuple(map(len, documents)),
                support=support,
                budget=record.budget or len(support) or 1,
                answers=known_answers(*_texts(record.answer)),
            )
        except ValueError as failure:
            raise entry.error(str(failure)) from None
        yield question


def _texts(answer: Any) -> list[str]:
    """The texts and numbers of an answer; anything else has always been allowed, and says nothing."""
    answers = answer if isinstance(answer, list) else [answer]
    return [str(text) for text in answers if isinstance(text, str | int | float)]


def _filled(documents: list[list[str]]) -> list[str]:
    for number, document in enumerate(documents):
        for index, chunk in enumerate(document):
            if not chunk.strip():
                raise ValueError(f"chunk {index} of document {number} is empty: leave it out")
    return [chunk for document in documents for chunk in document]


def _position(documents: list[list[str]], place: int | list[int], one_document: bool) -> int:
    """Where a support entry lies among the chunks of all documents."""
    if isinstance(place, int):
        number, index = (0, place) if one_document else (place, None)
    else:
        number, index = place[0], place[1]
    if not 0 <= number < len(documents):
        raise ValueError(f"support names document {number}, but there are {len(documents)}, counted from 0")
    length = len(documents[number])
    if index is None:
        if length > 1:
            raise ValueError(f"support names document {number}, which has {length} chunks: name [{number}, chunk]")
        index = 0
    if not 0 <= index < length:
        raise ValueError(f"support names chunk {index} of document {number}, which has {length}, counted from 0")
    return sum(map(len, documents[:number])) + index
