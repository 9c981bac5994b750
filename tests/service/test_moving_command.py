"""``python -m service export`` and ``import``, as somebody uses them who moves to another machine."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.forked import ForkedService
from tests.servers import running_server
from tests.service.helpers import UNICODE, add, ask


def run(directory: Path, checkpoint: Path, *arguments: str, fails: bool = False) -> str:
    """Run a command on a data directory; returns what it prints, or says where it fails."""
    process = ForkedService({"QRAG_DATA_DIR": str(directory), "QRAG_CHECKPOINT": str(checkpoint)}, arguments)
    with process.stdout, process.stderr:
        output, errors = process.stdout.read(), process.stderr.read()
    assert process.wait(60) == fails, errors
    assert "Traceback" not in errors
    if not fails:
        assert re.search(r"index\.storage\.moving\.\w+ .*finished documents=2", errors)
    return errors if fails else output


def test_a_service_moves_with_two_commands_and_answers_as_before(
    tmp_path: Path, calibrated_checkpoint: Path, tiny_checkpoint: Path
) -> None:
    old, new, folder = tmp_path / "old", tmp_path / "new", str(tmp_path / "export")
    assert "is no data directory" in run(old, calibrated_checkpoint, "export", folder, fails=True)

    def questions(client: Any) -> list[Any]:
        answers = [ask(client, question, max_steps=4) for question in ("Who signed the lease?", "Wo ist Ärger?")]
        return [[(chunk["document_id"], chunk["index"], chunk["q"]) for chunk in found["chunks"]] for found in answers]

    def kept(client: Any) -> list[Any]:
        records: list[Any] = client.get("/questions").json()["questions"]
        return records

    with running_server(old, calibrated_checkpoint, keep_questions_days=30) as client:
        add(client, UNICODE, id="unicode", title="Ärger", metadata={"year": 2024})
        add(client, "Ana signed the lease.\nThe office moved to Lisbon.", id="lease", chunking={"mode": "lines"})
        assert client.patch("/documents/lease", json={"title": "Another title"}).status_code == 200
        expected = questions(client)
        documents = client.get("/documents").json()["documents"]
        asked = kept(client)
        assert [question["question"] for question in asked] == ["Who signed the lease?", "Wo ist Ärger?"]
        refused = run(old, calibrated_checkpoint, "export", folder, fails=True)
        assert "export a copy: `python -m service backup" in refused
    assert "0 records of feedback and 2 questions" in run(old, calibrated_checkpoint, "export", folder)
    assert "finished export" in run(old, calibrated_checkpoint, "export", folder, fails=True)
    assert "Set QRAG_CHECKPOINT" in run(new, tiny_checkpoint, "import", folder, fails=True)
    assert not new.exists()
    assert "2 documents, 2 of them new" in run(new, calibrated_checkpoint, "import", folder)
    assert "2 documents, 0 of them new" in run(new, calibrated_checkpoint, "import", folder)
    with running_server(new, calibrated_checkpoint, keep_questions_days=30) as client:
        assert kept(client) == asked
        found = questions(client)
        assert [[chunk[:2] for chunk in answer] for answer in found] == [
            [chunk[:2] for chunk in answer] for answer in expected
        ]
        for answer, before in zip(found, expected, strict=True):
            assert [q for *_, q in answer] == pytest.approx([q for *_, q in before], abs=1e-5)
        moved = client.get("/documents").json()["documents"]
        times = {"created_at", "updated_at"}
        assert [{key: value for key, value in document.items() if key not in times} for document in moved] == [
            {key: value for key, value in document.items() if key not in times} for document in documents
        ]
        assert client.patch("/documents/lease", json={"title": "Its own"}).status_code == 200
    assert "Say --replace" in run(new, calibrated_checkpoint, "import", folder, fails=True)
    assert "1 of them new" in run(new, calibrated_checkpoint, "import", folder, "--replace")
