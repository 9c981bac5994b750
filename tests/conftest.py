from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import hypothesis
import pytest

from tests.support import running_server, write_random_checkpoint

# How long an example takes says something about the machine, not about the code.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small random checkpoint with relative positions: dimension 32, loads and runs at once."""
    directory = tmp_path_factory.mktemp("tiny-checkpoint")
    write_random_checkpoint(directory)
    return directory


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path) -> Iterator[httpx.Client]:
    """A client of a server with the small checkpoint and an empty data directory, shared by a module."""
    with running_server(tmp_path_factory.mktemp("data"), tiny_checkpoint) as client:
        yield client
