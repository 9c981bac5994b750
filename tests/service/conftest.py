from __future__ import annotations

import signal
import uuid
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from index.checkpoint import write_config
from tests.service.helpers import add, ask
from tests.support import Server, running_server, write_random_checkpoint

CALIBRATED_THRESHOLD = 0.1
MAX_BODY = 300_000
MAX_DOCUMENTS = 20


@pytest.fixture(scope="session")
def calibrated_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Like ``tiny_checkpoint``, with a stop threshold."""
    directory = tmp_path_factory.mktemp("calibrated-checkpoint")
    config = write_random_checkpoint(directory, seed=1)
    write_config(directory, config.model_copy(update={"stop_threshold": CALIBRATED_THRESHOLD}))
    return directory


@pytest.fixture(scope="session")
def shared_client(tmp_path_factory: pytest.TempPathFactory, calibrated_checkpoint: Path) -> Iterator[httpx.Client]:
    """A client of one server for all modules whose tests keep to collections of their own."""
    with running_server(tmp_path_factory.mktemp("shared"), calibrated_checkpoint) as client:
        yield client


@pytest.fixture
def collection() -> str:
    """The name of a collection that nobody else uses."""
    return f"c-{uuid.uuid4().hex}"


@pytest.fixture(scope="session")
def limited_client(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path) -> Iterator[httpx.Client]:
    """A client of a server with low limits; at its end nothing unexpected may stand in the server's log."""
    data = tmp_path_factory.mktemp("limited")
    server = Server(data, tiny_checkpoint, max_body_bytes=MAX_BODY, max_documents_per_request=MAX_DOCUMENTS)
    try:
        with httpx.Client(base_url=server.wait_until_listening(), timeout=60) as client:
            add(client, "Ana signed the lease.", id="kept", collection="kept", metadata={"year": 2024})
            yield client
        server.process.send_signal(signal.SIGTERM)
        status, log = server.exit()
    finally:
        server.kill()
    assert status == 0
    assert "stopped" in log
    for unexpected in ("unexpected error", "ERROR", "Exception in ASGI", "never retrieved"):
        assert unexpected not in log, log


@pytest.fixture
def unchanged_client(limited_client: httpx.Client) -> Iterator[httpx.Client]:
    """The same, for tests that the server must survive with the same documents as before, and working."""
    before = limited_client.get("/documents").json()
    yield limited_client
    assert limited_client.get("/documents").json() == before
    found = ask(limited_client, "Who?", collection="kept")["chunks"]
    assert [chunk["text"] for chunk in found] == ["Ana signed the lease."]
