"""A reader's questions on whole books, each fact marked by spans of the text."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Literal

from pydantic import BaseModel

from index.chunking import Chunk
from trainer.datasets.files import entries
from trainer.datasets.question import Question, known_answers

BUDGET = 5
"""Selections that the protocol allows."""

Cut = Callable[[str], Sequence[Chunk]]
"""Cuts a book into chunks."""


class _Asked(BaseModel):
    id: str
    book: str
    question: str
    answer: str | None = None
    kind: Literal["single", "two", "none"]
    facts: list[list[tuple[int, int]]]


def read_reader(path: Path, book: Callable[[str], str], cut: Cut) -> Iterator[Question]:
    """The questions of a file, tasks ``reader_single``, ``reader_two`` and ``reader_none``.

    ``book`` gives the text of a book by the name of its file. A fact is held by each chunk that overlaps one of its
    spans. Raises :class:`~trainer.errors.DataError` for a record that is not as described.
    """

    @lru_cache
    def chunks_of(name: str) -> tuple[tuple[Chunk, ...], tuple[str, ...]]:
        text = book(name)
        chunks = tuple(cut(text))
        return chunks, tuple(text[chunk.start : chunk.end] for chunk in chunks)

    for entry in entries(path):
        asked = entry.parse(_Asked)
        chunks, texts = chunks_of(asked.book)
        facts = tuple(_holders(chunks, spans) for spans in asked.facts)
        try:
            yield Question(
                id=asked.id,
                task=f"reader_{asked.kind}",
                text=asked.question,
                chunks=texts,
                counts=(len(texts),),
                support=frozenset().union(*facts),
                budget=BUDGET,
                removed=0 if facts else 1,
                facts=facts or None,
                answers=known_answers(asked.answer),
            )
        except ValueError as failure:
            raise entry.error(str(failure)) from None


def _holders(chunks: Sequence[Chunk], spans: Sequence[tuple[int, int]]) -> frozenset[int]:
    return frozenset(
        number
        for number, chunk in enumerate(chunks)
        if any(chunk.start < end and start < chunk.end for start, end in spans)
    )
