"""Questions with marked evidence over real documents: one JSON object a line, long documents in a file beside it.

``NAME_train.jsonl.gz`` and ``NAME_dev.jsonl.gz`` hold questions. Their texts are ``chunks`` (one document),
``documents`` (each with a ``text`` or ``chunks``), or a ``doc_id`` that names an object of ``NAME.docs.jsonl.gz``.
``docs/data.md`` describes all fields.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache
from itertools import accumulate, pairwise
from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel, Field, model_validator

from trainer.datasets.files import entries
from trainer.datasets.question import Question, known_answers
from trainer.datasets.squad import passages

BUDGET = 5
"""Selections that the protocol allows; of more evidence than that, so many chunks are enough."""

_PART = re.compile(r"_(train|dev|test)$")
_WORD = re.compile(r"[^\W_]+")
_ARTICLES = frozenset({"a", "an", "the"})


class _Document(BaseModel):
    title: str = ""
    text: str | None = None
    chunks: list[str] | None = Field(None, min_length=1)

    @model_validator(mode="after")
    def _one_body(self) -> _Document:
        if (self.text is None) == (self.chunks is None):
            raise ValueError("a document has either `text` or `chunks`")
        return self


class _Stored(BaseModel):
    doc_id: str
    chunks: list[str] = Field(min_length=1)
    counts: list[int] | None = None
    """Chunks of each of several documents laid end to end; none: it is one."""

    @model_validator(mode="after")
    def _whole(self) -> _Stored:
        if self.counts is not None and (sum(self.counts) != len(self.chunks) or min(self.counts, default=0) < 1):
            raise ValueError("the `counts` of the documents do not add up to the chunks")
        return self


class _Asked(BaseModel):
    id: str
    question: str
    answer: str | None = None
    answer_aliases: list[str] = []
    support: list[int | list[int]]
    answerable: bool = True
    scenario: str | None = None
    chunks: list[str] | None = Field(None, min_length=1)
    documents: list[_Document] | None = Field(None, min_length=1)
    doc_id: str | None = None

    @model_validator(mode="after")
    def _one_source(self) -> _Asked:
        if sum(source is not None for source in (self.chunks, self.documents, self.doc_id)) != 1:
            raise ValueError("give one of `chunks`, `documents` and `doc_id`")
        return self


class _Texts(NamedTuple):
    """What a question is asked about."""

    chunks: Sequence[str]
    counts: tuple[int, ...]


def read_evidence(path: Path) -> Iterator[Question]:
    """The questions of a file, the unanswerable ones included; the task is the name of the set.

    Title and text of a document's chunk are two lines, as the action tower reads them. A long text that several
    questions are about is one object. Raises :class:`~trainer.errors.DataError` for a record that is not as described.
    """
    return (question for _, question in _read(path))


def read_evidence_sentences(path: Path, words: int) -> Iterator[Question]:
    """The questions whose answer stands in a chunk of their evidence, over sentences packed up to so many words.

    The evidence is then each piece of that chunk that has all words of an answer. Questions with several chunks of
    evidence are left out: which piece of the others counts cannot be told. Raises as :func:`read_evidence`.
    """

    @cache
    def cut(chunks: tuple[str, ...], titled: bool) -> tuple[tuple[str, ...], tuple[int, ...]]:
        pieces = [_pieces(chunk, words, titled) for chunk in chunks]
        return tuple(piece for some in pieces for piece in some), tuple(accumulate(map(len, pieces), initial=0))

    for asked, question in _read(path):
        if len(question.support) != 1:
            continue
        (place,) = question.support
        chunks, firsts = cut(tuple(question.chunks), asked.documents is not None)
        answers = [_words_of(answer) for answer in (asked.answer or "", *asked.answer_aliases)]
        holders = frozenset(
            number
            for number in range(firsts[place], firsts[place + 1])
            if any(answer and answer <= _words_of(chunks[number]) for answer in answers)
        )
        if holders:
            borders = [firsts[end] for end in accumulate(question.counts, initial=0)]
            yield replace(
                question,
                chunks=chunks,
                counts=tuple(after - before for before, after in pairwise(borders)),
                support=holders,
                facts=(holders,),
                enough=None,
            )


def _pieces(chunk: str, words: int, titled: bool) -> list[str]:
    """The packed sentences of a chunk, each below its title where the first line may be one."""
    title, line, text = chunk.partition("\n") if titled and "\n" in chunk else ("", "", chunk)
    return [f"{title}{line}{text[piece.start : piece.end]}" for piece in passages(text, words)] or [chunk]


def _words_of(text: str) -> frozenset[str]:
    return frozenset(_WORD.findall(text.casefold())).difference(_ARTICLES)


def _read(path: Path) -> Iterator[tuple[_Asked, Question]]:
    task = _PART.sub("", path.name.partition(".")[0])
    stored = _stored(path, task)
    for entry in entries(path):
        asked = entry.parse(_Asked)
        try:
            texts = _texts(asked, stored)
            support = (
                frozenset(_position(place, texts.counts) for place in asked.support)
                if asked.answerable
                else frozenset()
            )
            question = Question(
                id=asked.id,
                task=task,
                text=f"{asked.scenario} {asked.question}" if asked.scenario else asked.question,
                chunks=texts.chunks,
                counts=texts.counts,
                support=support,
                budget=BUDGET,
                removed=0 if asked.answerable else 1,
                enough=min(len(support), BUDGET),
                answers=known_answers(asked.answer, *asked.answer_aliases),
            )
        except ValueError as failure:
            raise entry.error(f"question {asked.id}: {failure}") from None
        yield asked, question


def _stored(path: Path, task: str) -> dict[str, _Texts]:
    """The documents beside a file of questions, if there are any."""
    for suffix in (".jsonl.gz", ".jsonl.xz", ".jsonl"):
        file = path.with_name(f"{task}.docs{suffix}")
        if file.exists():
            documents = (entry.parse(_Stored) for entry in entries(file))
            return {
                document.doc_id: _Texts(document.chunks, tuple(document.counts or [len(document.chunks)]))
                for document in documents
            }
    return {}


def _texts(asked: _Asked, stored: dict[str, _Texts]) -> _Texts:
    if asked.doc_id is not None:
        if asked.doc_id not in stored:
            raise ValueError(f"no document {asked.doc_id} stands in the file of documents")
        return stored[asked.doc_id]
    if asked.chunks is not None:
        return _one(asked.chunks)
    documents = [
        [
            f"{document.title}\n{chunk}" if document.title else chunk
            for chunk in document.chunks or [document.text or ""]
        ]
        for document in asked.documents or ()
    ]
    return _Texts([chunk for chunks in documents for chunk in chunks], tuple(map(len, documents)))


def _one(chunks: Sequence[str]) -> _Texts:
    return _Texts(chunks, (len(chunks),))


def _position(place: int | list[int], counts: Sequence[int]) -> int:
    """Where a support entry lies among the chunks: a chunk of the one document, a document of one chunk, or a pair."""
    if isinstance(place, int):
        number, index = (0, place) if len(counts) == 1 else (place, 0)
        if len(counts) > 1 and 0 <= place < len(counts) and counts[place] > 1:
            raise ValueError(f"support {place} is a document of {counts[place]} chunks: name [{place}, chunk]")
    elif len(place) == 2:
        number, index = place
    else:
        raise ValueError(f"support {place} is no pair of document and chunk")
    if not (0 <= number < len(counts) and 0 <= index < counts[number]):
        raise ValueError(f"support {place} names a chunk that is not there")
    return sum(counts[:number]) + index
