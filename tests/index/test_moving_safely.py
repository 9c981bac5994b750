"""Exports that are killed, damaged or forged: nothing is lost, nothing half is searched, nothing is believed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from index.errors import MovingError
from index.storage.local.opening import LocalStorage
from index.storage.moving.checking import open_export
from index.storage.moving.files import checksum
from index.storage.moving.format import PART_FILES
from index.storage.moving.importing import import_export
from tests.index.dying import export_and_die, import_and_die, killed
from tests.index.moves import assert_same, exported, tell_story
from tests.index.storages import open_local


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory with a history, and an export of it beside."""
    home = tmp_path_factory.mktemp("source")
    with closing(open_local(home / "data")) as storage:
        tell_story(storage)
        exported(storage, home / "export")
    return home


@pytest.fixture
def export(source: Path, tmp_path: Path) -> Path:
    """A copy of the export, to be harmed."""
    return shutil.copytree(source / "export", tmp_path / "export")


@pytest.fixture
def target(tmp_path: Path) -> Iterator[LocalStorage]:
    with closing(open_local(tmp_path / "target")) as storage:
        yield storage


def test_killed_exports_and_imports_go_on_where_they_were(source: Path, tmp_path: Path) -> None:
    folder, target = tmp_path / "export", tmp_path / "new"
    # Each process comes three moments further than what is kept of the former one.
    deaths = sum(1 for _ in iter(lambda: killed(export_and_die, source / "data", folder, 3), False))
    assert deaths >= 2
    finished = open_export(folder).manifest
    assert finished == open_export(source / "export").manifest
    for fatal in count(2, 3):
        if not killed(import_and_die, folder, target, fatal):
            break
        with closing(open_local(target)) as storage:
            for document in storage.catalogue.documents():
                if document.status == "ready":
                    assert storage.vectors.stored(document.uid, storage.vectors.space) == document.chunks
    assert fatal > 5
    with closing(open_local(source / "data")) as old, closing(open_local(target)) as new:
        assert_same(old, new)


FILES = [f"part-000001/{name}" for name in PART_FILES] + ["feedback.jsonl", "questions.jsonl"]


@pytest.mark.parametrize("harm", ["changed", "shorter", "missing", "linked"])
@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file_is_named_and_nothing_is_changed(
    export: Path, target: LocalStorage, tmp_path: Path, name: str, harm: str
) -> None:
    path = export / name
    content = path.read_bytes()
    if harm == "changed":
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    elif harm == "shorter":
        path.write_bytes(content[:-1])
    else:
        path.unlink()
        if harm == "linked":
            (tmp_path / "elsewhere").write_bytes(content)
            path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(MovingError, match=rf"{path.name} in the export (is |does not have)"):
        import_export(target, export)
    assert target.catalogue.documents() == []


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b"null", b"\xff", b"[" * 100_000, b'{"parts": NaN}'])
def test_a_damaged_manifest_is_called_so(export: Path, target: LocalStorage, content: bytes) -> None:
    (export / "manifest.json").write_bytes(content)
    with pytest.raises(MovingError, match=r"manifest.json in the export (is damaged|says what it may not)"):
        import_export(target, export)


def forge(export: Path, change: Callable[[Any], Any], name: str = "manifest.json") -> None:
    """Change the manifest, or a file of lines with its entries in the manifest, as somebody who can compute them."""
    if name == "manifest.json":
        path = export / name
        path.write_text(json.dumps(change(json.loads(path.read_text()))))
        return
    lines = [json.loads(line) for line in (export / name).read_text().splitlines()]
    (export / name).write_text("".join(json.dumps(line) + "\n" for line in change(lines)))
    sign(export, name)


def sign(export: Path, name: str) -> None:
    """Write the present checksum of a file into the manifest."""

    def signed(manifest: Any) -> Any:
        sums = checksum(export / name).model_dump()
        folder, _, file = name.rpartition("/")
        if folder:
            manifest["parts"][int(folder[-6:]) - 1]["files"][file] = sums
        else:
            manifest[file.removesuffix(".jsonl")] = sums
        return manifest

    forge(export, signed)


def first(**fields: Any) -> Callable[[Any], Any]:
    """A change of the first line."""
    return lambda lines: [lines[0] | fields, *lines[1:]]


