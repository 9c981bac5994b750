from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.architectures import write_base
from tests.trainer.mixtures import BOOK, write_stories
from trainer.bases.language_models import SMOLLM2
from trainer.bases.models import models_folder
from trainer.readers.local import LocalReader, load_reader


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    """These models are too small to share out, and pytest runs two processes on two cores."""
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(deterministic)


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base model to train from: a random BERT of two layers and dimension 32, with the tokenizer of MiniLM."""
    return write_base(tmp_path_factory.mktemp("tiny-base"), "bert-mean")


@pytest.fixture(scope="session")
def smollm2() -> LocalReader:
    """The real small reader in float32; tests are skipped where it was not fetched."""
    path = models_folder() / SMOLLM2.name
    if not path.is_file():
        pytest.skip(f"{path} is not there: python -m trainer fetch smollm2")
    return load_reader(path, torch.device("cpu"), torch.float32)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A folder with a book and two files of stories."""
    (tmp_path / "books").mkdir()
    (tmp_path / "books" / "book.txt").write_text(BOOK)
    write_stories(tmp_path / "one.txt", 0, [3] * 12)
    write_stories(tmp_path / "two.txt", 1, [4, 1, 2] * 4)
    return tmp_path
