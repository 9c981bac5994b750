"""Storage, indexing and compaction together, with a cheap stand-in for the model."""

from __future__ import annotations

import errno
import tempfile
import threading
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import CancelledError
from contextlib import ExitStack, closing
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from index.arrays import Float32Array
from index.errors import (
    QueueFull,
    UnknownCollection,
    UnknownDocument,
)
from index.indexing.indexer import Indexer
from index.search.function import QFunction
from index.search.positions import Positions
from index.search.scanning.codes import Codes
from index.search.scoring import exact_q
from index.search.states import State, States
from index.storage.local.database import Database
from index.storage.local.files import segments as local_segments
from index.storage.local.opening import LocalStorage
from index.storage.local.uploads import LocalUpload
from tests.index.storages import (
    DIMENSION,
    WordEncoder,
    embed,
    expected,
    index_all,
    lines,
    matrix_scope,
    open_local,
    post,
    searchable,
)
from tests.index.strategies import random_vectors


def test_documents_span_segments_and_share_them(storage: LocalStorage) -> None:
    texts = {"long": lines("a", 300), "short": lines("b", 3), "other": lines("c", 30)}
    for id, text in texts.items():
        post(storage, id, text)
    index_all(storage, round_chunks=64)
    found = searchable(storage)
    assert found.keys() == texts.keys()
    for id, text in texts.items():
        np.testing.assert_array_equal(found[id], expected(text))


def test_interrupted_indexing_goes_on_where_it_was(tmp_path: Path) -> None:
    text = lines("a", 220)
    storage = open_local(tmp_path)
    post(storage, "long", text)
    stopping = threading.Event()
    embedded = 0

    def embed_until_stopped(inputs: Sequence[Sequence[int]]) -> Float32Array:
        nonlocal embedded
        embedded += len(inputs)
        if embedded >= 120:
            stopping.set()
        return embed(inputs)

    indexer = Indexer(storage, WordEncoder(), embed_until_stopped, stopping, round_chunks=50, batch_chunks=10)
    while not stopping.is_set():
        indexer.work()
    assert storage.catalogue.document("long").status == "indexing"
    assert embedded in (120, 130)  # a batch that was begun is finished
    assert storage.catalogue.document("long").progress == pytest.approx(embedded / 220)
    assert searchable(storage) == {}
    storage.close()

    rest = 0

    def counting_embed(inputs: Sequence[Sequence[int]]) -> Float32Array:
        nonlocal rest
        rest += len(inputs)
        return embed(inputs)

    with closing(open_local(tmp_path)) as storage:
        index_all(storage, counting_embed, round_chunks=50, batch_chunks=10)
        assert rest == 220 - embedded
        np.testing.assert_array_equal(searchable(storage)["long"], expected(text))


def test_who_looks_while_a_document_becomes_ready_sees_it_as_far_as_it_was(storage: LocalStorage) -> None:
    for id in ("first", "second", "third"):
        post(storage, id, lines(id, 40))
        with storage.directory.database.read() as connection:
            (uid,) = connection.execute("SELECT uid FROM documents WHERE id = ?", (id,)).fetchone()
            index_all(storage)
            before = storage.catalogue.document_at(connection, uid)
        assert (before.status, before.progress) == ("queued", 1.0)
        assert (storage.catalogue.document(id).status, storage.catalogue.document(id).progress) == ("ready", 1.0)


def test_short_documents_do_not_wait_for_a_long_one(storage: LocalStorage) -> None:
    post(storage, "long", lines("a", 500))
    indexer = Indexer(storage, WordEncoder(), embed, threading.Event(), round_chunks=50, long_characters=1000)
    indexer.work()
    post(storage, "short", lines("b", 3))
    indexer.work()
    assert storage.catalogue.document("short").status == "ready"
    assert storage.catalogue.document("long").status == "indexing"


def test_a_document_that_fails_says_so_and_can_be_retried(storage: LocalStorage) -> None:
    post(storage, "good", "one two")
    post(storage, "bad", "poison " * 20)
    post(storage, "late", "three four")

    def poisoned(inputs: Sequence[Sequence[int]]) -> Float32Array:
        if any(len(ids) == 20 for ids in inputs):
            raise RuntimeError("out of memory")
        return embed(inputs)

    indexer = Indexer(storage, WordEncoder(), poisoned, threading.Event())
    while indexer.work():
        pass
    assert storage.catalogue.document("bad").status == "failed"
    assert "RuntimeError" in (storage.catalogue.document("bad").error or "")
    assert "bad" not in searchable(storage)
    for id in ("good", "bad", "late"):
        storage.catalogue.retry_document(id)
    index_all(storage)
    assert {document.status for document in storage.catalogue.documents()} == {"ready"}
    np.testing.assert_array_equal(searchable(storage)["bad"], expected("poison " * 20))


