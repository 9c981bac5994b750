from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from index.encoders.encoder import Encoder
from index.encoders.loading import load_encoder
from qrag.wire.media_types import MediaType
from service.errors import ServiceError
from service.intake.parsing.process import ParseLimits, extract_text
from service.intake.parsing.reading import Reading
from service.intake.parsing.worker import convert
from tests.service.files import MEBIBYTE, Extract
from tests.service.helpers import ask
from tests.service.proxies import served
from tests.shared_server import client, collection, limited_client, shared_client

__all__ = ["client", "collection", "limited_client", "served", "shared_client"]


@pytest.fixture(scope="session")
def encoder(calibrated_checkpoint: Path) -> Encoder:
    """What the shared server reads with."""
    return load_encoder(calibrated_checkpoint)


@pytest.fixture
def unchanged_client(limited_client: httpx.Client) -> Iterator[httpx.Client]:
    """The limited client, for tests that the server must survive with the same documents as before, and working."""
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
        charset: str | None = None,
        limits: ParseLimits | None = None,
    ) -> str:
        source, target = tmp_path / "source", tmp_path / "target"
        source.write_bytes(content)
        try:
            extract_text(source, target, media_type, charset=charset, limits=limits or ParseLimits())
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

    def run(content: bytes, media_type: MediaType, *, charset: str | None = None) -> str:
        source, target = folder / "source", folder / "target"
        source.write_bytes(content)
        try:
            convert(source, target, media_type, reading=Reading(charset), output_bytes=MEBIBYTE)
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
