"""The catalogue in PostgreSQL: exact texts, the same choices as a data directory makes, and versions of its tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from itertools import count
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from index.errors import FormatError
from index.storage.documents import Description, Place
from index.storage.news import News
from index.storage.postgres.database import Database
from index.storage.postgres.rows import CHUNK_BLOCK, TEXT_BLOCK
from index.storage.protocols import Storage
from qrag.wire.chunking import Chunking
from qrag.wire.filters import Filter
from tests.engines.conftest import Cluster
from tests.engines.postgres import PostgresServer
from tests.engines.threads import at_once
from tests.index.storages import open_local, publish
from tests.index.test_filters import filters, metadata

FILTER: TypeAdapter[Filter] = TypeAdapter(Filter)


def send(
    storage: Storage,
    id: str | None,
    parts: Sequence[str],
    title: str | None = None,
    about: Mapping[str, Any] = MappingProxyType({}),
) -> int:
    upload = storage.catalogue.begin_upload()
    for part in parts:
        upload.write(part)
    description = Description(id, "default", title, dict(about), Chunking(mode="lines"))
    ((document, _),) = storage.catalogue.publish([(upload, description)], replace=False, queue_limit=1000)
    return document.uid


def test_every_character_is_kept(cluster: Cluster) -> None:
    storage = cluster.replica()
    text = "a\x00b\n👩\u200d👧\ufeff\r\n" + "ä\x00𝄞" * 3
    uid = send(storage, "letter", [text], title="N\x00ul", about={"k\x00": ["\x00", "\ud800", 1.5]})
    document = storage.catalogue.document("letter")
    assert "".join(storage.catalogue.text_blocks(uid)) == text
    assert (document.title, document.metadata) == ("N\x00ul", {"k\x00": ["\x00", "\ud800", 1.5]})
    assert (document.characters, document.bytes) == (len(text), len(text.encode()))
    assert storage.catalogue.documents(title="N\x00ul") == [document]
    storage.catalogue.fail([uid], "no \x00 luck")
    assert storage.catalogue.document("letter").error == "no \x00 luck"


def test_any_part_of_a_long_text_is_read(cluster: Cluster) -> None:
    storage = cluster.replica()
    text = "".join(chr(0x100 + number % 997) for number in range(18 * TEXT_BLOCK + 77))
    uid = send(storage, "long", [text[:5], text[5 : 17 * TEXT_BLOCK], text[17 * TEXT_BLOCK :]])
    assert storage.catalogue.document("long").characters == len(text)
    assert "".join(storage.catalogue.text_blocks(uid)) == text

    @settings(max_examples=50)
    @given(st.integers(0, len(text)), st.sampled_from([0, 1, 300, TEXT_BLOCK, 3 * TEXT_BLOCK]))
    def reads(start: int, length: int) -> None:
        assert storage.catalogue.text(uid, start, start + length) == text[start : start + length]

    reads()


def test_any_part_of_a_table_of_chunks_is_read(cluster: Cluster) -> None:
    storage = cluster.replica()
    size = 2 * CHUNK_BLOCK + 9
    upload = storage.catalogue.begin_upload()
    upload.write("abc" * size)
    places = [Place(start, {"page": start}) for start in (7, 3 * CHUNK_BLOCK)]
    about = Description("book", "default", "B", {}, Chunking(), (), places)
    ((document, _),) = storage.catalogue.publish([(upload, about)], replace=False, queue_limit=1)
    table = np.array([[3 * number, 3 * number + 2, number % 5] for number in range(size)])
    storage.catalogue.save_chunks(document.uid, table)
    storage.catalogue.save_chunks(document.uid, table[:1])  # it is cut already
    np.testing.assert_array_equal(storage.catalogue.starts(document.uid), table[:, 0])

    @settings(max_examples=20)
    @given(st.integers(0, size + 5), st.sampled_from([0, 1, 100, CHUNK_BLOCK, 2 * CHUNK_BLOCK, size]))
    def reads(first: int, limit: int) -> None:
        chunks = storage.catalogue.chunks(document.uid, first=first, limit=limit)
        expected = table[first : first + limit].tolist()
        assert [list(chunk.chunk) for chunk in chunks] == expected
        assert [chunk.number for chunk in chunks] == list(range(first, first + len(expected)))
        assert {chunk.text for chunk in chunks} <= {"ab"}
        pages = [0 if start < 7 else 7 if start < 3 * CHUNK_BLOCK else 3 * CHUNK_BLOCK for start, _, _ in expected]
        assert [chunk.location.get("page", 0) for chunk in chunks] == pages

    reads()


def test_an_upload_that_is_given_up_leaves_nothing(cluster: Cluster) -> None:
    storage = cluster.replica()
    for _ in range(2):
        upload = storage.catalogue.begin_upload()
        upload.write("x" * 16 * TEXT_BLOCK)
    upload.discard()
    upload.discard()
    assert cluster.execute("SELECT COUNT(*) FROM uploads") == [(1,)]
    cluster.execute("UPDATE uploads SET touched = now() - interval '2 days'")  # its process has died
    while storage.reclaim_space():
        pass
    assert cluster.execute("SELECT (SELECT COUNT(*) FROM uploads), (SELECT COUNT(*) FROM texts)") == [(0, 0)]


def test_a_deleted_document_leaves_nothing(cluster: Cluster) -> None:
    storage = cluster.replica()
    publish(storage, "letter", "one two\nthree")
    storage.catalogue.delete_document("letter")
    while storage.reclaim_space():
        pass
    tables = ("texts", "chunks", "places", "embedded", "documents")
    assert cluster.execute(" UNION ALL ".join(f"SELECT COUNT(*) FROM {table}" for table in tables)) == [(0,)] * 5
    assert cluster.execute("SELECT COUNT(*) FROM deleted") == [(1,)], "another process may still store points of it"
    cluster.execute("UPDATE deleted SET at = at - interval '1 hour'")
    assert storage.reclaim_space()
    assert cluster.execute("SELECT COUNT(*) FROM deleted") == [(0,)]


def test_filters_choose_what_they_choose_in_a_data_directory(cluster: Cluster, tmp_path: Path) -> None:
    distributed = cluster.replica()
    numbers = count()

    @settings(max_examples=10)
    @given(st.lists(metadata, min_size=1, max_size=8), st.lists(filters, min_size=1, max_size=20))
    def agree(about: list[dict[str, Any]], wanted: list[dict[str, Any]]) -> None:
        cluster.execute("TRUNCATE documents CASCADE")
        with closing(open_local(tmp_path / f"local-{next(numbers)}")) as local:
            for storage in (local, distributed):
                for number, each in enumerate(about):
                    uid = send(storage, str(number), ["text"], about=each)
                    storage.catalogue.save_chunks(uid, np.array([[0, 4, 1]]))
            local.catalogue.finish(document.uid for document in local.catalogue.documents())
            cluster.execute("UPDATE documents SET status = 'ready'")
            for filter in map(FILTER.validate_python, wanted):
                chosen = []
                for storage in (local, distributed):
                    uids = storage.catalogue.choose("default", filter=filter).uids.tolist()
                    chosen.append([document.id for document in storage.catalogue.documents_at(uids).values()])
                assert chosen[0] == chosen[1]

    agree()


def test_without_an_id_a_document_has_the_same_one_everywhere(cluster: Cluster, tmp_path: Path) -> None:
    with closing(open_local(tmp_path / "local")) as local:
        ids = []
        for storage in (local, cluster.replica()):
            send(storage, None, ["Ärger im Büro.\x00"], title="T", about={"b": "ä", "a": 1})
            ids.append([document.id for document in storage.catalogue.documents()])
    assert ids[0] == ids[1]


def test_processes_that_start_together_make_the_tables_once(cluster: Cluster) -> None:
    opened = at_once([lambda: Database(cluster.url, News())] * 4)
    for database in opened:
        assert isinstance(database, Database), database
        database.close()
    assert cluster.execute("SELECT version FROM versions") == [(1,)]


def test_tables_of_a_newer_version_are_refused_and_left_alone(cluster: Cluster) -> None:
    cluster.replica().close()
    cluster.execute("INSERT INTO versions VALUES (1000, now())")
    with pytest.raises(FormatError, match="1000"):
        cluster.replica()
    assert cluster.execute("SELECT MAX(version) FROM versions") == [(1000,)]


def test_a_database_that_cannot_hold_every_text_is_refused(postgres: PostgresServer) -> None:
    with psycopg.connect(postgres.url(), autocommit=True) as connection:
        connection.execute("CREATE DATABASE latin ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
    with pytest.raises(FormatError, match="UTF8"):
        Database(postgres.url("latin"), News())
