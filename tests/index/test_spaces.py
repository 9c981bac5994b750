"""Vectors of several action towers side by side: a search sees those of one of them, and all of these."""

from __future__ import annotations

import sqlite3
import tempfile
import threading
from collections.abc import Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from index.arrays import Float32Array
from index.errors import CheckpointMismatch, ChunkTooLong
from index.indexing.indexer import Indexer
from index.indexing.reembedding import Reembedding
from index.storage.local.compaction import compact
from index.storage.local.scopes import Catalog
from index.storage.local.store import Store
from tests.index.stores import DIMENSION, WordEncoder, index_all, laid_out, lines, open_store, post, searchable

DIMENSIONS = {"words": DIMENSION, "other": 6, "third": DIMENSION}
"""Of the action tower with this fingerprint."""


def embed(tower: str, inputs: Sequence[Sequence[int]]) -> Float32Array:
    """An embedding that depends on tower and input alone."""
    seed = sum(map(ord, tower))
    rows = [np.random.default_rng([seed, *ids]).standard_normal(DIMENSIONS[tower], dtype=np.float32) for ids in inputs]
    return np.stack(rows)


def reembedding(store: Store, tower: str) -> Reembedding:
    space = store.open_space(fingerprint=tower, dimension=DIMENSIONS[tower])
    return Reembedding(store, WordEncoder(), partial(embed, tower), threading.Event(), space)


def change(store: Store, tower: str) -> None:
    """From the beginning to the end."""
    work = reembedding(store, tower)
    while work.work():
        pass
    space = store.open_space(fingerprint=tower, dimension=DIMENSIONS[tower])
    assert store.activate(space, {"checkpoint": tower})


def seen_by(store: Store) -> dict[str, Float32Array]:
    found = Catalog(store).scope("default") if store.collections() else None
    if found is None:
        return {}
    documents = store.documents_at(found.uids.tolist())
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
    with (
        tempfile.TemporaryDirectory() as folder,
        patch("index.indexing.indexer.SEGMENT_ROWS", 8),
        patch("index.indexing.reembedding.SEGMENT_ROWS", 8),
        patch("index.storage.local.compaction.SEGMENT_ROWS", 64),
    ):
        store = open_store(Path(folder))
        try:
            for name, value in operations:
                if name == "post" and value is not None:
                    post(store, value, TEXTS[value])
                    posted[value] = TEXTS[value]
                elif name == "delete" and value in posted:
                    store.delete_document(value)
                    del posted[value]
                elif name == "index":
                    Indexer(store, WordEncoder(), partial(embed, tower), threading.Event()).work()
                elif name == "compact":
                    compact(store)
                elif name == "remove":
                    store.remove_deleted()
                elif name == "reopen":
                    store.close()
                    store = Store(
                        Path(folder), dimension=DIMENSIONS[tower], fingerprint=tower, device=torch.device("cpu")
                    )
                elif name == "reembed" and value is not None and value != tower:
                    reembedding(store, value).work()
                elif name == "activate" and value is not None and value != tower:
                    space = store.open_space(fingerprint=value, dimension=DIMENSIONS[value])
                    ready = store.count_by_status()["ready"]
                    complete = store.share_embedded(space) == 1.0
                    assert store.activate(space, {}) == complete
                    tower = value if complete else tower
                    assert store.count_by_status()["ready"] == ready
                found = seen_by(store)
                assert set(found) <= set(posted)
                assert len(found) == store.count_by_status()["ready"]
                for id, vectors in found.items():
                    expected = embed(tower, WordEncoder().action_inputs(posted[id].splitlines()))
                    np.testing.assert_array_equal(vectors, expected)
            index_all(store, partial(embed, tower))
            assert set(seen_by(store)) == set(posted)
        finally:
            store.close()


def test_who_still_uses_the_former_space_finds_it_whole(tmp_path: Path) -> None:
    with closing(open_store(tmp_path)) as store:
        post(store, "a", lines("a", 30))
        index_all(store, partial(embed, "words"))
        post(store, "half", lines("half", 20))
        with patch("index.indexing.indexer.SEGMENT_ROWS", 8):
            Indexer(store, WordEncoder(), partial(embed, "words"), threading.Event()).work()
        former = Catalog(store)
        change(store, "other")
        index_all(store, partial(embed, "other"))
        assert {id: len(rows) for id, rows in seen_by(store).items()} == {"a": 30, "half": 20}
        found = former.scope("default")
        assert [store.documents_at([uid])[uid].id for uid in found.uids.tolist()] == ["a"]
        assert found.scope.rows(np.arange(found.scope.size)).shape == (30, DIMENSIONS["words"])


def test_going_back_embeds_what_came_meanwhile_alone(tmp_path: Path) -> None:
    with closing(open_store(tmp_path)) as store:
        post(store, "a", lines("a", 30))
        index_all(store, partial(embed, "words"))
        change(store, "other")
        post(store, "b", lines("b", 4))
        index_all(store, partial(embed, "other"))
        embedded: list[int] = []

        def noted(inputs: Sequence[Sequence[int]]) -> Float32Array:
            embedded.append(len(inputs))
            return embed("words", inputs)

        space = store.open_space(fingerprint="words", dimension=DIMENSION)
        assert store.share_embedded(space) == pytest.approx(30 / 34)
        work = Reembedding(store, WordEncoder(), noted, threading.Event(), space)
        while work.work():
            pass
        assert store.activate(space, {})
        assert embedded == [4]
        for id, text in (("a", lines("a", 30)), ("b", lines("b", 4))):
            expected = embed("words", WordEncoder().action_inputs(text.splitlines()))
            np.testing.assert_array_equal(searchable(store)[id], expected)


