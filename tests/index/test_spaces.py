"""Vectors of several action towers side by side: a search sees those of one of them, and all of these."""

from __future__ import annotations

import sqlite3
import tempfile
import threading
from collections.abc import Sequence
from contextlib import closing
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from index.arrays import Float32Array
from index.errors import CheckpointMismatch, ChunkTooLong, DamagedStore
from index.indexing.indexer import Indexer
from index.indexing.reembedding import Reembedding
from index.storage.local.opening import LocalStorage
from tests.index.storages import DIMENSION, WordEncoder, index_all, laid_out, lines, open_local, post, searchable

DIMENSIONS = {"words": DIMENSION, "other": 6, "third": DIMENSION}
"""The dimension of each action tower's vectors, by its fingerprint."""


def embed(tower: str, inputs: Sequence[Sequence[int]]) -> Float32Array:
    """An embedding that depends on tower and input alone."""
    seed = sum(map(ord, tower))
    rows = [np.random.default_rng([seed, *ids]).standard_normal(DIMENSIONS[tower], dtype=np.float32) for ids in inputs]
    return np.stack(rows)


def reembedding(storage: LocalStorage, tower: str, **sizes: int) -> Reembedding:
    space = storage.vectors.open_space(fingerprint=tower, dimension=DIMENSIONS[tower])
    return Reembedding(storage, WordEncoder(), partial(embed, tower), threading.Event(), space, **sizes)


def change(storage: LocalStorage, tower: str) -> None:
    """From the beginning to the end."""
    work = reembedding(storage, tower)
    while work.work():
        pass
    space = storage.vectors.open_space(fingerprint=tower, dimension=DIMENSIONS[tower])
    assert storage.vectors.activate(space, {"checkpoint": tower})


def seen_by(storage: LocalStorage) -> dict[str, Float32Array]:
    found = storage.vectors.scopes().scope("default") if storage.catalogue.collections() else None
    if found is None:
        return {}
    documents = storage.catalogue.documents_at(found.uids.tolist())
    borders = found.scope.offsets
    return {
        documents[uid].id: found.scope.rows(np.arange(borders[n], borders[n + 1]))
        for n, uid in enumerate(found.uids.tolist())
    }


TEXTS = {f"d{number}": lines(f"d{number}", count) for number, count in enumerate((1, 3, 7, 20, 2, 5))}

OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("post"), st.sampled_from(sorted(TEXTS))),
        st.tuples(st.just("delete"), st.sampled_from(sorted(TEXTS))),
        st.tuples(st.sampled_from(["index", "compact", "remove", "reopen"]), st.none()),
        st.tuples(st.sampled_from(["reembed", "activate"]), st.sampled_from(sorted(DIMENSIONS))),
    ),
    max_size=40,
)


@settings(deadline=None, max_examples=60)
@given(OPERATIONS)
def test_a_search_sees_every_document_as_the_active_tower_does(operations: list[tuple[str, str | None]]) -> None:
    posted: dict[str, str] = {}
    tower = "words"
    with tempfile.TemporaryDirectory() as folder:
        storage = open_local(Path(folder))
        try:
            for name, value in operations:
                if name == "post" and value is not None:
                    post(storage, value, TEXTS[value])
                    posted[value] = TEXTS[value]
                elif name == "delete" and value in posted:
                    storage.catalogue.delete_document(value)
                    del posted[value]
                elif name == "index":
                    Indexer(storage, WordEncoder(), partial(embed, tower), threading.Event(), round_chunks=8).work()
                elif name == "compact":
                    storage.maintain(segment_rows=64)
                elif name == "remove":
                    storage.reclaim_space()
                elif name == "reopen":
                    storage.close()
                    storage = open_local(Path(folder), dimension=DIMENSIONS[tower], fingerprint=tower)
                elif name == "reembed" and value is not None and value != tower:
                    reembedding(storage, value, round_chunks=8).work()
                elif name == "activate" and value is not None and value != tower:
                    space = storage.vectors.open_space(fingerprint=value, dimension=DIMENSIONS[value])
                    ready = storage.catalogue.count_by_status()["ready"]
                    complete = storage.vectors.share_embedded(space) == 1.0
                    assert storage.vectors.activate(space, {}) == complete
                    tower = value if complete else tower
                    assert storage.catalogue.count_by_status()["ready"] == ready
                found = seen_by(storage)
                assert set(found) <= set(posted)
                assert len(found) == storage.catalogue.count_by_status()["ready"]
                for id, vectors in found.items():
                    expected = embed(tower, WordEncoder().action_inputs(posted[id].splitlines()))
                    np.testing.assert_array_equal(vectors, expected)
            index_all(storage, partial(embed, tower), round_chunks=8)
            assert set(seen_by(storage)) == set(posted)
        finally:
            storage.close()


