"""Store, indexing and compaction together, with a cheap stand-in for the model."""

from __future__ import annotations

import errno
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import ExitStack, closing
from pathlib import Path
from unittest.mock import Mock, patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from index.arrays import Float32Array
from index.errors import QueueFull, UnknownCollection, UnknownDocument
from index.indexing import indexer as indexing
from index.indexing.indexer import Indexer
from index.search.codes import Codes
from index.search.function import QFunction
from index.search.positions import Positions
from index.search.scoring import exact_q
from index.search.states import State, States
from index.storage.local import segments as vectors
from index.storage.local.compaction import compact
from index.storage.local.database import Database
from index.storage.local.scopes import Catalog
from index.storage.local.store import Store
from index.storage.local.uploads import Upload
from tests.index.stores import DIMENSION, WordEncoder, embed, expected, index_all, lines, open_store, post, searchable
from tests.index.strategies import random_vectors


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with closing(open_store(tmp_path)) as store:
        yield store


def test_documents_span_segments_and_share_them(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(indexing, "SEGMENT_ROWS", 64)
    texts = {"long": lines("a", 300), "short": lines("b", 3), "other": lines("c", 30)}
    for id, text in texts.items():
        post(store, id, text)
    index_all(store)
    found = searchable(store)
    assert found.keys() == texts.keys()
    for id, text in texts.items():
        np.testing.assert_array_equal(found[id], expected(text))


def test_interrupted_indexing_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(indexing, "SEGMENT_ROWS", 50)
    monkeypatch.setattr(indexing, "EMBED_CHUNKS", 10)
    text = lines("a", 220)
    store = open_store(tmp_path)
    post(store, "long", text)
    stopping = threading.Event()
    embedded = 0

    def embed_until_stopped(inputs: Sequence[Sequence[int]]) -> Float32Array:
        nonlocal embedded
        embedded += len(inputs)
        if embedded >= 120:
            stopping.set()
        return embed(inputs)

    indexer = Indexer(store, WordEncoder(), embed_until_stopped, stopping)
    while not stopping.is_set():
        indexer.work()
    assert store.document("long").status == "indexing"
    assert embedded in (120, 130)  # a batch that was begun is finished
    assert store.document("long").progress == pytest.approx(embedded / 220)
    assert searchable(store) == {}
    store.close()

    rest = 0

    def counting_embed(inputs: Sequence[Sequence[int]]) -> Float32Array:
        nonlocal rest
        rest += len(inputs)
        return embed(inputs)

    with closing(open_store(tmp_path)) as store:
        index_all(store, counting_embed)
        assert rest == 220 - embedded
        np.testing.assert_array_equal(searchable(store)["long"], expected(text))


def test_who_looks_while_a_document_becomes_ready_sees_it_as_far_as_it_was(store: Store) -> None:
    for id in ("first", "second", "third"):
        post(store, id, lines(id, 40))
        with store.database.read() as connection:
            (uid,) = connection.execute("SELECT uid FROM documents WHERE id = ?", (id,)).fetchone()
            index_all(store)
            before = store.document_at(connection, uid)
        assert (before.status, before.progress) == ("queued", 1.0)
        assert (store.document(id).status, store.document(id).progress) == ("ready", 1.0)


def test_short_documents_do_not_wait_for_a_long_one(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(indexing, "SEGMENT_ROWS", 50)
    monkeypatch.setattr(indexing, "LONG_DOCUMENT_CHARACTERS", 1000)
    post(store, "long", lines("a", 500))
    indexer = Indexer(store, WordEncoder(), embed, threading.Event())
    indexer.work()
    post(store, "short", lines("b", 3))
    indexer.work()
    assert store.document("short").status == "ready"
    assert store.document("long").status == "indexing"


def test_a_document_that_fails_says_so_and_can_be_retried(store: Store) -> None:
    post(store, "good", "one two")
    post(store, "bad", "poison " * 20)
    post(store, "late", "three four")

    def poisoned(inputs: Sequence[Sequence[int]]) -> Float32Array:
        if any(len(ids) == 20 for ids in inputs):
            raise RuntimeError("out of memory")
        return embed(inputs)

    indexer = Indexer(store, WordEncoder(), poisoned, threading.Event())
    while indexer.work():
        pass
    assert store.document("bad").status == "failed"
    assert "RuntimeError" in (store.document("bad").error or "")
    assert "bad" not in searchable(store)
    for id in ("good", "bad", "late"):
        store.retry_document(id)
    index_all(store)
    assert {document.status for document in store.documents()} == {"ready"}
    np.testing.assert_array_equal(searchable(store)["bad"], expected("poison " * 20))


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
        closing(open_store(Path(folder))) as store,
        patch.object(indexing, "EMBED_CHUNKS", 10),
    ):
        for id, text in texts.items():
            post(store, id, text)
        while left:
            Indexer(store, WordEncoder(), unsteady, threading.Event()).work()
            found = searchable(store)
            assert len(found) == sum(document.status == "ready" for document in store.documents())
            for id in texts:
                if id in found:
                    np.testing.assert_array_equal(found[id], expected(texts[id]))
                store.retry_document(id)
            if len(found) == len(texts):
                break
        index_all(store)
        found = searchable(store)
        assert found.keys() == texts.keys()
        for id, text in texts.items():
            np.testing.assert_array_equal(found[id], expected(text))


def test_a_document_that_cannot_be_tokenised_fails_alone(store: Store) -> None:
    class Choosy(WordEncoder):
        def action_inputs(self, texts: Sequence[str]) -> list[list[int]]:
            if any("poison" in text for text in texts):
                raise ValueError("no such token")
            return super().action_inputs(texts)

    post(store, "good", "one two")
    post(store, "bad", "poison")
    post(store, "late", "three four")
    indexer = Indexer(store, Choosy(), embed, threading.Event())
    while indexer.work():
        pass
    assert [document.status for document in store.documents()] == ["ready", "failed", "ready"]


def test_a_document_deleted_while_it_is_embedded_stays_deleted(store: Store) -> None:
    post(store, "kept", lines("a", 20))
    post(store, "gone", lines("b", 20))

    def deleting_embed(inputs: Sequence[Sequence[int]]) -> Float32Array:
        if store.find_document("gone"):
            store.delete_document("gone")
        return embed(inputs)

    index_all(store, deleting_embed)
    assert searchable(store).keys() == {"kept"}
    assert store.find_document("gone") is None


def test_only_a_document_of_the_collection_that_was_looked_at_is_touched(store: Store) -> None:
    post(store, "a", "one", collection="theirs")
    for touch in (store.delete_document, store.retry_document):
        with pytest.raises(UnknownDocument):
            touch("a", collection="mine")
    assert store.document("a").status == "queued"
    store.delete_document("a", collection="theirs")
    assert store.find_document("a") is None


def test_the_queue_is_bounded(store: Store) -> None:
    post(store, "a", "x", queue_limit=1)
    with pytest.raises(QueueFull):
        post(store, "b", "x", queue_limit=1)
    assert store.find_document("b") is None
    index_all(store)
    post(store, "b", "x", queue_limit=1)
    assert store.document("b").status == "queued"


def test_leftovers_of_a_crash_are_swept_away(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    post(store, "kept", lines("a", 5))
    index_all(store)
    half = Upload(store.database)
    half.write("never published " * 100_000)
    store.close()
    for leftover in ("segments/00000099.faiss", "segments/00000098.faiss.tmp", "segments/97.codes", "incoming/upload"):
        (tmp_path / leftover).write_bytes(b"half")
    with closing(open_store(tmp_path)) as store:
        assert searchable(store).keys() == {"kept"}
        assert {path.name for path in store.segments_directory.iterdir()} == {"00000001.faiss", "00000001.codes"}
        assert not list(store.incoming_directory.iterdir())
        with store.database.read() as connection:
            assert connection.execute("SELECT COUNT(*) FROM texts").fetchone()[0] == 1


@pytest.mark.parametrize("damage", ["missing", "cut short", "no room"])
def test_codes_are_made_again_from_the_embeddings(damage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(open_store(tmp_path)) as store:
        post(store, "a", lines("a", 50))
        post(store, "b", lines("b", 7))
        index_all(store)
        (file,) = store.segments_directory.glob("*.codes")
        content = file.read_bytes()
        numbers = np.array(codes_of(store).numbers)
    file.unlink()
    if damage == "cut short":
        file.write_bytes(content[:-1])
    if damage == "no room":
        monkeypatch.setattr(vectors, "_write_codes", Mock(side_effect=OSError(errno.ENOSPC, "No space left on device")))
    with closing(open_store(tmp_path)) as store:
        after = codes_of(store)
        np.testing.assert_array_equal(after.numbers, numbers)
        (part,) = Catalog(store).scope("default").scope.matrices.parts
        distance = np.linalg.norm(numbers * after.scale - part.matrix, axis=1).max()
        assert after.error == pytest.approx(distance, rel=1e-12)
        assert distance > 0
    assert damage == "no room" or file.read_bytes() == content


def codes_of(store: Store) -> Codes:
    (part,) = Catalog(store).scope("default").scope.matrices.parts
    assert part.codes is not None
    return part.codes


def test_a_search_of_the_codes_is_one_of_the_embeddings(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(indexing, "SEGMENT_ROWS", 500)
    counts = {"one": 1, "few": 7, "some": 60, "more": 700, "long": 2048, "longer": 2147}
    for number, (id, count) in enumerate(counts.items()):
        post(store, id, lines(id, count), collection="other" if number % 3 == 2 else "default")
        index_all(store)
    for _ in range(12):
        post(store, "short", lines("short", 40))
        index_all(store)
        store.delete_document("short")
    while compact(store):
        pass
    catalog = Catalog(store)
    state = random_vectors(1, DIMENSION, seed=3)[0]
    function = QFunction(1.5, -0.25, Positions(levels=18))
    coded = 0
    for collection, ids in (
        *(("default", ids) for ids in (None, ["few", "more"], ["one", "long"])),
        *(("other", ids) for ids in (None, ["some"], ["longer"])),
    ):
        scope = catalog.scope(collection, ids).scope
        coded += sum(part.codes is not None for part in scope.matrices.parts)
        selected = sorted({0, scope.size // 3, scope.size - 1})
        (found,) = scope.estimate(States(state[None]), [selected], function)
        left = np.setdiff1d(np.arange(scope.size), selected)
        exact = exact_q(State(state), scope, selected, function, left)
        assert np.abs(found.values[left] - exact).max(initial=0) <= found.error
    assert coded > 10


def test_a_database_created_by_halves_is_finished(tmp_path: Path) -> None:
    (tmp_path / "qrag.sqlite3").touch()
    with closing(open_store(tmp_path)) as store:
        post(store, "a", "x")
        assert store.document("a").status == "queued"


def test_deleted_space_is_given_back(tmp_path: Path) -> None:
    with closing(Database(tmp_path / "d.sqlite3")) as database:
        upload = Upload(database)
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

        def reopen() -> Store:
            stack.close()
            return stack.enter_context(closing(open_store(directory)))

        store = reopen()
        truth: dict[tuple[str, str], str] = {}
        for _ in range(data.draw(st.integers(5, 30))):
            action = data.draw(st.sampled_from(["post", "post", "post", "index", "delete", "compact", "restart"]))
            if action == "post":
                id, collection = data.draw(st.sampled_from("abcdefghijkl")), data.draw(st.sampled_from(["one", "two"]))
                if store.find_document(id) is None:
                    truth[collection, id] = lines(id, data.draw(st.sampled_from([0, 1, 5, 200])))
                    post(store, id, truth[collection, id], collection)
            elif action == "delete" and truth:
                key = data.draw(st.sampled_from(sorted(truth)))
                del truth[key]
                store.delete_document(key[1])
            elif action == "index":
                index_all(store)
            elif action == "compact":
                compact(store)
            elif action == "restart":
                store = reopen()
        index_all(store)
        while compact(store):
            pass
        for collection in ("one", "two"):
            wanted = {id: text for (where, id), text in truth.items() if where == collection}
            if not wanted:
                with pytest.raises(UnknownCollection):
                    searchable(store, collection)
                continue
            found = searchable(store, collection)
            assert found.keys() == {id for id, text in wanted.items() if text}
            for id, vectors in found.items():
                np.testing.assert_array_equal(vectors, expected(wanted[id]))
        with store.database.read() as connection:
            segments = connection.execute("SELECT COUNT(*) FROM segments").fetchone()[0]
        kinds = Counter(path.suffix for path in store.segments_directory.iterdir())
        assert kinds == ({".faiss": segments, ".codes": segments} if segments else {})


def test_many_small_segments_are_merged(store: Store) -> None:
    for number in range(20):
        post(store, f"d{number}", lines(f"d{number}", 3))
        index_all(store)
    assert len(store.segments) == 20
    scope = Catalog(store).scope("default").scope
    before = scope.rows(np.arange(scope.size))
    while compact(store):
        pass
    assert len(store.segments) < 8
    scope_after = Catalog(store).scope("default").scope
    after = scope_after.rows(np.arange(scope_after.size))
    np.testing.assert_array_equal(np.sort(before, axis=0), np.sort(after, axis=0))
    np.testing.assert_array_equal(before, scope.rows(np.arange(scope.size)))  # the old scope is still mapped
