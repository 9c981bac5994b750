"""Moving documents from one service to another, as docs/operating.md shows it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.servers import running_server
from tests.service.helpers import UNICODE, add, chunks_of, text_of

OPERATING = Path(__file__).parents[2] / "docs" / "operating.md"


@pytest.fixture
def source(tmp_path: Path, tiny_checkpoint: Path) -> Iterator[httpx.Client]:
    """A client of the service that the documents leave."""
    with running_server(tmp_path, tiny_checkpoint) as client:
        yield client


def test_the_program_of_the_documentation_moves_everything(
    source: httpx.Client, shared_client: httpx.Client, collection: str
) -> None:
    add(source, UNICODE, id=f"{collection}-1", collection=collection, title="Ärger", metadata={"year": 2024})
    add(source, "One.\nTwo.", id=f"{collection}-2", collection=collection, chunking={"mode": "lines"})
    (program,) = re.findall(r"```python\n(.*?)```", OPERATING.read_text(), re.DOTALL)
    for address, service in (("8000", source), ("8001", shared_client)):
        program = program.replace(f"http://127.0.0.1:{address}", str(service.base_url).rstrip("/"))
    exec(program, {})
    for id in (f"{collection}-1", f"{collection}-2"):
        old, new = (service.get(f"/documents/{id}").json() for service in (source, shared_client))
        times = {"created_at", "updated_at"}
        assert {key: new[key] for key in new.keys() - times} == {key: old[key] for key in old.keys() - times}
        assert text_of(shared_client, id) == text_of(source, id)
        assert chunks_of(shared_client, id) == chunks_of(source, id)
