"""A backup taken while the service is written to, put back, holds what was acknowledged before it began."""

from __future__ import annotations

import hashlib
import json
import shutil
import stat
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from index.errors import BackupError
from index.storage.local.backup import MANIFEST, back_up, restore
from service.__main__ import main
from service.keys import add_key
from tests.servers import running_server
from tests.service.helpers import add, ask

KEPT = {f"kept-{number}": f"Keeper {number} lit the lamp. Then it rained on tower {number}." for number in range(30)}


@pytest.fixture(scope="module")
def backup(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path) -> Iterator[tuple[Path, Path]]:
    """A backup, taken beside three clients that upload, replace and delete, and the directory it was taken of."""
    home = tmp_path_factory.mktemp("backup")
    data, done = home / "data", threading.Event()
    with running_server(data, tiny_checkpoint) as client:
        for id, text in KEPT.items():
            add(client, text, id=id)

        def write(name: str) -> None:
            with httpx.Client(base_url=client.base_url, timeout=60) as own:
                number = 0
                while not done.is_set():
                    number += 1
                    text = f"Number {number} of {name}. " * (1 + number % 9)
                    own.post("/documents", params={"replace": True}, json={"id": f"{name}-{number % 5}", "text": text})
                    if number % 3 == 0:
                        own.delete(f"/documents/{name}-{number % 5}")

        writers = [threading.Thread(target=write, args=(f"writer-{number}",)) for number in range(3)]
        for writer in writers:
            writer.start()
        try:
            for number in range(3):  # beside merging segments, which those many small documents bring about
                back_up(data, home / f"copy-{number}")
        finally:
            done.set()
            for writer in writers:
                writer.join()
        yield home / "copy-2", data


def test_the_restored_directory_is_served_and_goes_on(
    backup: tuple[Path, Path], tmp_path: Path, tiny_checkpoint: Path
) -> None:
    source, _ = backup
    restore(source, tmp_path / "data")
    with running_server(tmp_path / "data", tiny_checkpoint) as client:
        for id, text in KEPT.items():
            assert client.get(f"/documents/{id}/text").text == text
        unfinished = [document["id"] for document in client.get("/documents?limit=1000").json()["documents"]]
        assert set(KEPT) <= set(unfinished)
        found = ask(client, "Who lit the lamp?", document_ids=sorted(KEPT), max_steps=3)
        assert len(found["chunks"]) == 3
        add(client, "A new one.", id="new")


def test_what_was_on_its_way_is_indexed_from_the_backup(
    backup: tuple[Path, Path], tmp_path: Path, tiny_checkpoint: Path
) -> None:
    restore(backup[0], tmp_path / "data")
    with running_server(tmp_path / "data", tiny_checkpoint) as client:
        for document in client.get("/documents?limit=1000").json()["documents"]:
            text = client.get(f"/documents/{document['id']}/text").text
            again = client.post("/documents", params={"wait": True}, json={"id": document["id"], "text": text})
            assert (again.status_code, again.json()["status"]) == (200, "ready")


def test_a_backup_is_only_made_of_a_data_directory_and_into_nothing(backup: tuple[Path, Path], tmp_path: Path) -> None:
    source, data = backup
    with pytest.raises(BackupError, match="is no data directory"):
        back_up(tmp_path, tmp_path / "copy")
    before = sorted(source.rglob("*"))
    with pytest.raises(BackupError, match="something in"):
        back_up(data, source)
    assert sorted(source.rglob("*")) == before
    data = tmp_path / "damaged"
    shutil.copytree(source, data)
    next(data.glob("segments/*.faiss")).unlink()
    with pytest.raises(BackupError, match="service reindex"):
        back_up(data, tmp_path / "copy")


@pytest.mark.parametrize("harm", ["no manifest", "missing file", "damaged file"])
def test_a_backup_that_is_not_whole_is_not_put_back(backup: tuple[Path, Path], tmp_path: Path, harm: str) -> None:
    source = tmp_path / "copy"
    shutil.copytree(backup[0], source)
    victim = next(source.glob("segments/*.faiss"))
    if harm == "no manifest":
        (source / MANIFEST).unlink()
    elif harm == "missing file":
        victim.unlink()
    else:
        content = bytearray(victim.read_bytes())
        content[-1] ^= 1
        victim.write_bytes(content)
    target = tmp_path / "data"
    with pytest.raises(BackupError, match=r"no finished backup|is missing in|is damaged in"):
        restore(source, target)
    assert not [path for path in target.rglob("*") if path.is_file() and path.name != "lock"]
    restore(backup[0], target)


def test_nothing_is_put_back_over_something(backup: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "precious").write_text("mine")
    with pytest.raises(BackupError, match="something in"):
        restore(backup[0], tmp_path / "data")
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["precious"]


