"""Questions with the evidence that is expected for them, read from JSON Lines or CSV."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, StringConstraints, ValidationError, model_validator

from qrag.wire.models import RequestModel
from qrag.wire.names import CollectionName
from qrag.wire.retrieval import Question as QuestionText

COLUMNS = ("id", "question", "collection", "text", "document_id", "title", "start", "end", "page")
"""The columns that a CSV file may have."""

WORDS_SHOWN = 12
"""Words of a passage that name it."""


class Expected(RequestModel):
    """A piece of evidence: a passage, or a whole document, a range of its characters, or one of its pages."""

    text: Annotated[str, StringConstraints(pattern=r"\S")] | None = None
    document_id: str | None = None
    title: str | None = None
    start: int | None = Field(default=None, ge=0)
    end: int | None = Field(default=None, ge=1)
    page: int | str | None = None
    """The number of a page, or as a string what the file calls it."""

    @model_validator(mode="after")
    def _names_one_thing(self) -> Self:
        if self.document_id is not None and self.title is not None:
            raise ValueError("name the document by document_id or by title, not both")
        if self.text is None and self.document_id is None and self.title is None:
            raise ValueError("give a text, or name a document by document_id or title")
        if (self.start is None) != (self.end is None):
            raise ValueError("start and end belong together")
        if self.start is not None and self.end is not None and self.start >= self.end:
            raise ValueError("start must be smaller than end")
        if sum(part is not None for part in (self.text, self.start, self.page)) > 1:
            raise ValueError("give a text, or start and end, or a page: one of them")
        return self

    def document(self) -> str:
        """The document in words; empty where none is named."""
        if self.document_id is not None:
            return f"document {self.document_id}"
        return "" if self.title is None else f"“{self.title}”"

    def words(self) -> str:
        """What is expected, in words."""
        place = self.document()
        if self.text is not None:
            words = self.text.split()
            passage = " ".join(words[:WORDS_SHOWN]) + (" …" if len(words) > WORDS_SHOWN else "")
            return f"“{passage}”" + (f" in {place}" if place else "")
        if self.start is not None:
            return f"{place}, characters {self.start} to {self.end}"
        return place if self.page is None else f"{place}, page {self.page}"


def _as_list(piece: object) -> object:
    return piece if isinstance(piece, list) else [piece]


Alternatives = Annotated[list[Expected], Field(min_length=1), BeforeValidator(_as_list)]
"""A piece of evidence that can be found in one of several ways; one that stands alone is a list of itself."""


class Question(RequestModel):
    """A question, and all the pieces of evidence that its answer needs."""

    id: Annotated[str, StringConstraints(min_length=1, max_length=200)] = ""
    """Default: the number of its line."""
    question: QuestionText
    collection: CollectionName | None = None
    """None: that of the command."""
    expected: list[Alternatives] = Field(min_length=1)


def read_questions(path: Path) -> list[Question]:
    """The questions of a file: CSV if its name ends so, else JSON Lines.

    Raises :class:`OSError`, and :class:`ValueError` with the line of the first question that is wrong.
    """
    text = path.read_text(encoding="utf-8-sig")
    try:
        questions = list(_from_csv(path, text) if path.suffix.lower() == ".csv" else _from_lines(path, text))
    except csv.Error as error:
        raise ValueError(f"{path}: {error}") from error
    if not questions:
        raise ValueError(f"{path} holds no question")
    seen: set[str] = set()
    for question in questions:
        if question.id in seen:
            raise ValueError(f"{path}: the id {question.id!r} is of two questions")
        seen.add(question.id)
    return questions


def _from_lines(path: Path, text: str) -> Iterator[Question]:
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                question = Question.model_validate_json(line)
            except ValidationError as error:
                raise _wrong(path, number, error) from error
            yield question if question.id else question.model_copy(update={"id": str(number)})


def _from_csv(path: Path, text: str) -> Iterator[Question]:
    """A row is a piece of evidence; rows of the same id are one question."""
    reader = csv.DictReader(StringIO(text, newline=""))
    if unknown := set(reader.fieldnames or ()).difference(COLUMNS):
        raise ValueError(f"{path}: there is no column {min(unknown)!r}, but {', '.join(COLUMNS)}")
    asked: dict[str, tuple[int, dict[str, Any]]] = {}
    for row in reader:
        number = reader.line_num
        if None in row:
            raise ValueError(f"{path}:{number}: more fields than columns")
        given: dict[str, Any] = {name: value for name, value in row.items() if value and value.strip()}
        for name in ("start", "end", "page"):
            if name in given and given[name].strip().isdecimal():
                given[name] = int(given[name])
        names = [name for name in COLUMNS[:3] if name in given]
        described = {name: given.pop(name) for name in names}
        id = described.setdefault("id", str(number))
        _, first = asked.setdefault(id, (number, {**described, "expected": []}))
        if any(first.get(name) != value for name, value in described.items()):
            raise ValueError(f"{path}:{number}: the id {id!r} has another question or collection above")
        first["expected"].append(given)
    for number, fields in asked.values():
        try:
            yield Question.model_validate(fields)
        except ValidationError as error:
            raise _wrong(path, number, error) from error


def _wrong(path: Path, number: int, error: ValidationError) -> ValueError:
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"])
    return ValueError(f"{path}:{number}: {place + ': ' if place else ''}{first['msg'].removeprefix('Value error, ')}")
