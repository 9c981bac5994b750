"""Questions with the evidence and the answers that are expected, read from JSON Lines or CSV."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from qrag.wire.checks.questions import Question

COLUMNS = ("id", "question", "collection", "answer", "text", "document_id", "title", "start", "end", "page")
"""The columns that a CSV file may have."""


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
    """A row is a piece of evidence, an accepted answer, or both; rows of the same id are one question."""
    reader = csv.DictReader(StringIO(text, newline=""))
    columns = Counter(reader.fieldnames or ())
    if unknown := columns.keys() - set(COLUMNS):
        raise ValueError(f"{path}: there is no column {min(unknown)!r}, but {', '.join(COLUMNS)}")
    if twice := next((name for name, count in columns.items() if count > 1), None):
        raise ValueError(f"{path}: the column {twice!r} is there twice: give each value a row, with the question's id")
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
        _, first = asked.setdefault(id, (number, described))
        if any(first.get(name) != value for name, value in described.items()):
            raise ValueError(f"{path}:{number}: the id {id!r} has another question or collection above")
        answer = given.pop("answer", None)
        if answer is not None:
            first.setdefault("answers", []).append(answer)
        if given or answer is None:
            first.setdefault("expected", []).append(given)
    for number, fields in asked.values():
        try:
            yield Question.model_validate(fields)
        except ValidationError as error:
            raise _wrong(path, number, error) from error


def _wrong(path: Path, number: int, error: ValidationError) -> ValueError:
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"])
    return ValueError(f"{path}:{number}: {place + ': ' if place else ''}{first['msg'].removeprefix('Value error, ')}")
