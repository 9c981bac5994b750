"""Fixtures of the servers that test modules share; the ``conftest`` of each folder that asks them imports them."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.servers import blameless_server, running_server
from tests.service.chat import completion
from tests.service.helpers import MAX_BODY, MAX_DOCUMENTS, add
from tests.service.scripted import scripted


@pytest.fixture(scope="session")
def shared_client(
    tmp_path_factory: pytest.TempPathFactory, calibrated_checkpoint: Path, reranker: Path
) -> Iterator[httpx.Client]:
    """A client of one server for all modules whose tests keep to collections of their own."""
    with scripted(otherwise=completion("Nobody knows [1].")) as endpoint:
        model = {"llm_base_url": f"{endpoint.url}/v1", "llm_model": "small", "reranker": str(reranker)}
        settings = {**model, "keep_questions_days": "30"}
        with running_server(tmp_path_factory.mktemp("shared"), calibrated_checkpoint, **settings) as client:
            yield client


@pytest.fixture(scope="session")
def client(shared_client: httpx.Client) -> httpx.Client:
    """The shared one, where a module has no server of its own."""
    return shared_client


@pytest.fixture(scope="session")
def limited_client(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path) -> Iterator[httpx.Client]:
    """A client of a server with low limits; at its end nothing unexpected may stand in the server's log."""
    data = tmp_path_factory.mktemp("limited")
    limits = {"max_body_bytes": MAX_BODY, "max_documents_per_request": MAX_DOCUMENTS}
    with blameless_server(data, tiny_checkpoint, **limits) as client:
        add(client, "Ana signed the lease.", id="kept", collection="kept", metadata={"year": 2024})
        yield client


@pytest.fixture
def collection() -> str:
    """The name of a collection that nobody else uses."""
    return f"c-{uuid.uuid4().hex}"
