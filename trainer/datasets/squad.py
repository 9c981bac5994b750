"""SQuAD (v1.1, and the answerable questions of v2.0): each asks for one fact of running prose.

What can be retrieved for a question is its article: each paragraph a document, one chunk or whole sentences packed as
the service packs them. No title stands before them, so a chunk may say "he" or "the company".
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate
from pathlib import Path

from pydantic import BaseModel, Field

from index.chunking import Chunk, chunk_document
from trainer.datasets.files import Entry, numbered_lines
from trainer.datasets.question import Question, known_answers

SENTENCE_WORDS = 45
"""Words of a chunk of packed sentences: about the 64 tokens that the service packs by default."""

_WORD = re.compile(r"\S+")


class _Answer(BaseModel):
    text: str
    answer_start: int


class _Asked(BaseModel):
    id: str
    question: str
    answers: list[_Answer]
    is_impossible: bool = False


class _Paragraph(BaseModel):
    context: str = Field(min_length=1)
    qas: list[_Asked]


class _Article(BaseModel):
    title: str = ""
    paragraphs: list[_Paragraph] = Field(min_length=1)


class _File(BaseModel):
    data: list[_Article] = Field(min_length=1)


class _Words:
    """Counts words where chunking counts a model's tokens."""

    def count(self, texts: Sequence[str]) -> list[int]:
        return [len(text.split()) for text in texts]

    def token_ends(self, text: str) -> list[int]:
        return [match.end() for match in _WORD.finditer(text)]


_WORDS = _Words()


def passages(text: str, words: int | None) -> Iterator[Chunk]:
    """The text cut into whole sentences packed up to so many words, or whole; a blank one has none."""
    if words is None:
        return chunk_document(text, "whole", max(1, len(text)), _WORDS)  # it has no more words than characters
    return chunk_document(text, "sentences", words, _WORDS)


def read_squad(path: Path, words: int | None = None) -> Iterator[Question]:
    """The questions of a SQuAD file, task ``squad``, those of an article one after the other.

    Support is the chunk in which the first answer begins. Raises :class:`~trainer.errors.DataError` for another
    file, and where an answer is not where it should be.
    """
    entry = Entry(path, 1, 1, "\n".join(line for _, line in numbered_lines(path)))
    for article in entry.parse(_File).data:
        cut = [list(passages(paragraph.context, words)) for paragraph in article.paragraphs]
        if not all(cut):
            raise entry.error(f"{article.title}: a paragraph is blank")
        firsts = list(accumulate(map(len, cut), initial=0))
        chunks = [
            paragraph.context[chunk.start : chunk.end]
            for paragraph, pieces in zip(article.paragraphs, cut, strict=True)
            for chunk in pieces
        ]
        for number, paragraph in enumerate(article.paragraphs):
            for asked in paragraph.qas:
                if asked.is_impossible or not asked.answers:
                    continue
                answer = asked.answers[0]
                if not paragraph.context.startswith(answer.text, max(0, answer.answer_start)):
                    raise entry.error(f"question {asked.id}: the answer does not begin at {answer.answer_start}")
                within = bisect_right([chunk.start for chunk in cut[number]], answer.answer_start) - 1
                try:
                    yield Question(
                        id=asked.id,
                        task="squad",
                        text=asked.question,
                        chunks=chunks,
                        counts=tuple(map(len, cut)),
                        support=frozenset({firsts[number] + max(0, within)}),
                        budget=1,
                        answers=known_answers(*(answer.text for answer in asked.answers)),
                    )
                except ValueError as failure:
                    raise entry.error(f"question {asked.id}: {failure}") from None