def test_who_still_uses_the_former_space_finds_it_whole(tmp_path: Path) -> None:
    with closing(open_local(tmp_path)) as storage:
        post(storage, "a", lines("a", 30))
        index_all(storage, partial(embed, "words"))
        post(storage, "half", lines("half", 20))
        Indexer(storage, WordEncoder(), partial(embed, "words"), threading.Event(), round_chunks=8).work()
        former = storage.vectors.scopes()
        change(storage, "other")
        index_all(storage, partial(embed, "other"))
        assert {id: len(rows) for id, rows in seen_by(storage).items()} == {"a": 30, "half": 20}
        found = former.scope("default")
        assert [storage.catalogue.documents_at([uid])[uid].id for uid in found.uids.tolist()] == ["a"]
        assert found.scope.rows(np.arange(found.scope.size)).shape == (30, DIMENSIONS["words"])


def test_going_back_embeds_what_came_meanwhile_alone(tmp_path: Path) -> None:
    with closing(open_local(tmp_path)) as storage:
        post(storage, "a", lines("a", 30))
        index_all(storage, partial(embed, "words"))
        change(storage, "other")
        post(storage, "b", lines("b", 4))
        index_all(storage, partial(embed, "other"))
        embedded: list[int] = []

        def noted(inputs: Sequence[Sequence[int]]) -> Float32Array:
            embedded.append(len(inputs))
            return embed("words", inputs)

        space = storage.vectors.open_space(fingerprint="words", dimension=DIMENSION)
        assert storage.vectors.share_embedded(space) == pytest.approx(30 / 34)
        work = Reembedding(storage, WordEncoder(), noted, threading.Event(), space)
        while work.work():
            pass
        assert storage.vectors.activate(space, {})
        assert embedded == [4]
        for id, text in (("a", lines("a", 30)), ("b", lines("b", 4))):
            expected = embed("words", WordEncoder().action_inputs(text.splitlines()))
            np.testing.assert_array_equal(searchable(storage)[id], expected)


def test_a_third_tower_takes_the_place_of_the_second(tmp_path: Path) -> None:
    with closing(open_local(tmp_path)) as storage:
        post(storage, "a", lines("a", 30))
        index_all(storage, partial(embed, "words"))
        reembedding(storage, "other").work()
        files = len(list((tmp_path / "segments").glob("*.faiss")))
        change(storage, "third")
        assert {space.fingerprint for space in storage.vectors.spaces} == {"words", "third"}
        storage.reclaim_space()
        assert len(list((tmp_path / "segments").glob("*.faiss"))) == files
        storage.vectors.forget_other_spaces()
        storage.reclaim_space()
        assert len(list((tmp_path / "segments").glob("*.faiss"))) == files - 1


def test_a_tower_that_cannot_read_a_chunk_whole_is_refused(tmp_path: Path) -> None:
    class Short(WordEncoder):
        input_limit = 2

    with closing(open_local(tmp_path)) as storage:
        post(storage, "a", lines("a", 3))
        index_all(storage, partial(embed, "words"))
        space = storage.vectors.open_space(fingerprint="other", dimension=6)
        work = Reembedding(storage, Short(), partial(embed, "other"), threading.Event(), space)
        with pytest.raises(ChunkTooLong, match="Chunk 0 of document 'a' has 3 tokens"):
            work.work()
        assert not storage.vectors.activate(space, {})


