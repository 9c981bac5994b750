from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from selenium.webdriver import Chrome

from index.encoders.encoder import Encoder
from index.encoders.loading import load_encoder
from qrag import Client
from qrag.wire.media_types import MediaType
from service.errors import ServiceError
from service.intake.parsing.process import ParseLimits, extract_text
from service.intake.parsing.worker import convert
from tests.service.browser import Page, chromium
from tests.service.chat import completion
from tests.service.clients import Connect
from tests.service.files import MEBIBYTE, Extract
from tests.service.frameworks import Letters, write_letters
from tests.service.helpers import add, ask
from tests.service.scripted import scripted
from tests.support import blameless_server, calibrate_at_random, running_server, write_random_checkpoint

# Haystack reports its use unless it finds this when it is imported, and LangChain where somebody has switched it on.
os.environ |= {"HAYSTACK_TELEMETRY_ENABLED": "false", "LANGSMITH_TRACING": "false", "LANGCHAIN_TRACING_V2": "false"}

MAX_BODY = 300_000
MAX_DOCUMENTS = 20


@pytest.fixture(scope="session")
def calibrated_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Like ``tiny_checkpoint``, with stop rules that never stop unless a chunk costs more than by default."""
    directory = tmp_path_factory.mktemp("calibrated-checkpoint")
    calibrate_at_random(directory, write_random_checkpoint(directory, seed=1))
    return directory


@pytest.fixture(scope="session")
def shared_client(tmp_path_factory: pytest.TempPathFactory, calibrated_checkpoint: Path) -> Iterator[httpx.Client]:
    """A client of one server for all modules whose tests keep to collections of their own."""
    with scripted(otherwise=completion("Nobody knows [1].")) as endpoint:
        model = {"llm_base_url": f"{endpoint.url}/v1", "llm_model": "small"}
        with running_server(tmp_path_factory.mktemp("shared"), calibrated_checkpoint, **model) as client:
            yield client


@pytest.fixture(scope="session")
def client(shared_client: httpx.Client) -> httpx.Client:
    """The shared one, where a module has no server of its own."""
    return shared_client


@pytest.fixture(scope="session")
def encoder(calibrated_checkpoint: Path) -> Encoder:
    """What the shared server reads with."""
    return load_encoder(calibrated_checkpoint)


@pytest.fixture
def collection() -> str:
    """The name of a collection that nobody else uses."""
    return f"c-{uuid.uuid4().hex}"


@pytest.fixture
def letters(shared_client: httpx.Client, collection: str) -> Letters:
    """What the retrievers for frameworks are asked about."""
    return write_letters(shared_client, collection)


@pytest.fixture(scope="session")
def limited_client(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path) -> Iterator[httpx.Client]:
    """A client of a server with low limits; at its end nothing unexpected may stand in the server's log."""
    data = tmp_path_factory.mktemp("limited")
    limits = {"max_body_bytes": MAX_BODY, "max_documents_per_request": MAX_DOCUMENTS}
    with blameless_server(data, tiny_checkpoint, **limits) as client:
        add(client, "Ana signed the lease.", id="kept", collection="kept", metadata={"year": 2024})
        yield client


@pytest.fixture
def unchanged_client(limited_client: httpx.Client) -> Iterator[httpx.Client]:
    """The same, for tests that the server must survive with the same documents as before, and working."""
    before = limited_client.get("/documents").json()
    yield limited_client
    assert limited_client.get("/documents").json() == before
    found = ask(limited_client, "Who?", collection="kept")["chunks"]
    assert [chunk["text"] for chunk in found] == ["Ana signed the lease."]


@pytest.fixture
def extract(tmp_path: Path) -> Extract:
    """Send a document through a worker process and return its text."""

    def run(
        content: bytes,
        media_type: MediaType,
        *,
        encoding: str | None = None,
        limits: ParseLimits | None = None,
    ) -> str:
        source, target = tmp_path / "source", tmp_path / "target"
        source.write_bytes(content)
        try:
            extract_text(source, target, media_type, encoding=encoding, limits=limits or ParseLimits())
        except ServiceError as error:
            assert not target.exists()
            assert_fit_for_remote_callers(error, tmp_path)
            raise
        return target.read_text(encoding="utf-8")

    return run


@pytest.fixture(scope="module")
def convert_here(tmp_path_factory: pytest.TempPathFactory) -> Extract:
    """Do in this process what the worker does, so that many examples cost little."""
    folder = tmp_path_factory.mktemp("in_process")

    def run(content: bytes, media_type: MediaType, *, encoding: str | None = None) -> str:
        source, target = folder / "source", folder / "target"
        source.write_bytes(content)
        try:
            convert(source, target, media_type, encoding=encoding, output_bytes=MEBIBYTE)
        except ServiceError as error:
            assert_fit_for_remote_callers(error, folder)
            raise
        return target.read_text(encoding="utf-8")

    return run


def assert_fit_for_remote_callers(error: ServiceError, folder: Path) -> None:
    """It says what to do and nothing about the server's inside."""
    assert str(folder) not in error.detail
    assert "Traceback" not in error.detail
    assert ".py" not in error.detail
    assert len(error.detail) > 40, "says what to do"


@pytest.fixture(scope="session")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    """A Chromium for all modules that look at the page."""
    with chromium(tmp_path_factory.mktemp("chromium")) as driver:
        yield driver


@pytest.fixture
def page(driver: Chrome, shared_client: httpx.Client, collection: str) -> Iterator[Page]:
    """The page about a collection of its own; at the end nothing may have gone wrong in it."""
    page = Page(driver, str(shared_client.base_url).rstrip("/"))
    page.open(collection)
    yield page
    page.assert_clean()


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
