"""Faults that once were: each test is the shortest way to one of them."""

from __future__ import annotations

import os
import threading
from contextlib import closing
from pathlib import Path

import pytest
from pydantic import TypeAdapter

from index.errors import QueueFull
from index.storage.documents import Description
from index.storage.local.opening import LocalStorage
from index.storage.local.uploads import LocalUpload
from qrag.wire.chunking import Chunking
from qrag.wire.filters import Filter
from tests.index.storages import index_all, open_local


def post(storage: LocalStorage, id: str, metadata: dict[str, int], text: str = "one two") -> None:
    upload = storage.catalogue.begin_upload()
    upload.write(text)
    about = Description(id, "c", None, metadata, Chunking())
    storage.catalogue.publish([(upload, about)], replace=False, queue_limit=100)


def test_or_and_and_of_the_same_conditions_are_different_questions(tmp_path: Path) -> None:
    with closing(open_local(tmp_path)) as storage:
        post(storage, "a", {"x": 1, "y": 1})
        post(storage, "b", {"x": 1})
        index_all(storage)
        scopes = storage.vectors.scopes()
        conditions = '[{"field": "x", "equals": 1}, {"field": "y", "equals": 1}]'
        either, both = (TypeAdapter(Filter).validate_json(f'{{"{word}": {conditions}}}') for word in ("or", "and"))
        assert len(scopes.scope("c", filter=either).uids) == 2
        assert len(scopes.scope("c", filter=both).uids) == 1


def test_a_refused_upload_leaves_the_text_of_others_alone(tmp_path: Path) -> None:
    about = Description("x", "c", None, {}, Chunking())
    with closing(open_local(tmp_path)) as storage:
        post(storage, "first", {})
        long_text = "kept " * 300_000
        other = storage.catalogue.begin_upload()

        class Refused(LocalUpload):
            def discard(self) -> None:
                # Between the rollback of the refused one and its clean-up another one stores its first blocks.
                if not other.characters:
                    other.write(long_text)
                super().discard()

        refused = Refused(storage.directory.database)
        refused.write("refused")
        with pytest.raises(QueueFull):
            storage.catalogue.publish([(refused, about)], replace=False, queue_limit=1)
        (published,) = storage.catalogue.publish([(other, about)], replace=False, queue_limit=10)
        assert "".join(storage.catalogue.text_blocks(published.document.uid)) == long_text


def test_a_folder_left_by_a_crash_does_not_keep_the_store_from_opening(tmp_path: Path) -> None:
    open_local(tmp_path).close()
    (tmp_path / "incoming" / "half-read").mkdir()
    (tmp_path / "incoming" / "half-read" / "text").touch()
    with closing(open_local(tmp_path)) as storage:
        assert not list(storage.incoming_directory.iterdir())


def test_connections_outlive_no_thread(tmp_path: Path) -> None:
    with closing(open_local(tmp_path)) as storage:
        post(storage, "a", {})
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(30):
            thread = threading.Thread(target=storage.catalogue.document, args=("a",))
            thread.start()
            thread.join()
        assert len(os.listdir("/proc/self/fd")) <= before + 4


def test_a_large_document_is_deleted_in_small_transactions(tmp_path: Path) -> None:
    with closing(open_local(tmp_path)) as storage:
        post(storage, "big", {}, text="many words here. " * 1_500_000)
        storage.directory.database.merge_log()
        storage.catalogue.delete_document("big")
        log = tmp_path / "qrag.sqlite3-wal"
        assert log.stat().st_size < 1 << 20
        assert storage.catalogue.remove_deleted()
        with storage.directory.database.read() as connection:
            assert connection.execute("SELECT COUNT(*) FROM texts").fetchone()[0] == 0
        assert not storage.catalogue.remove_deleted()
