"""A data directory for a test of its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from index.storage.local.opening import LocalStorage
from index.storage.news import News
from index.storage.protocols import Storage
from tests.engines.memory_points import MemoryPoints
from tests.engines.storages import open_distributed
from tests.index.memory_catalogue import MemoryCatalogue
from tests.index.memory_questions import MemoryQuestions
from tests.index.memory_storage import MemoryFeedback, MemoryStorage, MemoryVectors
from tests.index.storages import DIMENSION, open_local


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[LocalStorage]:
    with closing(open_local(tmp_path)) as storage:
        yield storage


@pytest.fixture(params=["local", "memory", "distributed"])
def either_storage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Storage]:
    opened: Storage
    if request.param == "local":
        opened = open_local(tmp_path)
    elif request.param == "distributed":
        server = request.getfixturevalue("postgres")
        opened = open_distributed(server.new_url(), MemoryPoints(), tmp_path / "incoming")
    else:
        news = News()
        catalogue = MemoryCatalogue(news)
        vectors = MemoryVectors(catalogue, news, fingerprint="words", dimension=DIMENSION)
        feedback, questions = MemoryFeedback(catalogue), MemoryQuestions(catalogue)
        opened = MemoryStorage(catalogue, vectors, feedback, questions, news, tmp_path)
    with closing(opened):
        yield opened