def test_a_third_tower_takes_the_place_of_the_second(tmp_path: Path) -> None:
    with closing(open_store(tmp_path)) as store:
        post(store, "a", lines("a", 30))
        index_all(store, partial(embed, "words"))
        reembedding(store, "other").work()
        files = len(list((tmp_path / "segments").glob("*.faiss")))
        change(store, "third")
        assert {space.fingerprint for space in store.spaces.values()} == {"words", "third"}
        store.remove_deleted()
        assert len(list((tmp_path / "segments").glob("*.faiss"))) == files
        store.forget_other_spaces()
        store.remove_deleted()
        assert len(list((tmp_path / "segments").glob("*.faiss"))) == files - 1


def test_a_tower_that_cannot_read_a_chunk_whole_is_refused(tmp_path: Path) -> None:
    class Short(WordEncoder):
        input_limit = 2

    with closing(open_store(tmp_path)) as store:
        post(store, "a", lines("a", 3))
        index_all(store, partial(embed, "words"))
        space = store.open_space(fingerprint="other", dimension=6)
        work = Reembedding(store, Short(), partial(embed, "other"), threading.Event(), space)
        with pytest.raises(ChunkTooLong, match="Chunk 0 of document 'a' has 3 tokens"):
            work.work()
        assert not store.activate(space, {})


@pytest.mark.parametrize("next_tower", ["other", "third"])
def test_what_is_embedded_while_its_space_is_dropped_is_in_no_later_space(tmp_path: Path, next_tower: str) -> None:
    with closing(open_store(tmp_path)) as store, patch("index.indexing.reembedding.SEGMENT_ROWS", 8):
        post(store, "a", lines("a", 20))
        index_all(store, partial(embed, "words"))
        reembedding(store, "other").work()

        def given_up_meanwhile(inputs: Sequence[Sequence[int]]) -> Float32Array:
            store.forget_other_spaces()
            store.open_space(fingerprint=next_tower, dimension=DIMENSIONS[next_tower])
            return embed("other", inputs)

        space = store.open_space(fingerprint="other", dimension=DIMENSIONS["other"])
        Reembedding(store, WordEncoder(), given_up_meanwhile, threading.Event(), space).work()
        assert store.share_embedded(store.open_space(fingerprint=next_tower, dimension=DIMENSIONS[next_tower])) == 0
        change(store, next_tower)
        expected = embed(next_tower, WordEncoder().action_inputs(lines("a", 20).splitlines()))
        np.testing.assert_array_equal(seen_by(store)["a"], expected)
        store.remove_deleted()
    with closing(
        Store(
            tmp_path,
            dimension=6 if next_tower == "other" else DIMENSION,
            fingerprint=next_tower,
            device=torch.device("cpu"),
        )
    ) as store:
        np.testing.assert_array_equal(seen_by(store)["a"], expected)


def test_what_was_half_indexed_is_cut_as_the_new_tower_reads(tmp_path: Path) -> None:
    class Short(WordEncoder):
        chunk_limit = input_limit = 2

    with closing(open_store(tmp_path)) as store:
        post(store, "half", lines("half", 20))
        with patch("index.indexing.indexer.SEGMENT_ROWS", 8):
            Indexer(store, WordEncoder(), partial(embed, "words"), threading.Event()).work()
        assert store.document("half").status == "indexing"
        change(store, "other")
        Indexer(store, Short(), partial(embed, "other"), threading.Event()).work()
        half = store.document("half")
        assert half.status == "ready"
        assert max(chunk.tokens for _, chunk, _ in store.chunks(half.uid)) == 2


def test_a_directory_of_format_1_can_change_its_tower(tmp_path: Path) -> None:
    with closing(open_store(laid_out(tmp_path, 1))) as store:
        index_all(store, partial(embed, "words"))
        store.delete_document("letter")
        change(store, "other")
        store.remove_deleted()
        assert set(seen_by(store)) == {"late"}


def test_a_directory_of_format_1_that_is_refused_stays_what_it_is(tmp_path: Path) -> None:
    laid_out(tmp_path, 1)
    with pytest.raises(CheckpointMismatch):
        Store(tmp_path, dimension=DIMENSION, fingerprint="other", device=torch.device("cpu"))
    with closing(sqlite3.connect(tmp_path / "qrag.sqlite3")) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (1,)
        assert connection.execute("SELECT COUNT(*) FROM pieces").fetchone() == (2,)


def test_segments_of_different_spaces_are_never_merged(tmp_path: Path) -> None:
    with closing(open_store(tmp_path)) as store:
        work = reembedding(store, "third")
        for number in range(8):
            post(store, f"d{number}", lines(f"d{number}", 2))
            index_all(store, partial(embed, "words"))
            assert work.work()
            if number == 5:  # twelve small segments, six of each space
                assert not compact(store)
        while compact(store):
            pass
        assert len(store.segments) == 2
        for tower in ("words", "third"):
            for id, vectors in seen_by(store).items():
                expected = embed(tower, WordEncoder().action_inputs(lines(id, 2).splitlines()))
                np.testing.assert_array_equal(vectors, expected)
            if tower == "words":
                change(store, "third")
