"""A data directory for a test of its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from index.storage.local.opening import LocalStorage
from tests.index.storages import open_local


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[LocalStorage]:
    with closing(open_local(tmp_path)) as storage:
        yield storage
