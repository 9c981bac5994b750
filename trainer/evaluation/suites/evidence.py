"""The suites ``evidence`` and ``reader``: questions about real documents, marked with their evidence."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path

from index.chunking import Chunk, chunk_document
from index.encoders.checkpoint import read_config, tower_directory
from index.encoders.tokenizer import TextTokenizer
from trainer.bases.models import PACKAGED, start_directory
from trainer.datasets.books import read_books
from trainer.datasets.evidence import read_evidence
from trainer.datasets.question import Question
from trainer.datasets.reader import read_reader
from trainer.errors import DataError, RecipeError
from trainer.evaluation.suites.test_sets import TestSet, listed

EXAMPLES = Path(__file__).parents[3] / "examples"
"""Where a checkout has the book that its documents use."""

CHUNK_TOKENS = 64
"""Most tokens of a chunk, as the service cuts text by default."""


def evidence(data: Path, names: Sequence[str] | None, questions: int | None, _seed: int) -> Iterator[TestSet]:
    """Every ``NAME_dev`` file of ``data/evidence`` by itself: its answerable questions, five selections each.

    In place of lengths there are names of sets. Raises :class:`~trainer.errors.RecipeError` for one that is not there.
    """
    paths = {path.name.partition("_dev.")[0]: path for path in sorted((data / "evidence").glob("*_dev.jsonl*"))}
    if unknown := set(names or ()).difference(paths):
        raise RecipeError(f"There is no set {min(unknown)} in {data / 'evidence'}, but {', '.join(paths)}.")
    for name, path in paths.items():
        if names and name not in names:
            continue
        every = list(read_evidence(path))
        asked = [question for question in every if question.support]
        if asked:
            unanswered = [question for question in every if not question.support]
            yield replace(listed(asked[:questions]), unanswered=unanswered[:questions])


def reader(data: Path, _lengths: Sequence[str] | None, questions: int | None, _seed: int) -> Iterator[TestSet]:
    """A reader's questions on whole books, cut as the service cuts them: single facts, and two facts far apart."""
    tasks: dict[str, list[Question]] = {}
    for question in read_whole_books(data):
        tasks.setdefault(question.task, []).append(question)
    unanswered = tasks.get("reader_none", [])
    for task in ("reader_single", "reader_two"):
        if task in tasks:
            yield replace(listed(tasks[task][:questions]), unanswered=unanswered[:questions])


def read_whole_books(data: Path) -> Iterator[Question]:
    """The questions of ``data/reader/reader_dev.jsonl``, the unanswerable ones included."""
    tokenizer = _tokenizer()
    cut = partial(_cut, tokenizer=tokenizer)
    return read_reader(data / "reader" / "reader_dev.jsonl", partial(_book, data), cut)


def _cut(text: str, tokenizer: TextTokenizer) -> list[Chunk]:
    return list(chunk_document(text, "sentences", CHUNK_TOKENS, tokenizer))


def _tokenizer() -> TextTokenizer:
    """The tokenizer by which the packaged checkpoint counts."""
    directory = start_directory(PACKAGED)
    return TextTokenizer(tower_directory(directory, read_config(directory).action))


def _book(data: Path, name: str) -> str:
    """The text of a book: beside the questions, among the project's examples, or of the books' dev part."""
    for beside in (data / "reader" / "books" / name, EXAMPLES / name):
        if beside.exists():
            return beside.read_bytes().decode()
    books = _dev_books(data / "books")
    if name not in books:
        raise DataError(
            data / "reader" / "books" / name, None, "is not there, and no book of the dev part has this name"
        )
    return books[name]


@lru_cache(maxsize=1)
def _dev_books(folder: Path) -> dict[str, str]:
    return {book.name: book.text for book in read_books(folder, "dev")}
