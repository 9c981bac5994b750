"""``qrag sync``: a folder and its documents, whatever happens to either."""

from __future__ import annotations

import errno
import os
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path, PurePath
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from qrag import Client, Retries
from qrag.cli.main import main, parser
from qrag.cli.syncing import WATCH_SECONDS, Plan, document_id, run
from qrag.wire import examples
from qrag.wire.names import DocumentId
from tests.client.command import rows, started
from tests.service.helpers import Json, add, ask, text_of, until
from tests.service.scripted import Scripted, answer, refusal, scripted

pytestmark = pytest.mark.usefixtures("surroundings")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "notes"
    for name, text in {
        "a.md": "Ana signed.",
        "deep/b.txt": "Ben kept bees.",
        ".git/c.md": "No.",
        "d.xyz": "No.",
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def documents(client: httpx.Client, collection: str) -> dict[str, Json]:
    listed = client.get("/documents", params={"collection": collection}).json()["documents"]
    return {document["metadata"].get("path", document["id"]): document for document in listed}


def synced(capsys: pytest.CaptureFixture[str], folder: Path, collection: str, *options: str, status: int = 0) -> str:
    assert main(["sync", str(folder), "--collection", collection, *options]) == status
    return capsys.readouterr().out


def test_new_changed_and_deleted_files_are_found_out_and_the_rest_is_left_alone(
    capsys: pytest.CaptureFixture[str], shared_client: httpx.Client, collection: str, folder: Path
) -> None:
    shown = synced(capsys, folder, collection)
    assert rows(shown)[1:3] == [["new", "a.md"], ["new", "deep/b.txt"]]
    assert shown.endswith("notes: 2 new, 0 changed, 0 deleted, 0 unchanged\n")
    first = documents(shared_client, collection)
    assert {path: document["id"] for path, document in first.items()} == {
        "a.md": f"{collection}:notes:a.md",
        "deep/b.txt": f"{collection}:notes:deep:b.txt",
    }
    assert synced(capsys, folder, collection) == "notes: 0 new, 0 changed, 0 deleted, 2 unchanged\n"
    assert documents(shared_client, collection) == first
    shared_client.patch(f"/documents/{first['a.md']['id']}", json={"metadata": {"year": 2024}}).raise_for_status()
    (folder / "a.md").write_text("Ana signed it twice.")
    (folder / "deep/b.txt").rename(folder / "moved.txt")
    planned = synced(capsys, folder, collection, "--dry-run")
    assert planned.splitlines() == [
        "new  moved.txt",
        "changed  a.md",
        "deleted  deep/b.txt",
        "would be: 1 new, 1 changed, 1 deleted, 0 unchanged",
    ]
    assert documents(shared_client, collection).keys() == first.keys()
    assert synced(capsys, folder, collection).endswith("1 new, 1 changed, 1 deleted, 0 unchanged\n")
    last = documents(shared_client, collection)
    assert last.keys() == {"a.md", "moved.txt"}
    assert last["a.md"]["metadata"]["year"] == 2024, "what others have noted stays"
    assert text_of(shared_client, last["a.md"]["id"]) == "Ana signed it twice."
    found = {chunk["text"] for chunk in ask(shared_client, "Who?", collection=collection, max_steps=5)["chunks"]}
    assert found == {"Ana signed it twice.", "Ben kept bees."}


def test_documents_of_others_are_left_alone(
    capsys: pytest.CaptureFixture[str], shared_client: httpx.Client, collection: str, folder: Path, tmp_path: Path
) -> None:
    own = add(shared_client, "Posted by hand.", collection=collection)
    other = tmp_path / "other"
    other.mkdir()
    (other / "a.md").write_text("Another a.")
    synced(capsys, other, collection)
    synced(capsys, folder, collection)
    (folder / "a.md").unlink()
    assert synced(capsys, folder, collection).endswith("0 new, 0 changed, 1 deleted, 1 unchanged\n")
    assert documents(shared_client, collection).keys() == {own["id"], "a.md", "deep/b.txt"}
    assert documents(shared_client, collection)["a.md"]["metadata"]["sync"] == "other"


def test_a_new_file_takes_the_place_of_no_other_document(
    capsys: pytest.CaptureFixture[str], shared_client: httpx.Client, collection: str, folder: Path
) -> None:
    synced(capsys, folder, collection)
    own = add(shared_client, "Posted by hand.", id=f"{collection}:other:a.md", collection=collection)
    before = documents(shared_client, collection)
    deep = ["sync", str(folder / "deep"), "--name", f"{collection}:notes:deep"]  # its ids are those of the other run
    assert main(deep) == 1
    assert "is replaced: --name gives this folder other ids" in capsys.readouterr().err
    shown = synced(capsys, folder, collection, "--name", "other", status=1)
    assert shown.endswith("2 new, 0 changed, 0 deleted, 0 unchanged, 1 failed\n")
    now = documents(shared_client, collection)
    assert {now[own["id"]]["id"], now["deep/b.txt"]["metadata"]["sync"]} == {own["id"], "other"}
    assert text_of(shared_client, own["id"]) == "Posted by hand."
    assert shared_client.get(f"/documents/{before['deep/b.txt']['id']}").json() == before["deep/b.txt"]


def test_an_empty_folder_deletes_nothing_unless_told(
    capsys: pytest.CaptureFixture[str], shared_client: httpx.Client, collection: str, folder: Path
) -> None:
    synced(capsys, folder, collection)
    for name in ("a.md", "deep/b.txt"):
        (folder / name).unlink()
    assert main(["sync", str(folder), "--collection", collection]) == 1
    assert "--delete-all" in capsys.readouterr().err
    assert len(documents(shared_client, collection)) == 2
    synced(capsys, folder, collection, "--delete-all")
    assert documents(shared_client, collection) == {}


def test_a_pattern_looks_at_its_own_files_alone(
    capsys: pytest.CaptureFixture[str], shared_client: httpx.Client, collection: str, folder: Path
) -> None:
    synced(capsys, folder, collection)
    (folder / "a.md").unlink()
    (folder / "c.md").write_text("Clara came.")
    (folder / "deep/b.txt").unlink()
    assert synced(capsys, folder, collection, "--glob", "*.md").endswith("1 new, 0 changed, 1 deleted, 0 unchanged\n")
    assert documents(shared_client, collection).keys() == {"c.md", "deep/b.txt"}


def test_a_file_that_cannot_be_read_fails_alone_and_keeps_what_was_there(
    capsys: pytest.CaptureFixture[str], shared_client: httpx.Client, collection: str, folder: Path
) -> None:
    synced(capsys, folder, collection)
    before = documents(shared_client, collection)
    (folder / "a.md").write_bytes(b"\xff\xfe\x00")
    (folder / "new.pdf").write_bytes(b"%PDF-1.7 no")
    (folder / "e.txt").write_text("Eva left.")
    shown = synced(capsys, folder, collection, status=1)
    assert "2 failed" in shown
    now = documents(shared_client, collection)
    assert now.keys() == {"a.md", "deep/b.txt", "e.txt"}
    assert now["a.md"] == before["a.md"]


Lock = Callable[[Path], None]


@pytest.fixture
def lock(monkeypatch: pytest.MonkeyPatch) -> Lock:
    """A function that lets nobody list a folder any more, not even the superuser."""
    listing = os.scandir

    def lock(folder: Path) -> None:
        def scandir(path: Any = ".") -> Any:
            if path is not None and os.fspath(path) == str(folder):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), os.fspath(path))
            return listing(path)

        monkeypatch.setattr(os, "scandir", scandir)

    return lock


