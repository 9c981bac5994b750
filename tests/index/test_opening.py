"""Opening a data directory: what a crash has left, what cannot be opened, and a second process."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path
from unittest.mock import Mock, patch

import numpy as np
import pytest

from index.errors import (
    CheckpointMismatch,
    DamagedStore,
    FormatError,
    StoreInUse,
)
from index.storage.local.directory import DataDirectory
from index.storage.local.files.segments import codes_path, write_segment
from index.storage.local.opening import LocalStorage, read_properties
from tests.index.storages import (
    DIMENSION,
    expected,
    index_all,
    lines,
    open_local,
    post,
    searchable,
)


def test_leftovers_of_a_crash_are_swept_away(tmp_path: Path) -> None:
    storage = open_local(tmp_path)
    post(storage, "kept", lines("a", 5))
    index_all(storage)
    half = storage.catalogue.begin_upload()
    half.write("never published " * 100_000)
    storage.close()
    for leftover in (
        "segments/00000099.faiss",
        "segments/00000098.faiss.tmp",
        "segments/97.codes",
        "segments/97.bags",
        "incoming/upload",
    ):
        (tmp_path / leftover).write_bytes(b"half")
    with closing(open_local(tmp_path)) as storage:
        assert searchable(storage).keys() == {"kept"}
        assert {path.name for path in storage.directory.segments.iterdir()} == {
            f"00000001.{kind}" for kind in ("faiss", "codes", "bags")
        }
        assert not list(storage.incoming_directory.iterdir())
        with storage.directory.database.read() as connection:
            assert connection.execute("SELECT COUNT(*) FROM texts").fetchone()[0] == 1


def held(directory: Path) -> set[str]:
    """Files of a directory that this process has open or mapped."""
    descriptors = Path("/proc/self/fd")
    links = [os.readlink(descriptors / name) for name in os.listdir(descriptors) if (descriptors / name).is_symlink()]
    mapped = [line.split(maxsplit=5)[-1].strip() for line in Path("/proc/self/maps").read_text().splitlines()]
    return {path for path in [*links, *mapped] if path.startswith(f"{directory}/")}


@pytest.mark.parametrize(
    ("damage", "error"),
    [
        ("format", FormatError),
        ("no database", DamagedStore),
        ("no schema", sqlite3.OperationalError),
        ("missing", DamagedStore),
        ("cut short", DamagedStore),
        ("other rows", DamagedStore),
        ("other tower", CheckpointMismatch),
        ("not to be swept", PermissionError),
    ],
)
def test_a_directory_that_cannot_be_opened_leaves_nothing_open(
    damage: str, error: type[Exception], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(open_local(tmp_path)) as storage:
        for id in "ab":
            post(storage, id, lines(id, 3))
            index_all(storage)
        assert held(tmp_path)
    assert not held(tmp_path)
    first, last = sorted((tmp_path / "segments").glob("*.faiss"))
    database, tower = tmp_path / "qrag.sqlite3", "words"
    whole = {path: path.read_bytes() for path in (last, codes_path(last), database)}
    if damage == "format":
        with closing(sqlite3.connect(database)) as connection:
            connection.execute("PRAGMA user_version = 999")
    elif damage == "no database":
        database.write_text("Dear diary, " * 1000)
    elif damage == "no schema":
        with closing(sqlite3.connect(database)) as connection:
            connection.execute("DROP TABLE properties")
    elif damage == "missing":
        last.unlink()
    elif damage == "cut short":
        last.write_bytes(last.read_bytes()[:-7])
    elif damage == "other rows":
        other = np.zeros((6, DIMENSION // 2), dtype=np.float32)
        assert write_segment(last, other, None) == len(whole[last])
    elif damage == "other tower":
        tower = "other"
    else:
        monkeypatch.setattr(DataDirectory, "sweep", Mock(side_effect=PermissionError))
    with pytest.raises(error):
        open_local(tmp_path, fingerprint=tower)
    assert not held(tmp_path)
    monkeypatch.undo()
    for path, content in whole.items():
        path.write_bytes(content)
    with closing(open_local(tmp_path)) as storage:
        assert searchable(storage).keys() == {"a", "b"}
    assert first.exists()


def test_properties_of_a_directory_that_cannot_be_read_leave_nothing_open(tmp_path: Path) -> None:
    assert read_properties(tmp_path) == {}
    open_local(tmp_path).close()
    assert read_properties(tmp_path) == {"space": "1", "last_space": "1"}
    with closing(sqlite3.connect(tmp_path / "qrag.sqlite3")) as connection:
        connection.execute("PRAGMA user_version = 999")
    with pytest.raises(FormatError):
        read_properties(tmp_path)
    assert not held(tmp_path)


def test_a_second_process_is_refused_and_disturbs_nobody(storage: LocalStorage, tmp_path: Path) -> None:
    before = held(tmp_path)
    with pytest.raises(StoreInUse):
        open_local(tmp_path)
    assert held(tmp_path) == before
    post(storage, "a", "x")


def test_what_a_crash_leaves_stored_but_not_finished_is_finished_by_the_next_start(tmp_path: Path) -> None:
    with closing(open_local(tmp_path)) as storage:
        post(storage, "a", lines("a", 30))
        post(storage, "b", "")
        with patch.object(storage.catalogue, "finish", side_effect=KeyboardInterrupt), pytest.raises(KeyboardInterrupt):
            index_all(storage)
        assert storage.vectors.stored(storage.catalogue.document("a").uid, storage.vectors.space) == 30
        assert searchable(storage) == {}
    with closing(open_local(tmp_path)) as storage:
        index_all(storage, lambda inputs: pytest.fail(f"embedded again: {inputs}"))
        assert {document.status for document in storage.catalogue.documents()} == {"ready"}
        np.testing.assert_array_equal(searchable(storage)["a"], expected(lines("a", 30)))


def test_a_database_created_by_halves_is_finished(tmp_path: Path) -> None:
    (tmp_path / "qrag.sqlite3").touch()
    with closing(open_local(tmp_path)) as storage:
        post(storage, "a", "x")
        assert storage.catalogue.document("a").status == "queued"