FAILURE, SHUTDOWN = RuntimeError("out of memory"), CancelledError()


@settings(deadline=None, max_examples=60)
@given(st.lists(st.sampled_from([None, None, None, FAILURE, SHUTDOWN]), max_size=12))
def test_nothing_is_lost_or_made_up_when_embedding_ends(outages: list[Exception | None]) -> None:
    # The next batch, of the same document or another, is begun while one is embedded.
    texts = {"a": lines("a", 5), "b": lines("b", 27), "c": lines("c", 8), "d": lines("d", 15)}
    left = list(outages)

    def unsteady(inputs: Sequence[Sequence[int]]) -> Float32Array:
        if left and (outage := left.pop(0)):
            raise outage
        return embed(inputs)

    with (
        tempfile.TemporaryDirectory() as folder,
        closing(open_local(Path(folder))) as storage,
    ):
        for id, text in texts.items():
            post(storage, id, text)
        while left:
            Indexer(storage, WordEncoder(), unsteady, threading.Event(), batch_chunks=10).work()
            found = searchable(storage)
            assert len(found) == sum(document.status == "ready" for document in storage.catalogue.documents())
            for id in texts:
                if id in found:
                    np.testing.assert_array_equal(found[id], expected(texts[id]))
                storage.catalogue.retry_document(id)
            if len(found) == len(texts):
                break
        index_all(storage, batch_chunks=10)
        found = searchable(storage)
        assert found.keys() == texts.keys()
        for id, text in texts.items():
            np.testing.assert_array_equal(found[id], expected(text))


def test_a_document_that_cannot_be_tokenised_fails_alone(storage: LocalStorage) -> None:
    class Choosy(WordEncoder):
        def action_inputs(self, texts: Sequence[str]) -> list[list[int]]:
            if any("poison" in text for text in texts):
                raise ValueError("no such token")
            return super().action_inputs(texts)

    post(storage, "good", "one two")
    post(storage, "bad", "poison")
    post(storage, "late", "three four")
    indexer = Indexer(storage, Choosy(), embed, threading.Event())
    while indexer.work():
        pass
    assert [document.status for document in storage.catalogue.documents()] == ["ready", "failed", "ready"]


def test_a_document_deleted_while_it_is_embedded_stays_deleted(storage: LocalStorage) -> None:
    post(storage, "kept", lines("a", 20))
    post(storage, "gone", lines("b", 20))

    def deleting_embed(inputs: Sequence[Sequence[int]]) -> Float32Array:
        if storage.catalogue.versions("gone"):
            storage.catalogue.delete_document("gone")
        return embed(inputs)

    index_all(storage, deleting_embed)
    assert searchable(storage).keys() == {"kept"}
    assert storage.catalogue.versions("gone") == []


def test_only_a_document_of_the_collection_that_was_looked_at_is_touched(storage: LocalStorage) -> None:
    post(storage, "a", "one", collection="theirs")
    for touch in (storage.catalogue.delete_document, storage.catalogue.retry_document):
        with pytest.raises(UnknownDocument):
            touch("a", collection="mine")
    assert storage.catalogue.document("a").status == "queued"
    storage.catalogue.delete_document("a", collection="theirs")
    assert storage.catalogue.versions("a") == []


def test_the_queue_is_bounded(storage: LocalStorage) -> None:
    post(storage, "a", "x", queue_limit=1)
    with pytest.raises(QueueFull):
        post(storage, "b", "x", queue_limit=1)
    assert storage.catalogue.versions("b") == []
    index_all(storage)
    post(storage, "b", "x", queue_limit=1)
    assert storage.catalogue.document("b").status == "queued"