def test_the_documents_of_a_folder_that_cannot_be_read_stay(
    capsys: pytest.CaptureFixture[str], shared_client: httpx.Client, collection: str, folder: Path, lock: Lock
) -> None:
    (folder / "deeper.txt").write_text("Dora is no part of it.")
    (folder / "deep/er").mkdir()
    (folder / "deep/er/c.txt").write_text("Clara came.")
    synced(capsys, folder, collection)
    (folder / "deeper.txt").unlink()
    lock(folder / "deep")
    assert main(["sync", str(folder), "--collection", collection]) == 1
    shown = capsys.readouterr()
    assert f"{folder / 'deep'}: Permission denied" in shown.err
    assert shown.out.endswith("notes: 0 new, 0 changed, 1 deleted, 1 unchanged, 1 failed\n")
    assert documents(shared_client, collection).keys() == {"a.md", "deep/b.txt", "deep/er/c.txt"}
    lock(folder)
    synced(capsys, folder, collection, "--delete-all", status=1)
    assert documents(shared_client, collection).keys() == {"a.md", "deep/b.txt", "deep/er/c.txt"}


def test_a_folder_that_cannot_be_read_is_not_indexed_silently(
    capsys: pytest.CaptureFixture[str], shared_client: httpx.Client, collection: str, folder: Path, lock: Lock
) -> None:
    lock(folder / "deep")
    assert main(["index", "--recursive", str(folder), "--collection", collection]) == 1
    assert f"{folder / 'deep'}: Permission denied" in capsys.readouterr().err
    assert [document["title"] for document in documents(shared_client, collection).values()] == ["a.md"]


