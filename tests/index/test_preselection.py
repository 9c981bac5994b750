"""Preselected scopes: what the index finds is compared exactly, and all that it cannot know of is read."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from queue import Empty
from typing import Literal
from unittest.mock import Mock

import numpy as np
import pytest

from index.errors import UnknownCollection
from index.indexing.indexer import Indexer
from index.search import matrix_scope as matrix_scope_module
from index.search import preselection
from index.search.function import QFunction
from index.search.positions import Positions
from index.search.scope import Candidate
from index.search.scoring import best
from index.search.states import State, States
from index.search.turning import Turning
from index.storage.local import scopes as local_scopes
from index.storage.local.opening import LocalStorage
from index.storage.local.scopes import LocalScopes
from index.storage.vectors import SearchScope
from tests.index.storages import DIMENSION, WordEncoder, lines, matrix_scope, open_local, post
from tests.index.strategies import Float32, random_vectors

LIMIT = 60
POSITIONS = Positions(levels=18)
COUNTS = {"a": 7, "b": 30, "long": 50, "c": 1, "d": 45, "e": 12}


@pytest.fixture
def storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalStorage]:
    for module in (local_scopes, preselection):
        monkeypatch.setattr(module, "LONG_DOCUMENT", 50)
    with closing(open_local(tmp_path)) as storage:
        for id, count in COUNTS.items():
            add(storage, id, count)
        yield storage


@pytest.fixture
def scopes(storage: LocalStorage) -> LocalScopes:
    scopes = storage.vectors.scopes(preselect_above=LIMIT)
    assert matrix_scope(scopes.scope("default")).preselected is None  # and it asks for an index
    scopes.preselect(Turning(POSITIONS), lambda: False, seconds=60)
    assert matrix_scope(scopes.scope("default")).preselected is not None
    return scopes


def add(storage: LocalStorage, id: str, count: int, *, spread: float = 1.0) -> None:
    post(storage, id, lines(id, count))
    generator = np.random.default_rng(list(id.encode()))

    def embed(inputs: Sequence[Sequence[int]]) -> Float32:
        vectors = random_vectors(len(inputs), DIMENSION, int(generator.integers(2**32)))
        return vectors if spread == 1 else vectors[:1] + np.float32(spread) * vectors

    indexer = Indexer(storage, WordEncoder(), embed, threading.Event())
    while indexer.work():
        pass


def asked_again(scopes: LocalScopes) -> bool:
    try:
        return scopes.too_large.get_nowait() == "default"
    except Empty:
        return False


def ranking(
    state: Float32, found: SearchScope, selected: list[int], function: QFunction, count: int
) -> list[Candidate]:
    (estimated,) = found.scope.estimate(States(state[None]), [selected], function)
    return best(estimated, count, State(state), found.scope, selected, function)


def check(
    storage: LocalStorage,
    scopes: LocalScopes,
    *,
    w: float = 1.5,
    mode: Literal["relative", "absolute", "none"] = "relative",
    count: int = 5,
) -> None:
    """Every step of some episodes is that of an exact search, whatever is selected."""
    function = QFunction(w, -0.25, POSITIONS.model_copy(update={"mode": mode}))
    found, exact = scopes.scope("default"), storage.vectors.scopes().scope("default")
    assert matrix_scope(found).preselected is not None
    assert matrix_scope(exact).preselected is None
    np.testing.assert_array_equal(found.uids, exact.uids)
    generator = np.random.default_rng(5)
    for state in random_vectors(40, DIMENSION, seed=3):
        for taken in (0, 1, 4):
            selected = sorted(generator.choice(found.scope.size, taken, replace=False).tolist())
            expected = ranking(state, exact, selected, function, count)
            assert ranking(state, found, selected, function, count) == expected


@pytest.mark.parametrize("w", [1.5, -1.5])
def test_the_best_are_those_of_an_exact_search(w: float, storage: LocalStorage, scopes: LocalScopes) -> None:
    check(storage, scopes, w=w)


def test_where_most_is_masked_the_admissible_are_found(
    storage: LocalStorage, scopes: LocalScopes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The index knows nothing of a mask: it would name masked candidates alone."""
    monkeypatch.setattr(matrix_scope_module, "MASKED", 4)
    function = QFunction(1.5, -0.25, POSITIONS)
    found, exact = scopes.scope("default"), storage.vectors.scopes().scope("default")
    hidden = np.setdiff1d(np.arange(found.scope.size), [3, 17, 80, 81, 140])
    for state in random_vectors(20, DIMENSION, seed=4):
        for excluded in (hidden[:3], hidden):
            for selected in ([], [17]):
                rankings = [
                    ranking(state, replace(one, scope=one.scope.masked(excluded)), selected, function, 3)
                    for one in (found, exact)
                ]
                assert rankings[0] == rankings[1]
                assert len(rankings[0]) == 3