DOCUMENTS = "part-000001/documents.jsonl"


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("manifest.json", lambda manifest: manifest | {"version": 0}),
        ("manifest.json", lambda manifest: manifest | {"version": 1}),
        ("manifest.json", lambda manifest: manifest | {"fingerprint": "another"}),
        ("manifest.json", lambda manifest: manifest | {"dimension": 9}),
        ("manifest.json", lambda manifest: manifest | {"dimension": 10**30}),
        ("manifest.json", lambda manifest: manifest | {"documents": 1 << 47}),
        ("manifest.json", lambda manifest: manifest | {"feedback_records": 3}),
        ("manifest.json", lambda manifest: manifest | {"question_records": 4}),
        ("manifest.json", lambda manifest: manifest | {"questions": None, "question_records": 0}),
        ("manifest.json", lambda manifest: manifest | {"unknown": 1}),
        ("manifest.json", lambda manifest: manifest | {"parts": manifest["parts"] * 2}),
        ("manifest.json", lambda manifest: manifest | {"parts": [manifest["parts"][0] | {"files": {}}]}),
        (
            "manifest.json",
            lambda manifest: (
                manifest | {"parts": [manifest["parts"][0] | {"files": {"../../x": {"bytes": 1, "sha256": "0" * 64}}}]}
            ),
        ),
        ("manifest.json", lambda manifest: manifest | {"parts": [manifest["parts"][0] | {"chunks": 1 << 40}]}),
        (DOCUMENTS, first(id="../../escaped")),
        (DOCUMENTS, first(id="a\ud800")),
        (DOCUMENTS, first(title="\ud800")),
        (DOCUMENTS, first(bytes=1 << 40)),
        (DOCUMENTS, first(bytes=-1)),
        (DOCUMENTS, first(chunks=1 << 47)),
        (DOCUMENTS, first(chunks=1)),
        (DOCUMENTS, first(characters=3)),
        (DOCUMENTS, first(sha256="0" * 64)),
        (DOCUMENTS, first(status="queued")),
        (DOCUMENTS, first(status="searched")),
        (DOCUMENTS, first(metadata={"a": float("nan")})),
        (DOCUMENTS, first(metadata=[])),
        (DOCUMENTS, first(replaces=1)),
        (DOCUMENTS, first(number=10**9)),
        (DOCUMENTS, first(unknown=1)),
        (DOCUMENTS, lambda lines: [lines[0], lines[0] | {"number": 2}]),
        (DOCUMENTS, lambda lines: lines[:1]),
        ("part-000001/places.jsonl", first(number=77)),
        ("part-000001/places.jsonl", first(start=-1)),
        ("feedback.jsonl", first(question="something else")),
        ("feedback.jsonl", first(chunks=[])),
        ("feedback.jsonl", first(checkpoint="tiny\x00")),
        ("feedback.jsonl", lambda lines: lines[:1]),
        ("questions.jsonl", first(id="../escaped")),
        ("questions.jsonl", first(asked_at="2026-03-01T09:00:00")),
        ("questions.jsonl", first(asked_at="0001-01-01T00:00:00+14:00")),
        ("questions.jsonl", first(asked_at="9999-12-31T23:59:59Z")),
        ("questions.jsonl", first(chunks=[["letter", -1]])),
        ("questions.jsonl", first(chunks=[["letter"]])),
        ("questions.jsonl", first(stopped_by="boredom")),
        ("questions.jsonl", first(complete="nan")),
        ("questions.jsonl", first(seconds=10**400)),
        ("questions.jsonl", first(fingerprint="f1\x00")),
        ("questions.jsonl", first(unknown=1)),
        ("questions.jsonl", lambda lines: [*lines, lines[0]]),
        ("questions.jsonl", lambda lines: lines[:1]),
    ],
)
def test_a_forged_export_is_refused_before_anything_is_changed(
    export: Path, target: LocalStorage, name: str, change: Callable[[Any], Any]
) -> None:
    forge(export, change, name)
    with pytest.raises(MovingError):
        import_export(target, export)
    assert target.catalogue.documents() == []
    assert target.catalogue.read_property("checkpoint") is None


def test_an_export_of_a_later_version_is_called_so(export: Path, target: LocalStorage) -> None:
    forge(export, lambda manifest: manifest | {"version": 3, "keys": {}})
    with pytest.raises(MovingError, match=r"has version 3; this version of the software reads 1 to 2"):
        import_export(target, export)