def test_another_chunking_is_a_change(
    capsys: pytest.CaptureFixture[str], shared_client: httpx.Client, collection: str, folder: Path
) -> None:
    synced(capsys, folder, collection)
    assert synced(capsys, folder, collection, "--chunking", "lines").endswith("2 changed, 0 deleted, 0 unchanged\n")
    assert {each["chunking"]["mode"] for each in documents(shared_client, collection).values()} == {"lines"}
    assert synced(capsys, folder, collection).endswith("0 changed, 0 deleted, 2 unchanged\n")


def test_a_run_that_is_killed_is_repeated(
    capsys: pytest.CaptureFixture[str], shared_client: httpx.Client, collection: str, folder: Path
) -> None:
    for number in range(30):
        (folder / f"{number:02}.txt").write_text(f"Note {number}. " * 50)
    process = started("sync", str(folder), "--collection", collection)
    until(lambda: len(documents(shared_client, collection)) >= 3)
    with process:
        process.kill()
    shown = synced(capsys, folder, collection)
    assert len(documents(shared_client, collection)) == 32
    assert {each["status"] for each in documents(shared_client, collection).values()} == {"ready"}
    assert ", 0 changed, 0 deleted, " in shown


def test_a_watched_folder_is_followed_until_interrupted(
    shared_client: httpx.Client, collection: str, folder: Path
) -> None:
    arguments = parser().parse_args(["sync", str(folder), "--collection", collection, "--watch"])

    def text(path: str) -> str:
        return text_of(shared_client, documents(shared_client, collection)[path]["id"])

    def pauses() -> Iterator[None]:
        assert documents(shared_client, collection).keys() == {"a.md", "deep/b.txt"}
        (folder / "a.md").write_text("Ana is wri")
        yield
        (folder / "a.md").write_text("Ana is writing still.")
        yield
        assert text("a.md") == "Ana signed.", "half written"
        yield
        assert text("a.md") == "Ana is writing still."
        yield
        raise KeyboardInterrupt

    pausing = pauses()
    with Client(str(shared_client.base_url)) as client, pytest.raises(KeyboardInterrupt):
        run(client, arguments, sleep=lambda _seconds: next(pausing))


def test_what_a_file_says_of_itself_changes_with_it_unless_somebody_has_changed_it(
    capsys: pytest.CaptureFixture[str], shared_client: httpx.Client, collection: str, folder: Path
) -> None:
    def write(**fields: str) -> None:
        matter = "".join(f"{name}: {value}\n" for name, value in fields.items())
        (folder / "a.md").write_text(f"---\n{matter}---\nAna signed.")
        synced(capsys, folder, collection)

    def metadata() -> Json:
        said: Json = documents(shared_client, collection)["a.md"]["metadata"]
        return {name: said[name] for name in said.keys() - {"sync", "path", "file_sha256"}}

    write(status="draft", author="Anna", week="first")
    said = {"status": "draft", "author": "Anna", "week": "first"}
    assert metadata() == {**said, "file_fields": said}
    patch = {"metadata": {"author": "Ana", "year": 2024}}
    shared_client.patch(f"/documents/{collection}:notes:a.md", json=patch).raise_for_status()
    write(status="final", author="Anna")
    noted = {"author": "Ana", "year": 2024}
    assert metadata() == {**noted, "status": "final", "file_fields": {"status": "final"}}
    write(author="Hannah", place="Lisbon")
    assert metadata() == {**noted, "place": "Lisbon", "file_fields": {"place": "Lisbon"}}
    shared_client.patch(f"/documents/{collection}:notes:a.md", json={"metadata": {"author": None}}).raise_for_status()
    write(author="Hanna")
    assert metadata() == {"year": 2024, "author": "Hanna", "file_fields": {"author": "Hanna"}}
    (folder / "a.md").write_text("Ana signed it.")
    synced(capsys, folder, collection)
    assert metadata() == {"year": 2024}