def test_two_commands_back_up_and_restore_keys_and_checkpoints_too(
    backup: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data"
    restore(backup[0], data)
    add_key(data / "keys.json", "operator", ["admin"], None)
    (data / "checkpoints" / "own").mkdir(parents=True)
    (data / "checkpoints" / "own" / "qrag.json").write_text("{}")

    def run(directory: Path, *arguments: str) -> None:
        monkeypatch.setenv("QRAG_DATA_DIR", str(directory))
        monkeypatch.setattr(sys, "argv", ["service", *arguments])
        main()

    run(data, "backup", str(tmp_path / "copy"))
    run(tmp_path / "again", "restore", str(tmp_path / "copy"))
    assert capsys.readouterr().out.count(" bytes in ") == 2
    manifest = json.loads((tmp_path / "copy" / MANIFEST).read_text())
    assert {"qrag.sqlite3", "keys.json", "checkpoints/own/qrag.json"} <= set(manifest)
    for name in ("keys.json", "checkpoints/own/qrag.json"):
        assert (tmp_path / "again" / name).read_bytes() == (data / name).read_bytes()
    with pytest.raises(SystemExit, match="something in"):
        run(tmp_path / "again", "restore", str(tmp_path / "copy"))


def rewritten(backup: Path, to: Path, change: Callable[[dict[str, str]], object]) -> Path:
    """A copy of a backup with another manifest."""
    shutil.copytree(backup, to)
    manifest = json.loads((to / MANIFEST).read_text())
    (to / MANIFEST).write_text(json.dumps(change(manifest)))
    return to


@pytest.mark.parametrize(
    "name", ["../escaped", "segments/../../escaped", "/{home}/escaped", "lock", "incoming/x", ".env", "", "segments/\0"]
)
def test_a_backup_writes_nothing_but_a_data_directory(backup: tuple[Path, Path], tmp_path: Path, name: str) -> None:
    name = name.format(home=tmp_path)
    digest = hashlib.sha256(b"evil").hexdigest()
    source = rewritten(backup[0], tmp_path / "copy" / "copy", lambda manifest: {name: digest, **manifest})
    for path in (tmp_path / "copy" / "escaped", source / "escaped", tmp_path / "escaped"):
        path.write_bytes(b"evil")
    with pytest.raises(BackupError, match="Do not trust it"):
        restore(source, tmp_path / "home" / "data")
    assert not list(tmp_path.glob("home/**/*"))


@pytest.mark.parametrize("linked", ["segments", "checkpoints/own/qrag.json"])
def test_a_backup_reads_no_files_of_others(backup: tuple[Path, Path], tmp_path: Path, linked: str) -> None:
    outside = tmp_path / "outside"
    (outside / "segments").mkdir(parents=True)
    for path in backup[0].glob("segments/*"):
        shutil.copy2(path, outside / "segments")
    (outside / "secret").write_text("secret")
    digest = hashlib.sha256(b"secret").hexdigest()
    source = rewritten(backup[0], tmp_path / "copy", lambda found: {**found, "checkpoints/own/qrag.json": digest})
    (source / "checkpoints" / "own").mkdir(parents=True)
    (source / "checkpoints" / "own" / "qrag.json").write_text("secret")
    restore(source, tmp_path / "as-it-is")
    if linked == "segments":
        shutil.rmtree(source / linked)
        (source / linked).symlink_to(outside / "segments")
    else:
        (source / linked).unlink()
        (source / linked).symlink_to(outside / "secret")
    with pytest.raises(BackupError, match="is a link to a file elsewhere"):
        restore(source, tmp_path / "data")
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["lock"]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b"null", b"\xff", b"[" * 100_000, b'{"segments/1": ""}'])
def test_a_damaged_manifest_is_called_so(backup: tuple[Path, Path], tmp_path: Path, content: bytes) -> None:
    source = rewritten(backup[0], tmp_path / "copy", lambda manifest: manifest)
    (source / MANIFEST).write_bytes(content)
    with pytest.raises(BackupError, match="is damaged in"):
        restore(source, tmp_path / "data")
    assert not (tmp_path / "data").exists()


def test_keys_stay_their_owners_and_everything_of_a_checkpoint_is_kept(
    backup: tuple[Path, Path], tmp_path: Path
) -> None:
    data, own = tmp_path / "data", Path("checkpoints", "own")
    restore(backup[0], data)
    add_key(data / "keys.json", "operator", ["admin"], None)
    (data / own).mkdir(parents=True)
    (data / own / MANIFEST).write_text("not the backup's")
    (data / own / "dangling").symlink_to("nowhere")
    back_up(data, tmp_path / "copy")
    restore(tmp_path / "copy", tmp_path / "again")
    assert (tmp_path / "again" / own / MANIFEST).read_text() == "not the backup's"
    for place in ("copy", "again"):
        assert stat.S_IMODE((tmp_path / place / "keys.json").stat().st_mode) == 0o600


def test_no_backup_is_made_where_it_would_copy_itself_or_of_what_cannot_be_read(
    backup: tuple[Path, Path], tmp_path: Path
) -> None:
    data = tmp_path / "data"
    restore(backup[0], data)
    (data / "checkpoints").mkdir()
    for folder in ("checkpoints", "segments"):
        with pytest.raises(BackupError, match="Give another folder"):
            back_up(data, data / folder / "copy")
    (data / "qrag.sqlite3").write_bytes(b"no database at all" * 1000)
    with pytest.raises(BackupError, match="cannot be copied"):
        back_up(data, tmp_path / "copy")