def test_an_export_of_the_version_before_questions_is_imported(
    export: Path, target: LocalStorage, source: Path
) -> None:
    (export / "questions.jsonl").unlink()
    since = {"questions", "question_records"}
    forge(export, lambda manifest: {name: manifest[name] for name in manifest.keys() - since} | {"version": 1})
    imported = import_export(target, export)
    assert (imported.created, imported.feedback, imported.questions) == (10, 2, 0)
    with closing(open_local(source / "data")) as old:
        assert target.questions.records() == []
        old_questions = [stored.question for stored in old.questions.records()]
        target.questions.restore(old_questions)
        assert_same(old, target)


def array(values: Any, dtype: str) -> Callable[[Any], Any]:
    return lambda _: np.array(values, dtype=dtype)


def spoilt(index: tuple[int, ...], value: float) -> Callable[[Any], Any]:
    def change(stored: Any) -> Any:
        stored = stored.copy()
        stored[index] = value
        return stored

    return change


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("vectors.npy", spoilt((0, 3), np.nan)),
        ("vectors.npy", spoilt((1, 0), np.inf)),
        ("vectors.npy", spoilt((1, 0), 3e38)),
        ("vectors.npy", lambda stored: stored[:, :-1]),
        ("vectors.npy", lambda stored: stored[:-1]),
        ("vectors.npy", lambda stored: stored.astype(np.float64)),
        ("vectors.npy", lambda stored: np.asfortranarray(stored)),
        ("vectors.npy", lambda stored: stored.ravel()),
        ("chunks.npy", spoilt((0, 1), 10**9)),
        ("chunks.npy", spoilt((0, 0), -1)),
        ("chunks.npy", spoilt((1, 1), 0)),
        ("chunks.npy", spoilt((0, 2), -1)),
        ("chunks.npy", spoilt((0, 2), 1 << 62)),
        ("lengths.npy", spoilt((0,), -1)),
        ("lengths.npy", spoilt((0,), 2**31 - 1)),
        ("tokens.npy", spoilt((0,), -1)),
        ("tokens.npy", array([], "<i4")),
        ("tokens.npy", array([{}], "O")),
    ],
)
def test_arrays_of_other_kinds_are_refused(
    export: Path, target: LocalStorage, name: str, change: Callable[[Any], Any]
) -> None:
    path = export / "part-000001" / name
    np.save(path, change(np.load(path)), allow_pickle=True)
    sign(export, f"part-000001/{name}")
    with pytest.raises(MovingError, match=rf"{name}|tokens.npy in the export has int32"):
        import_export(target, export)
    assert target.catalogue.documents() == []


@pytest.mark.parametrize(
    "head",
    [
        b"{'descr': '<f4', 'fortran_order': False, 'shape': (1099511627776, 8), }",
        b"{'descr': '<f4', 'fortran_order': False, 'shape': (-4, 8), }",
        b"{'descr': '<f4', 'fortran_order': False, 'shape': __import__('os').getcwd(), }",
        b"[" * 20_000,
    ],
)
def test_the_head_of_an_array_promises_nothing_that_is_not_there(
    export: Path, target: LocalStorage, head: bytes
) -> None:
    path = export / "part-000001" / "vectors.npy"
    path.write_bytes(b"\x93NUMPY\x01\x00" + len(head + b"\n").to_bytes(2, "little") + head + b"\n" + bytes(64))
    sign(export, "part-000001/vectors.npy")
    with pytest.raises(MovingError, match=r"vectors\.npy"):
        import_export(target, export)


def test_an_export_can_be_read_without_this_project(source: Path) -> None:
    manifest = json.loads((source / "export" / "manifest.json").read_text())
    texts: dict[str, str] = {}
    for number in range(1, len(manifest["parts"]) + 1):
        folder = source / "export" / f"part-{number:06d}"
        content, vectors, start = (folder / "texts.utf8").read_bytes(), np.load(folder / "vectors.npy"), 0
        records = [json.loads(line) for line in (folder / "documents.jsonl").read_bytes().splitlines()]
        for record in records:
            texts.setdefault(record["id"], content[start : start + record["bytes"]].decode())
            start += record["bytes"]
        assert len(vectors) == sum(record["chunks"] for record in records)
    assert texts["letter"].startswith("Ana signed it.\nÄrger")
    assert texts["late"] == "still waiting\nfor the indexer"