STORED = {**examples.DOCUMENT, "collection": "notes"}
NOTHING = answer(200, {"documents": [], "next_cursor": None})


def watched(server: Scripted, folder: Path, *, looks: int) -> list[float]:
    """The pauses of a run that watches a folder, interrupted in place of one more."""
    arguments = parser().parse_args(["sync", str(folder), "--watch", "--glob", "*.md"])
    pauses: list[float] = []

    def sleep(seconds: float) -> None:
        if len(pauses) == looks:
            raise KeyboardInterrupt
        pauses.append(seconds)

    with Client(server.url, retries=Retries(attempts=1)) as client, pytest.raises(KeyboardInterrupt):
        run(client, arguments, sleep=sleep)
    return pauses


def posts(server: Scripted) -> int:
    return sum(request.method == "POST" for request in server.requests)


@pytest.mark.parametrize("status", [429, 500, 503, 507])
def test_what_the_service_could_not_take_is_sent_again_while_watching(folder: Path, status: int) -> None:
    script = [NOTHING, refusal(status), refusal(status), NOTHING, answer(202, STORED), answer(200, STORED)]
    with scripted(script) as server:
        pauses = watched(server, folder, looks=3)
    assert server.script == []
    assert posts(server) == 2
    assert pauses[1:] == [WATCH_SECONDS] * 2, "then it watches"


def test_watching_goes_on_where_somebody_deletes_what_is_being_indexed(folder: Path) -> None:
    deleted = refusal(404, "unknown_document")
    with scripted([NOTHING, answer(202, STORED), deleted, NOTHING, answer(202, STORED), answer(200, STORED)]) as server:
        watched(server, folder, looks=2)
    assert server.script == []


def test_what_the_service_refuses_for_what_it_is_waits_for_a_change(folder: Path) -> None:
    with scripted([NOTHING, refusal(422)]) as server:
        watched(server, folder, looks=5)
    assert posts(server) == 1


def test_what_somebody_else_has_deleted_meanwhile_is_gone(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    gone = [{**STORED, "id": id, "metadata": {"sync": tmp_path.name, "path": id}} for id in ("a.md", "b.md")]
    script = [answer(200, {"documents": gone, "next_cursor": None}), refusal(404), answer(204, b"")]
    with scripted(script) as server:
        assert main(["sync", str(tmp_path), "--delete-all", "--url", server.url]) == 0
    assert [request.method for request in server.requests] == ["GET", "DELETE", "DELETE"]
    assert capsys.readouterr().out.endswith("0 new, 0 changed, 2 deleted, 0 unchanged\n")


PARTS = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=80)
PATHS = st.lists(PARTS.filter(lambda part: part not in (".", "..")), min_size=1, max_size=4).map(lambda p: PurePath(*p))


@given(prefix=st.text("ab:-é ", min_size=1), paths=st.lists(PATHS, min_size=2, max_size=2, unique=True))
def test_each_path_has_an_id_of_its_own(prefix: str, paths: list[PurePath]) -> None:
    ids = [TypeAdapter[str](DocumentId).validate_python(document_id(prefix, path)) for path in paths]
    assert ids[0] != ids[1]
    assert ids == [document_id(prefix, path) for path in paths]


def test_what_can_be_an_id_is_one() -> None:
    assert document_id("notes", PurePath("guide/intro.md")) == "notes:guide:intro.md"
    assert document_id("notes", PurePath("guide:intro.md")).startswith("notes:guide_intro.md-")
    assert Plan([], [], 3, []).summary(2) == "0 new, 0 changed, 0 deleted, 3 unchanged, 2 failed"


def test_a_name_is_the_same_on_every_system(
    capsys: pytest.CaptureFixture[str], shared_client: httpx.Client, collection: str, tmp_path: Path
) -> None:
    (tmp_path / unicodedata.normalize("NFD", "Zürich.txt")).write_text("Ana signed in Zürich.")
    synced(capsys, tmp_path, collection, "--name", "n")
    (document,) = documents(shared_client, collection).values()
    assert document["title"] == document["metadata"]["path"] == "Zürich.txt"