@pytest.mark.parametrize("mode", ["none", "absolute"])
def test_positions_of_any_kind(mode: Literal["none", "absolute"], storage: LocalStorage) -> None:
    scopes = storage.vectors.scopes(preselect_above=LIMIT)
    scopes.build_index("default", Turning(POSITIONS.model_copy(update={"mode": mode})), lambda: False)
    check(storage, scopes, mode=mode)


def test_few_candidates_are_found_among_many(
    storage: LocalStorage, scopes: LocalScopes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preselection, "FOUND", 5)
    check(storage, scopes, count=1)
    scope = scopes.scope("default").scope
    (found,) = scope.estimate(States(random_vectors(1, DIMENSION, seed=1)), [[]], QFunction(1.0, 0.0, POSITIONS))
    assert len(found.values) == 5 + COUNTS["long"] < scope.size


def test_excluded_chunks_take_nobodys_place(storage: LocalStorage, scopes: LocalScopes) -> None:
    """However many of the nearest are left out, the best of the others come."""
    function = QFunction(1.5, -0.25, POSITIONS)
    state = random_vectors(1, DIMENSION, seed=3)[0]
    exact = storage.vectors.scopes().scope("default")
    order = [candidate.position for candidate in ranking(state, exact, [], function, exact.scope.size)]
    nearest = np.array(order[:100])
    found = replace(scopes.scope("default"), scope=scopes.scope("default").scope.masked(nearest))
    assert matrix_scope(found).preselected is not None
    assert [candidate.position for candidate in ranking(state, found, [], function, 5)] == order[100:105]


def test_what_came_and_went_since_is_seen(storage: LocalStorage, scopes: LocalScopes) -> None:
    add(storage, "new", 9)
    storage.catalogue.delete_document("c")
    storage.catalogue.delete_document("e")
    check(storage, scopes)
    while storage.reclaim_space() or storage.maintain():
        pass
    check(storage, scopes)
    assert not asked_again(scopes)


def test_a_stale_index_is_built_again(storage: LocalStorage, scopes: LocalScopes) -> None:
    for number in range(3):
        add(storage, f"new-{number}", 9)
    check(storage, scopes)
    assert asked_again(scopes)
    scopes.scope("default")
    assert not asked_again(scopes)  # once is enough
    scopes.build_index("default", Turning(POSITIONS), lambda: False)
    check(storage, scopes)
    assert not asked_again(scopes)


def test_whatever_is_narrowed_down_and_whatever_is_small_is_exact(storage: LocalStorage, scopes: LocalScopes) -> None:
    assert matrix_scope(scopes.scope("default", list(COUNTS))).preselected is None
    storage.catalogue.delete_document("d")
    storage.catalogue.delete_document("b")
    storage.catalogue.delete_document("long")
    assert matrix_scope(scopes.scope("default")).preselected is None


def test_an_index_goes_with_its_collection(storage: LocalStorage, scopes: LocalScopes) -> None:
    index = weakref.ref(scopes._neighbours["default"].index)
    storage.catalogue.delete_collection("default")
    scopes.drop_unused()
    gc.collect()
    assert index() is None


