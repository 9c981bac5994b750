"""Preselected scopes: what the index finds is compared exactly, and all that it cannot know of is read."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import closing
from pathlib import Path
from queue import Empty
from typing import Literal
from unittest.mock import Mock

import numpy as np
import pytest

from index.errors import UnknownCollection
from index.indexing.indexer import Indexer
from index.search import preselection
from index.search.function import QFunction
from index.search.positions import Positions
from index.search.scope import Candidate
from index.search.scoring import best
from index.search.states import State, States
from index.storage.local import scopes as catalogs
from index.storage.local.compaction import compact
from index.storage.local.scopes import Catalog, SearchScope
from index.storage.local.store import Store
from tests.index.stores import DIMENSION, WordEncoder, lines, open_store, post
from tests.index.strategies import Float32, random_vectors

LIMIT = 60
POSITIONS = Positions(levels=18)
COUNTS = {"a": 7, "b": 30, "long": 50, "c": 1, "d": 45, "e": 12}


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    for module in (catalogs, preselection):
        monkeypatch.setattr(module, "LONG_DOCUMENT", 50)
    with closing(open_store(tmp_path)) as store:
        for id, count in COUNTS.items():
            add(store, id, count)
        yield store


@pytest.fixture
def catalog(store: Store) -> Catalog:
    found = Catalog(store, preselect_above=LIMIT)
    found.scope("default")
    assert found.too_large.get_nowait() == "default"
    found.preselect("default", POSITIONS, lambda: False)
    return found


def add(store: Store, id: str, count: int, *, spread: float = 1.0) -> None:
    post(store, id, lines(id, count))
    generator = np.random.default_rng(list(id.encode()))

    def embed(inputs: Sequence[Sequence[int]]) -> Float32:
        vectors = random_vectors(len(inputs), DIMENSION, int(generator.integers(2**32)))
        return vectors if spread == 1 else vectors[:1] + np.float32(spread) * vectors

    indexer = Indexer(store, WordEncoder(), embed, threading.Event())
    while indexer.work():
        pass


def asked_again(catalog: Catalog) -> bool:
    try:
        return catalog.too_large.get_nowait() == "default"
    except Empty:
        return False


def ranking(
    state: Float32, found: SearchScope, selected: list[int], function: QFunction, count: int
) -> list[Candidate]:
    (estimated,) = found.scope.estimate(States(state[None]), [selected], function)
    return best(estimated, count, State(state), found.scope, selected, function)


def check(
    store: Store,
    catalog: Catalog,
    *,
    w: float = 1.5,
    mode: Literal["relative", "absolute", "none"] = "relative",
    count: int = 5,
) -> None:
    """Every step of some episodes is that of an exact search, whatever is selected."""
    function = QFunction(w, -0.25, POSITIONS.model_copy(update={"mode": mode}))
    found, exact = catalog.scope("default"), Catalog(store).scope("default")
    assert found.scope.preselected is not None
    assert exact.scope.preselected is None
    np.testing.assert_array_equal(found.uids, exact.uids)
    generator = np.random.default_rng(5)
    for state in random_vectors(40, DIMENSION, seed=3):
        for taken in (0, 1, 4):
            selected = sorted(generator.choice(found.scope.size, taken, replace=False).tolist())
            expected = ranking(state, exact, selected, function, count)
            assert ranking(state, found, selected, function, count) == expected


@pytest.mark.parametrize("w", [1.5, -1.5])
def test_the_best_are_those_of_an_exact_search(w: float, store: Store, catalog: Catalog) -> None:
    check(store, catalog, w=w)


@pytest.mark.parametrize("mode", ["none", "absolute"])
def test_positions_of_any_kind(mode: Literal["none", "absolute"], store: Store) -> None:
    catalog = Catalog(store, preselect_above=LIMIT)
    catalog.preselect("default", POSITIONS.model_copy(update={"mode": mode}), lambda: False)
    check(store, catalog, mode=mode)


def test_few_candidates_are_found_among_many(store: Store, catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preselection, "FOUND", 5)
    check(store, catalog, count=1)
    scope = catalog.scope("default").scope
    (found,) = scope.estimate(States(random_vectors(1, DIMENSION, seed=1)), [[]], QFunction(1.0, 0.0, POSITIONS))
    assert len(found.values) == 5 + COUNTS["long"] < scope.size


def test_what_came_and_went_since_is_seen(store: Store, catalog: Catalog) -> None:
    add(store, "new", 9)
    store.delete_document("c")
    store.delete_document("e")
    check(store, catalog)
    while store.remove_deleted() or compact(store):
        pass
    check(store, catalog)
    assert not asked_again(catalog)


def test_a_stale_index_is_built_again(store: Store, catalog: Catalog) -> None:
    for number in range(3):
        add(store, f"new-{number}", 9)
    check(store, catalog)
    assert asked_again(catalog)
    catalog.scope("default")
    assert not asked_again(catalog)  # once is enough
    catalog.preselect("default", POSITIONS, lambda: False)
    check(store, catalog)
    assert not asked_again(catalog)


def test_whatever_is_narrowed_down_and_whatever_is_small_is_exact(store: Store, catalog: Catalog) -> None:
    assert catalog.scope("default", list(COUNTS)).scope.preselected is None
    store.delete_document("d")
    store.delete_document("b")
    store.delete_document("long")
    assert catalog.scope("default").scope.preselected is None


def test_an_index_goes_with_its_collection(store: Store, catalog: Catalog) -> None:
    index = weakref.ref(catalog._neighbours["default"].index)
    store.delete_collection("default")
    catalog.drop_unused()
    gc.collect()
    assert index() is None


@pytest.mark.parametrize("way", ["visited", "deleted"])
def test_deleted_and_visited_documents_take_nobodys_place(
    way: str, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preselection, "FOUND", 3)
    store.delete_document("long")  # it would be read, and so hide what is missing
    add(store, "topic", 20, spread=0.01)  # all that is nearest to one of its chunks is its own
    catalog, function = Catalog(store, preselect_above=LIMIT), QFunction(1.0, 0.0, Positions(mode="none"))
    catalog.preselect("default", function.positions, lambda: False)
    found = catalog.scope("default")
    document = found.uids.tolist().index(store.document("topic").uid)
    selected = list(range(*found.scope.offsets[document : document + 2].tolist()))
    state = found.scope.rows(np.array(selected[:1]))[0]
    if way == "deleted":
        store.delete_document("topic")
        found, selected = catalog.scope("default"), []
    assert found.scope.preselected is not None
    (expected,) = ranking(state, Catalog(store).scope("default"), selected, function, 1)
    assert ranking(state, found, selected, function, 1) == [expected]


def test_long_documents_alone_need_no_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (catalogs, preselection):
        monkeypatch.setattr(module, "LONG_DOCUMENT", 50)
    with closing(open_store(tmp_path)) as store:
        add(store, "one", 70)
        add(store, "two", 50)
        catalog = Catalog(store, preselect_above=LIMIT)
        assert catalog.scope("default").scope.preselected is None
        assert not asked_again(catalog)


def test_a_build_ends_when_its_collection_goes(store: Store) -> None:
    catalog = Catalog(store, preselect_above=LIMIT)

    def delete_then_go_on() -> bool:
        if store.collections():
            store.delete_collection("default")
        return False

    with pytest.raises(CancelledError):
        catalog.preselect("default", POSITIONS, delete_then_go_on)


def test_a_build_that_failed_is_not_asked_for_again(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    catalog = Catalog(store, preselect_above=LIMIT)
    catalog.scope("default")
    assert asked_again(catalog)
    monkeypatch.setattr(catalogs, "build_neighbours", Mock(side_effect=MemoryError))
    with pytest.raises(MemoryError):
        catalog.preselect("default", POSITIONS, lambda: False)
    add(store, "new", 3)
    assert catalog.scope("default").scope.preselected is None
    assert not asked_again(catalog)


def test_nothing_is_built_for_a_collection_that_is_gone_or_after_a_stop(store: Store) -> None:
    catalog = Catalog(store, preselect_above=LIMIT)
    with pytest.raises(CancelledError):
        catalog.preselect("default", POSITIONS, lambda: True)
    assert catalog.scope("default").scope.preselected is None
    assert asked_again(catalog)
    store.delete_collection("default")
    with pytest.raises(UnknownCollection):
        catalog.preselect("default", POSITIONS, lambda: False)
