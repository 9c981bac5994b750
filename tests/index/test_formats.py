"""Data directories of every format that was ever written: opened and upgraded, or refused and left alone.

``data-format-N`` holds a small one of format N as text and files. Whoever changes what is on disk raises
``FORMAT_VERSION`` and adds the next; what this version should still open stays in the tests.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from index.errors import FormatError
from index.storage.documents import Replacement
from index.storage.feedback import Feedback, JudgedChunk
from index.storage.local.database import FORMAT_VERSION, READABLE_VERSIONS, Database
from index.storage.local.files.segments import codes_path
from index.storage.questions import Question
from tests.index.storages import expected, index_all, laid_out, open_local, searchable

TEXTS = {
    "lease": "Ana signed the lease.\nBruno kept bees.\nÄrger im Büro 👩\u200d👧.",
    "letter": "One letter only.",
    "late": "It was still queued.",
}


def schema(path: Path) -> set[str]:
    with closing(sqlite3.connect(path)) as database:
        return {row[0] for row in database.execute("SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL")}


@pytest.mark.parametrize("version", READABLE_VERSIONS)
def test_a_directory_of_any_format_so_far_is_opened_searched_and_added_to(tmp_path: Path, version: int) -> None:
    with closing(open_local(laid_out(tmp_path, version))) as storage:
        documents = {document.id: document for document in storage.catalogue.documents()}
        assert {id: document.status for id, document in documents.items()} == {
            "lease": "ready",
            "letter": "ready",
            "late": "queued",
        }
        lease = documents["lease"]
        assert (lease.title, lease.collection, lease.metadata) == ("Lease", "office", {"year": 2024, "tags": ["a"]})
        for id, text in TEXTS.items():
            assert "".join(storage.catalogue.text_blocks(documents[id].uid)) == text
        chunks = storage.catalogue.chunks(lease.uid)
        assert [chunk.text for chunk in chunks] == TEXTS["lease"].splitlines()
        later = {"page": 3, "headings": ["Bees"]}
        assert [chunk.location for chunk in chunks] == ([{"page": 1}, later, later] if version >= 3 else [{}, {}, {}])
        assert lease.warnings == (("Page 2 has no text.",) if version >= 3 else ())
        written = np.arange(32, dtype=np.float32).reshape(4, 8) / 8
        np.testing.assert_array_equal(searchable(storage, "office")["lease"], written[:3])
        np.testing.assert_array_equal(searchable(storage)["letter"], written[3:])
        assert codes_path(storage.vectors.segment_path(1)).exists(), "made again"
        assert lease.replacement == (Replacement("queued", 0.0, None) if version >= 4 else None)
        judged = [
            JudgedChunk("lease", 0, "Ana signed the lease.", True),
            JudgedChunk("lease", 1, "Bruno kept bees.", False),
        ]
        said = Feedback("office", "Who signed the lease?", judged, "Ana.", None, "tiny", "f1")
        found = [(record.number, record.id, record.feedback) for record in storage.feedback.records()]
        assert found == ([(3, "fb-0123456789abcdef01234567", said)] if version >= 5 else [])
        added = storage.feedback.add(said, [lease.uid])
        assert storage.feedback.records(after=3 if version >= 5 else 0) == [added]
        asked_at = datetime(2026, 3, 1, 9, 0, 0, 250_000, UTC)
        shown = [("lease", 1), ("lease", 0)]
        outcome = (False, "sufficient", 0.75, 0.125, 0.5, "r1")
        asked = Question("qu-1", "office", "Who signed the lease?", asked_at, "tiny", "f1", shown, *outcome)
        first = replace(asked, id="qu-0123456789abcdef01234567")
        every = storage.feedback.records()
        before = [(7, first, every)] if version >= 6 else []
        assert storage.questions.records() == before
        storage.questions.add([asked])
        assert storage.questions.records() == [*before, (8 if version >= 6 else 1, asked, every)]
        index_all(storage)
        np.testing.assert_array_equal(searchable(storage)["late"], expected(TEXTS["late"]))
        if version >= 4:
            assert storage.catalogue.document("lease").metadata == {"year": 2026, "tags": ["a"]}
            replaced = searchable(storage, "office")["lease"]
            np.testing.assert_array_equal(replaced, [written[0], *expected("Lease Bruno kept goats.")])


def test_what_is_on_disk_changes_only_with_the_format_version(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    old = laid_out(tmp_path / "old", FORMAT_VERSION) / "qrag.sqlite3"
    new = tmp_path / "qrag.sqlite3"
    Database(new).close()
    assert schema(new) == schema(old)


@pytest.mark.parametrize("version", [0, FORMAT_VERSION + 1])
def test_another_format_older_or_newer_is_refused_and_left_alone(tmp_path: Path, version: int) -> None:
    path = laid_out(tmp_path, FORMAT_VERSION) / "qrag.sqlite3"
    with closing(sqlite3.connect(path)) as database:
        database.execute(f"PRAGMA user_version = {version}")
    with pytest.raises(FormatError, match=f"has data format {version}; this version reads up to {FORMAT_VERSION}"):
        Database(path)
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("PRAGMA user_version").fetchone() == (version,)
        assert database.execute("SELECT COUNT(*) FROM documents").fetchone() == (len(TEXTS) + 1,)
