"""Bags of stored chunks: kept beside the vectors, merged with them, and made again from the text where lost."""

from __future__ import annotations

from collections import Counter
from contextlib import closing
from pathlib import Path

import numpy as np

from index.indexing.bagging import Bagging
from index.storage.local.backup import back_up, restore
from index.storage.local.files.postings import postings_path
from index.storage.local.opening import LocalStorage
from index.storage.vectors import ChunkAddress
from tests.index.storages import WordEncoder, index_all, laid_out, lines, open_local, post

TEXTS = {"letter": "a bb bb ccc\nbb", "list": lines("n", 30), "note": "ccc"}


def stored(directory: Path) -> LocalStorage:
    storage = open_local(directory)
    for id, text in TEXTS.items():
        post(storage, id, text)
        index_all(storage)
    return storage


def counted(storage: LocalStorage) -> dict[str, list[list[int]]]:
    """How often each chunk has tokens 0 to 5, by document."""
    found = storage.vectors.scopes().scope("default")
    documents = storage.catalogue.documents_at(found.uids.tolist())
    counts = found.scope.term_counts(np.arange(6), np.arange(found.scope.size)).T.tolist()
    borders = found.scope.offsets.tolist()
    return {documents[uid].id: counts[borders[n] : borders[n + 1]] for n, uid in enumerate(found.uids.tolist())}


def expected(*ids: str) -> dict[str, list[list[int]]]:
    bags = {id: WordEncoder().terms(TEXTS[id].splitlines()) for id in ids}
    return {id: [[Counter(bag)[token] for token in range(6)] for bag in texts] for id, texts in bags.items()}


def forget(storage: LocalStorage, *segments: int) -> None:
    """Lose the files of some segments."""
    for segment in segments:
        postings_path(storage.vectors.segment_path(segment)).unlink()


def test_bags_are_those_of_the_texts_after_a_restart_and_a_merge(tmp_path: Path) -> None:
    with closing(stored(tmp_path)) as storage:
        assert counted(storage) == expected("letter", "list", "note")
    with closing(open_local(tmp_path)) as storage:
        assert counted(storage) == expected("letter", "list", "note")
        storage.catalogue.delete_document("letter")
        while storage.maintain():
            pass
        assert counted(storage) == expected("list", "note")
        assert Bagging(storage, WordEncoder()).work() is False


def test_lost_bags_are_made_again_while_searches_go_on(tmp_path: Path) -> None:
    with closing(stored(tmp_path)) as storage:
        forget(storage, 1, 2)
    with closing(open_local(tmp_path)) as storage:
        without = counted(storage)
        assert not np.any(without["letter"])
        assert without["note"] == expected("note")["note"]
        bagging = Bagging(storage, WordEncoder())
        assert bagging.work()
        assert bagging.work()
        assert not bagging.work()
        assert counted(storage) == expected("letter", "list", "note")
    with closing(open_local(tmp_path)) as storage:
        assert counted(storage) == expected("letter", "list", "note")


def test_parts_of_a_document_that_lie_apart_get_their_own_bags(tmp_path: Path) -> None:
    """A merge can lay the end of a document right after its beginning, and what was between them elsewhere."""
    with closing(stored(tmp_path)) as storage:
        uid = storage.catalogue.document("list").uid
        numbers = (5, 0, 1, 20, 21)
        bags = Bagging(storage, WordEncoder())._bags([*(ChunkAddress(uid, number) for number in numbers), None])
        own = WordEncoder().terms(TEXTS["list"].splitlines())
        assert bags == [*(own[number] for number in numbers), []]


def test_truncated_bags_are_made_again(tmp_path: Path) -> None:
    with closing(stored(tmp_path)) as storage:
        path = postings_path(storage.vectors.segment_path(2))
    path.write_bytes(path.read_bytes()[:-3])
    with closing(open_local(tmp_path)) as storage:
        assert Bagging(storage, WordEncoder()).work()
        assert counted(storage) == expected("letter", "list", "note")


def test_chunks_of_a_deleted_document_get_no_bags(tmp_path: Path) -> None:
    with closing(open_local(tmp_path)) as storage:
        for id in ("letter", "note"):
            post(storage, id, TEXTS[id])
        index_all(storage)  # both in one segment
        forget(storage, 1)
    with closing(open_local(tmp_path)) as storage:
        storage.catalogue.delete_document("letter")
        assert Bagging(storage, WordEncoder()).work()
        assert counted(storage) == expected("note")


def test_a_merge_of_segments_without_bags_leaves_them_to_be_made(tmp_path: Path) -> None:
    with closing(stored(tmp_path)) as storage:
        for number in range(8):
            post(storage, f"other-{number}", "a")
            index_all(storage)
        forget(storage, 5)
    with closing(open_local(tmp_path)) as storage:
        while storage.maintain():
            pass
        while Bagging(storage, WordEncoder()).work():
            pass
        found = counted(storage)
        assert {id: found[id] for id in TEXTS} == expected("letter", "list", "note")
        assert found["other-3"] == [[0, 1, 0, 0, 0, 0]]


def test_a_backup_has_the_bags(tmp_path: Path) -> None:
    with closing(stored(tmp_path / "data")):
        back_up(tmp_path / "data", tmp_path / "backup")
    restore(tmp_path / "backup", tmp_path / "again")
    with closing(open_local(tmp_path / "again")) as storage:
        assert not Bagging(storage, WordEncoder()).work()
        assert counted(storage) == expected("letter", "list", "note")


def test_a_directory_of_a_former_version_gets_its_bags(tmp_path: Path) -> None:
    with closing(open_local(laid_out(tmp_path, 2))) as storage:
        rounds = 0
        while Bagging(storage, WordEncoder()).work():
            rounds += 1
        assert rounds > 0
        found = storage.vectors.scopes().scope("default").scope
        assert found.lengths(np.arange(found.size)).min() > 0


def test_merged_segments_keep_their_bags(tmp_path: Path) -> None:
    with closing(stored(tmp_path)) as storage:
        for number in range(8):
            post(storage, f"other-{number}", "a bb")
            index_all(storage)
        before = len(storage.vectors.segments)
        while storage.maintain():
            pass
        assert len(storage.vectors.segments) < before
        assert not Bagging(storage, WordEncoder()).work()
        found = counted(storage)
        assert {id: found[id] for id in TEXTS} == expected("letter", "list", "note")
