"""Sentences of books as background: for training and for evaluation, from different books."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from itertools import chain, islice
from pathlib import Path

from trainer.datasets.books import book_sentences, read_books
from trainer.datasets.squad import passages

BOOK_SHARE = 500
"""Sentences taken from each book, if they suffice: many voices rather than few whole books."""

KEPT_BOOKS = range(60, 140)
"""Books of the training part that are never trained on: evaluation over the longest documents reads them."""

SHORT = 20_000
"""Sentences up to which a document of the evaluation is hidden in a share of each book."""


def training_sentences(books: Path, count: int) -> list[str]:
    """At most ``count`` sentences from the first books of the training part, a share of each."""
    share = max(BOOK_SHARE, -(-count // KEPT_BOOKS.start))
    sentences: list[str] = []
    for book in islice(read_books(books, "train"), KEPT_BOOKS.start):
        sentences += middle_sentences(book.text, share)
        if len(sentences) >= count:
            break
    return sentences[:count]


def training_passages(books: Path, words: int, count: int) -> list[str]:
    """At most ``count`` passages of packed sentences: a run from each of the first books of the training part."""
    share = -(-count // KEPT_BOOKS.start)
    runs: list[str] = []
    for book in islice(read_books(books, "train"), KEPT_BOOKS.start):
        cut = [book.text[chunk.start : chunk.end] for chunk in passages(book.text, words)]
        first = max(0, (len(cut) - share) // 2)
        runs += cut[first : first + share]
        if len(runs) >= count:
            break
    return runs[:count]


def trainable_sentences(books: Path) -> list[str]:
    """All sentences of the training part but those of the :data:`KEPT_BOOKS`."""
    return [
        sentence
        for number, book in enumerate(read_books(books, "train"))
        if number not in KEPT_BOOKS
        for sentence in book_sentences(book.text)
    ]


def middle_sentences(text: str, share: int) -> list[str]:
    """At most ``share`` sentences from the middle of a book."""
    sentences = book_sentences(text)
    middle = len(sentences) // 2
    return sentences[max(0, middle - share // 2) : middle + share // 2]


def evaluation_sentences(books: Path, length: int, *, short: int = SHORT) -> Sequence[str]:
    """Background for documents of ``length`` sentences: of the books' dev part as far as it suffices.

    For ``short`` documents a share of each book, for longer ones whole books, and after those of the dev part the books
    of the training part that no training reads.
    """
    # One in twenty more, so that not all documents begin at the same sentence.
    return _evaluation_background(books, length + length // 20 if length > short else None)


@functools.lru_cache(maxsize=1)  # the same object for lengths in a row; one more than the longest would be too much
def _evaluation_background(books: Path, count: int | None) -> tuple[str, ...]:
    if count is None:
        return tuple(
            sentence for book in read_books(books, "dev") for sentence in middle_sentences(book.text, BOOK_SHARE)
        )
    sentences: list[str] = []
    later = islice(read_books(books, "train"), KEPT_BOOKS.start, KEPT_BOOKS.stop)
    for book in chain(read_books(books, "dev"), later):
        sentences += book_sentences(book.text)
        if len(sentences) >= count:
            break
    return tuple(sentences[:count])


def evaluation_passages(books: Path, words: int) -> Iterator[str]:
    """Sentences of the books' dev part, packed into passages of at most so many words."""
    return (
        book.text[chunk.start : chunk.end] for book in read_books(books, "dev") for chunk in passages(book.text, words)
    )