@pytest.mark.parametrize("way", ["visited", "deleted"])
def test_deleted_and_visited_documents_take_nobodys_place(
    way: str, storage: LocalStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preselection, "FOUND", 3)
    storage.catalogue.delete_document("long")  # it would be read, and so hide what is missing
    add(storage, "topic", 20, spread=0.01)  # all that is nearest to one of its chunks is its own
    scopes, function = storage.vectors.scopes(preselect_above=LIMIT), QFunction(1.0, 0.0, Positions(mode="none"))
    scopes.build_index("default", function.turning, lambda: False)
    found = scopes.scope("default")
    document = found.uids.tolist().index(storage.catalogue.document("topic").uid)
    selected = list(range(*found.scope.offsets[document : document + 2].tolist()))
    state = found.scope.rows(np.array(selected[:1]))[0]
    if way == "deleted":
        storage.catalogue.delete_document("topic")
        found, selected = scopes.scope("default"), []
    assert matrix_scope(found).preselected is not None
    (expected,) = ranking(state, storage.vectors.scopes().scope("default"), selected, function, 1)
    assert ranking(state, found, selected, function, 1) == [expected]


def test_long_documents_alone_need_no_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (local_scopes, preselection):
        monkeypatch.setattr(module, "LONG_DOCUMENT", 50)
    with closing(open_local(tmp_path)) as storage:
        add(storage, "one", 70)
        add(storage, "two", 50)
        scopes = storage.vectors.scopes(preselect_above=LIMIT)
        assert matrix_scope(scopes.scope("default")).preselected is None
        assert not asked_again(scopes)


def test_a_build_ends_when_its_collection_goes(storage: LocalStorage) -> None:
    scopes = storage.vectors.scopes(preselect_above=LIMIT)

    def delete_then_go_on() -> bool:
        if storage.catalogue.collections():
            storage.catalogue.delete_collection("default")
        return False

    with pytest.raises(CancelledError):
        scopes.build_index("default", Turning(POSITIONS), delete_then_go_on)


def test_a_build_that_failed_is_not_asked_for_again(storage: LocalStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    scopes = storage.vectors.scopes(preselect_above=LIMIT)
    scopes.scope("default")
    assert asked_again(scopes)
    monkeypatch.setattr(local_scopes, "build_neighbours", Mock(side_effect=MemoryError))
    with pytest.raises(MemoryError):
        scopes.build_index("default", Turning(POSITIONS), lambda: False)
    add(storage, "new", 3)
    assert matrix_scope(scopes.scope("default")).preselected is None
    assert not asked_again(scopes)


def test_who_waits_for_large_collections_is_woken_by_closing_and_drops_what_is_gone(
    storage: LocalStorage, scopes: LocalScopes
) -> None:
    index = weakref.ref(scopes._neighbours["default"].index)
    storage.catalogue.delete_collection("default")
    scopes.preselect(Turning(POSITIONS), lambda: False, seconds=0)
    gc.collect()
    assert index() is None
    waiting = threading.Thread(target=scopes.preselect, args=(Turning(POSITIONS), lambda: False, 600))
    waiting.start()
    scopes.close()
    waiting.join(60)
    assert not waiting.is_alive()
    scopes.close()
    scopes.preselect(Turning(POSITIONS), lambda: False, seconds=600)


def test_a_build_that_is_given_up_or_fails_is_no_error_or_one_that_names_the_collection(
    storage: LocalStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    scopes = storage.vectors.scopes(preselect_above=LIMIT)
    scopes.scope("default")
    scopes.preselect(Turning(POSITIONS), lambda: True, seconds=60)
    assert matrix_scope(scopes.scope("default")).preselected is None
    monkeypatch.setattr(local_scopes, "build_neighbours", Mock(side_effect=MemoryError))
    add(storage, "new", 3)
    scopes.scope("default")
    with pytest.raises(MemoryError) as raised:
        scopes.preselect(Turning(POSITIONS), lambda: False, seconds=60)
    assert raised.value.__notes__ == ["collection=default"]


def test_nothing_is_built_for_a_collection_that_is_gone_or_after_a_stop(storage: LocalStorage) -> None:
    scopes = storage.vectors.scopes(preselect_above=LIMIT)
    with pytest.raises(CancelledError):
        scopes.build_index("default", Turning(POSITIONS), lambda: True)
    assert matrix_scope(scopes.scope("default")).preselected is None
    assert asked_again(scopes)
    storage.catalogue.delete_collection("default")
    with pytest.raises(UnknownCollection):
        scopes.build_index("default", Turning(POSITIONS), lambda: False)