def test_a_space_that_cannot_be_opened_takes_no_other_ones_place(tmp_path: Path) -> None:
    with closing(open_local(tmp_path)) as storage:
        post(storage, "a", lines("a", 30))
        index_all(storage, partial(embed, "words"))
        reembedding(storage, "other").work()
        with storage.directory.database.write() as connection:
            connection.execute("CREATE TRIGGER broken BEFORE INSERT ON spaces BEGIN SELECT RAISE(ABORT, 'broken'); END")
        with pytest.raises(sqlite3.IntegrityError):
            storage.vectors.open_space(fingerprint="third", dimension=DIMENSION, properties={"wanted": "third"})
        with storage.directory.database.write() as connection:
            connection.execute("DROP TRIGGER broken")
        assert storage.catalogue.read_property("wanted") is None
        assert {space.fingerprint for space in storage.vectors.spaces} == {"words", "other"}
        (other,) = (space for space in storage.vectors.spaces if space.fingerprint == "other")
        assert storage.vectors.activate(other, {})


@pytest.mark.parametrize("next_tower", ["other", "third"])
def test_what_is_embedded_while_its_space_is_dropped_is_in_no_later_space(tmp_path: Path, next_tower: str) -> None:
    with closing(open_local(tmp_path)) as storage:
        post(storage, "a", lines("a", 20))
        index_all(storage, partial(embed, "words"))
        reembedding(storage, "other", round_chunks=8).work()

        def given_up_meanwhile(inputs: Sequence[Sequence[int]]) -> Float32Array:
            storage.vectors.forget_other_spaces()
            storage.vectors.open_space(fingerprint=next_tower, dimension=DIMENSIONS[next_tower])
            return embed("other", inputs)

        space = storage.vectors.open_space(fingerprint="other", dimension=DIMENSIONS["other"])
        work = Reembedding(storage, WordEncoder(), given_up_meanwhile, threading.Event(), space, round_chunks=8)
        work.work()
        later = storage.vectors.open_space(fingerprint=next_tower, dimension=DIMENSIONS[next_tower])
        assert storage.vectors.share_embedded(later) == 0
        change(storage, next_tower)
        expected = embed(next_tower, WordEncoder().action_inputs(lines("a", 20).splitlines()))
        np.testing.assert_array_equal(seen_by(storage)["a"], expected)
        storage.reclaim_space()
    with closing(
        open_local(tmp_path, dimension=6 if next_tower == "other" else DIMENSION, fingerprint=next_tower)
    ) as storage:
        np.testing.assert_array_equal(seen_by(storage)["a"], expected)


def test_what_was_half_indexed_is_cut_as_the_new_tower_reads(tmp_path: Path) -> None:
    class Short(WordEncoder):
        chunk_limit = input_limit = 2

    with closing(open_local(tmp_path)) as storage:
        post(storage, "half", lines("half", 20))
        Indexer(storage, WordEncoder(), partial(embed, "words"), threading.Event(), round_chunks=8).work()
        assert storage.catalogue.document("half").status == "indexing"
        change(storage, "other")
        Indexer(storage, Short(), partial(embed, "other"), threading.Event()).work()
        half = storage.catalogue.document("half")
        assert half.status == "ready"
        assert max(stored.chunk.tokens for stored in storage.catalogue.chunks(half.uid)) == 2


def test_a_directory_of_format_1_can_change_its_tower(tmp_path: Path) -> None:
    with closing(open_local(laid_out(tmp_path, 1))) as storage:
        index_all(storage, partial(embed, "words"))
        storage.catalogue.delete_document("letter")
        change(storage, "other")
        storage.reclaim_space()
        assert set(seen_by(storage)) == {"late"}


def test_a_directory_of_format_1_that_is_refused_stays_what_it_is(tmp_path: Path) -> None:
    laid_out(tmp_path, 1)
    with pytest.raises(CheckpointMismatch):
        open_local(tmp_path, dimension=DIMENSION, fingerprint="other")
    with closing(sqlite3.connect(tmp_path / "qrag.sqlite3")) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (1,)
        assert connection.execute("SELECT COUNT(*) FROM pieces").fetchone() == (2,)


def taken_over(directory: Path, tower: str) -> LocalStorage:
    """The directory opened for a tower, whatever vectors it has."""
    return open_local(directory, dimension=DIMENSIONS[tower], fingerprint=tower, embed_again=True)