@pytest.mark.parametrize("damage", ["missing", "cut short", "no room"])
def test_codes_are_made_again_from_the_embeddings(damage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(open_local(tmp_path)) as storage:
        post(storage, "a", lines("a", 50))
        post(storage, "b", lines("b", 7))
        index_all(storage)
        (file,) = storage.directory.segments.glob("*.codes")
        content = file.read_bytes()
        numbers = np.array(codes_of(storage).numbers)
    file.unlink()
    if damage == "cut short":
        file.write_bytes(content[:-1])
    if damage == "no room":
        monkeypatch.setattr(
            local_segments, "_write_codes", Mock(side_effect=OSError(errno.ENOSPC, "No space left on device"))
        )
    with closing(open_local(tmp_path)) as storage:
        after = codes_of(storage)
        np.testing.assert_array_equal(after.numbers, numbers)
        (part,) = matrix_scope(storage.vectors.scopes().scope("default")).matrices.parts
        distance = np.linalg.norm(numbers * after.scale - part.matrix, axis=1).max()
        assert after.error == pytest.approx(distance, rel=1e-12)
        assert distance > 0
    assert damage == "no room" or file.read_bytes() == content


def codes_of(storage: LocalStorage) -> Codes:
    (part,) = matrix_scope(storage.vectors.scopes().scope("default")).matrices.parts
    assert part.codes is not None
    return part.codes


def test_a_search_of_the_codes_is_one_of_the_embeddings(storage: LocalStorage) -> None:
    counts = {"one": 1, "few": 7, "some": 60, "more": 700, "long": 2048, "longer": 2147}
    for number, (id, count) in enumerate(counts.items()):
        post(storage, id, lines(id, count), collection="other" if number % 3 == 2 else "default")
        index_all(storage, round_chunks=500)
    for _ in range(12):
        post(storage, "short", lines("short", 40))
        index_all(storage, round_chunks=500)
        storage.catalogue.delete_document("short")
    while storage.maintain():
        pass
    scopes = storage.vectors.scopes()
    state = random_vectors(1, DIMENSION, seed=3)[0]
    function = QFunction(1.5, -0.25, Positions(levels=18))
    coded = 0
    for collection, ids in (
        *(("default", ids) for ids in (None, ["few", "more"], ["one", "long"])),
        *(("other", ids) for ids in (None, ["some"], ["longer"])),
    ):
        scope = matrix_scope(scopes.scope(collection, ids))
        coded += sum(part.codes is not None for part in scope.matrices.parts)
        selected = sorted({0, scope.size // 3, scope.size - 1})
        (found,) = scope.estimate(States(state[None]), [selected], function)
        left = np.setdiff1d(np.arange(scope.size), selected)
        exact = exact_q(State(state), scope, selected, function, left)
        assert np.abs(found.values[left] - exact).max(initial=0) <= found.error
    assert coded > 10


def test_deleted_space_is_given_back(tmp_path: Path) -> None:
    with closing(Database(tmp_path / "d.sqlite3")) as database:
        upload = LocalUpload(database)
        upload.write("x" * 20_000_000)
        upload.discard()
        database.merge_log()
        before = (tmp_path / "d.sqlite3").stat().st_size
        while database.release_space():
            pass
        assert (tmp_path / "d.sqlite3").stat().st_size < before - 10_000_000


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_any_history_leaves_what_was_put_in(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Post, delete, index, merge and restart in any order, against a dictionary."""
    directory = tmp_path_factory.mktemp("store")
    with ExitStack() as stack:

        def reopen() -> LocalStorage:
            stack.close()
            return stack.enter_context(closing(open_local(directory)))

        storage = reopen()
        truth: dict[tuple[str, str], str] = {}
        for _ in range(data.draw(st.integers(5, 30))):
            action = data.draw(st.sampled_from(["post", "post", "post", "index", "delete", "compact", "restart"]))
            if action == "post":
                id, collection = data.draw(st.sampled_from("abcdefghijkl")), data.draw(st.sampled_from(["one", "two"]))
                if not storage.catalogue.versions(id):
                    truth[collection, id] = lines(id, data.draw(st.sampled_from([0, 1, 5, 200])))
                    post(storage, id, truth[collection, id], collection)
            elif action == "delete" and truth:
                key = data.draw(st.sampled_from(sorted(truth)))
                del truth[key]
                storage.catalogue.delete_document(key[1])
            elif action == "index":
                index_all(storage)
            elif action == "compact":
                storage.maintain()
            elif action == "restart":
                storage = reopen()
        index_all(storage)
        while storage.maintain():
            pass
        for collection in ("one", "two"):
            wanted = {id: text for (where, id), text in truth.items() if where == collection}
            if not wanted:
                with pytest.raises(UnknownCollection):
                    searchable(storage, collection)
                continue
            found = searchable(storage, collection)
            assert found.keys() == {id for id, text in wanted.items() if text}
            for id, vectors in found.items():
                np.testing.assert_array_equal(vectors, expected(wanted[id]))
        with storage.directory.database.read() as connection:
            segments = connection.execute("SELECT COUNT(*) FROM segments").fetchone()[0]
        kinds = Counter(path.suffix for path in storage.directory.segments.iterdir())
        assert kinds == (dict.fromkeys((".faiss", ".codes", ".bags"), segments) if segments else {})


def test_many_small_segments_are_merged(storage: LocalStorage) -> None:
    for number in range(20):
        post(storage, f"d{number}", lines(f"d{number}", 3))
        index_all(storage)
    assert len(storage.vectors.segments) == 20
    scope = storage.vectors.scopes().scope("default").scope
    before = scope.rows(np.arange(scope.size))
    while storage.maintain():
        pass
    assert len(storage.vectors.segments) < 8
    scope_after = storage.vectors.scopes().scope("default").scope
    after = scope_after.rows(np.arange(scope_after.size))
    np.testing.assert_array_equal(np.sort(before, axis=0), np.sort(after, axis=0))
    np.testing.assert_array_equal(before, scope.rows(np.arange(scope.size)))  # the old scope is still mapped
