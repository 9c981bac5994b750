"""Moving documents from one service to another, as docs/operating.md shows it."""

from __future__ import annotations

import re
from pathlib import Path

import httpx

from tests.service.helpers import UNICODE, add, chunks_of, text_of

OPERATING = Path(__file__).parents[2] / "docs" / "operating.md"


def test_the_program_of_the_documentation_moves_everything(
    client: httpx.Client, shared_client: httpx.Client, collection: str
) -> None:
    add(client, UNICODE, id=f"{collection}-1", collection=collection, title="Ärger", metadata={"year": 2024})
    add(client, "One.\nTwo.", id=f"{collection}-2", collection=collection, chunking={"mode": "lines"})
    (program,) = re.findall(r"```python\n(.*?)```", OPERATING.read_text(), re.DOTALL)
    for address, service in (("8000", client), ("8001", shared_client)):
        program = program.replace(f"http://127.0.0.1:{address}", str(service.base_url).rstrip("/"))
    exec(program, {})
    for id in (f"{collection}-1", f"{collection}-2"):
        old, new = (service.get(f"/documents/{id}").json() for service in (client, shared_client))
        times = {"created_at", "updated_at"}
        assert {key: new[key] for key in new.keys() - times} == {key: old[key] for key in old.keys() - times}
        assert text_of(shared_client, id) == text_of(client, id)
        assert chunks_of(shared_client, id) == chunks_of(client, id)
