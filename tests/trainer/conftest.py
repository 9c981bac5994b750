from __future__ import annotations

from pathlib import Path

import pytest

from tests.architectures import write_base
from tests.threads import _one_thread
from tests.trainer.mixtures import BOOK, write_stories

__all__ = ["_one_thread"]


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base model to train from: a random BERT of two layers and dimension 32, with the tokenizer of MiniLM."""
    return write_base(tmp_path_factory.mktemp("tiny-base"), "bert-mean")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A folder with a book and two files of stories."""
    (tmp_path / "books").mkdir()
    (tmp_path / "books" / "book.txt").write_text(BOOK)
    write_stories(tmp_path / "one.txt", 0, [3] * 12)
    write_stories(tmp_path / "two.txt", 1, [4, 1, 2] * 4)
    return tmp_path
