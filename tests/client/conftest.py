from __future__ import annotations

import os
from collections.abc import Iterator

import httpx
import pytest

from qrag import Client
from tests.client.clients import Connect
from tests.client.frameworks import Letters, write_letters
from tests.shared_server import collection, limited_client, shared_client

__all__ = ["collection", "limited_client", "shared_client"]

# Haystack reports its use unless it finds this when it is imported, and LangChain where somebody has switched it on.
os.environ |= {"HAYSTACK_TELEMETRY_ENABLED": "false", "LANGSMITH_TRACING": "false", "LANGCHAIN_TRACING_V2": "false"}


@pytest.fixture(params=["blocking", "awaiting"])
def connect(request: pytest.FixtureRequest) -> Iterator[Connect]:
    connect = Connect(request.param)
    yield connect
    connect.close()


@pytest.fixture
def qrag(connect: Connect, shared_client: httpx.Client) -> Client:
    """A client of the server that modules share."""
    return connect(str(shared_client.base_url))


@pytest.fixture
def surroundings(monkeypatch: pytest.MonkeyPatch, shared_client: httpx.Client) -> None:
    """For ``qrag``: the shared server is the one by default, and nothing else is set."""
    for name in [*os.environ]:
        if name.startswith("QRAG_") or name == "NO_COLOR":
            monkeypatch.delenv(name)
    monkeypatch.setenv("QRAG_URL", str(shared_client.base_url))


@pytest.fixture
def letters(shared_client: httpx.Client, collection: str) -> Letters:
    """What the retrievers for frameworks are asked about."""
    return write_letters(shared_client, collection)