def test_documents_of_another_tower_are_found_as_they_are_embedded_again(tmp_path: Path) -> None:
    texts = {f"d{number}": lines(f"d{number}", 5) for number in range(4)}
    with closing(open_local(tmp_path)) as storage:
        for id, text in texts.items():
            post(storage, id, text)
        index_all(storage, partial(embed, "words"))
        post(storage, "late", "not indexed yet")
    with closing(taken_over(tmp_path, "other")) as storage:
        assert seen_by(storage) == {}
        assert storage.catalogue.count_by_status() == {"queued": 5, "indexing": 0, "ready": 0, "failed": 0}
        indexer = Indexer(storage, WordEncoder(), partial(embed, "other"), threading.Event(), round_chunks=8)
        assert indexer.work()  # interrupted here
        assert set(seen_by(storage)) == {"d0"}
    with closing(taken_over(tmp_path, "other")) as storage:
        index_all(storage, partial(embed, "other"))
        assert set(seen_by(storage)) == {*texts, "late"}
        for id, text in texts.items():
            inputs = WordEncoder().action_inputs(text.splitlines())
            np.testing.assert_array_equal(seen_by(storage)[id], embed("other", inputs))


def test_a_start_that_fails_for_a_damaged_segment_has_taken_nothing_over(tmp_path: Path) -> None:
    with closing(open_local(tmp_path)) as storage:
        post(storage, "letter", lines("letter", 9))
        index_all(storage, partial(embed, "words"))
        before = seen_by(storage)
    (segment,) = (tmp_path / "segments").glob("*.faiss")
    whole = segment.read_bytes()
    segment.write_bytes(whole[:-7])
    with pytest.raises(DamagedStore):
        taken_over(tmp_path, "other")
    segment.write_bytes(whole)
    with closing(open_local(tmp_path)) as storage:  # the former tower's, which would be refused otherwise
        np.testing.assert_array_equal(seen_by(storage)["letter"], before["letter"])


def test_going_back_to_a_tower_whose_vectors_are_there_embeds_nothing_again(tmp_path: Path) -> None:
    with closing(open_local(tmp_path)) as storage:
        post(storage, "letter", lines("letter", 9))
        index_all(storage, partial(embed, "words"))
        before = seen_by(storage)
    with closing(taken_over(tmp_path, "other")) as storage:
        index_all(storage, partial(embed, "other"))
        post(storage, "late", "came meanwhile")
        index_all(storage, partial(embed, "other"))
    with closing(taken_over(tmp_path, "words")) as storage:
        np.testing.assert_array_equal(seen_by(storage)["letter"], before["letter"])
        embedded: list[int] = []

        def noted(inputs: Sequence[Sequence[int]]) -> Float32Array:
            embedded.append(len(inputs))
            return embed("words", inputs)

        index_all(storage, noted)
        assert embedded == [1]
        assert set(seen_by(storage)) == {"letter", "late"}


def test_chunks_that_the_new_tower_cannot_read_fail_with_what_to_do(tmp_path: Path) -> None:
    class Short(WordEncoder):
        input_limit = 2

    with closing(open_local(tmp_path)) as storage:
        post(storage, "letter", "one two three")
        post(storage, "note", "one two")
        index_all(storage, partial(embed, "words"))
    with closing(taken_over(tmp_path, "other")) as storage:
        indexer = Indexer(storage, Short(), partial(embed, "other"), threading.Event())
        while indexer.work():
            pass
        assert set(seen_by(storage)) == {"note"}
        error = storage.catalogue.document("letter").error
        assert error is not None
        assert "python -m service reindex" in error


def test_segments_of_different_spaces_are_never_merged(tmp_path: Path) -> None:
    with closing(open_local(tmp_path)) as storage:
        work = reembedding(storage, "third")
        for number in range(8):
            post(storage, f"d{number}", lines(f"d{number}", 2))
            index_all(storage, partial(embed, "words"))
            assert work.work()
            if number == 5:  # twelve small segments, six of each space
                assert not storage.maintain()
        while storage.maintain():
            pass
        assert len(storage.vectors.segments) == 2
        for tower in ("words", "third"):
            for id, vectors in seen_by(storage).items():
                expected = embed(tower, WordEncoder().action_inputs(lines(id, 2).splitlines()))
                np.testing.assert_array_equal(vectors, expected)
            if tower == "words":
                change(storage, "third")
