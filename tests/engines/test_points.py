"""What is written to Qdrant and read back: over its engine, its client's local mode, HTTP, and a live cluster."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import httpx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from qdrant_client import QdrantClient
from qdrant_client.http.exceptions import UnexpectedResponse

from index.arrays import Float32Array
from index.errors import StorageUnavailable
from index.search.function import QFunction
from index.search.positions import Positions
from index.search.scoring import best
from index.search.signals.lexical import Saturation
from index.search.states import States
from index.storage.points import PointDocument
from index.storage.qdrant import layout
from index.storage.qdrant.connection import Calls, Connection
from index.storage.qdrant.points import QdrantPoints
from index.storage.vectors import ChunkAddress, Space
from tests.engines import stored
from tests.engines.edge import EdgeClient
from tests.engines.processes import VectorProcess, vector_process
from tests.index import reference
from tests.index.strategies import random_vectors

pytestmark = pytest.mark.filterwarnings(
    "ignore:Payload indexes have no effect:UserWarning", "ignore:Local mode performs exact:UserWarning"
)

LIVE = os.environ.get("QRAG_TEST_QDRANT_URL")
"""The address of a cluster that the tests may write to, in collections of their own."""

UIDS = itertools.count(1)
NUMBERS = itertools.count(1)
DIMENSION = 8


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VectorProcess]:
    with vector_process(tmp_path_factory.mktemp("vectors")) as started:
        yield started


@pytest.fixture(
    scope="module",
    params=[
        "engine",
        "local mode",
        "http",
        pytest.param("live", marks=pytest.mark.skipif(LIVE is None, reason="QRAG_TEST_QDRANT_URL names no cluster")),
    ],
)
def points(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[QdrantPoints]:
    if request.param == "http":
        started: VectorProcess = request.getfixturevalue("process")
        opened = QdrantPoints(Connection(started.url, prefix="http"))
    elif request.param == "live":
        assert LIVE is not None
        opened = QdrantPoints(Connection(LIVE, os.environ.get("QRAG_TEST_QDRANT_API_KEY"), prefix="qrag-test"))
    else:
        local = request.param == "local mode"
        client = QdrantClient(":memory:") if local else EdgeClient(tmp_path_factory.mktemp("shards"))
        opened = QdrantPoints(Connection("", prefix="test"), client)  # type: ignore[arg-type]
    yield opened
    for number in opened.spaces():
        opened.drop(number)
    opened.close()


@pytest.fixture
def space(points: QdrantPoints) -> Iterator[Space]:
    """An empty space."""
    opened = Space(next(NUMBERS), "tower", DIMENSION)
    points.open(opened)
    yield opened
    points.drop(opened.number)


def two_documents(
    points: QdrantPoints, space: Space, counts: Sequence[int] = (7, 12), *, seed: int = 0
) -> tuple[list[int], Float32Array, list[list[int]]]:
    uids = [next(UIDS) for _ in counts]
    matrix = random_vectors(sum(counts), DIMENSION, seed)
    generator = np.random.default_rng(seed)
    bags = [generator.integers(9, size=generator.integers(12)).tolist() for _ in matrix]
    stored.store(points, space, matrix, bags, uids, counts)
    return uids, matrix, bags


def test_vectors_come_back_to_the_bit(points: QdrantPoints, space: Space) -> None:
    uids, matrix, _ = two_documents(points, space)
    numbers = np.array([3, 0, 11])
    read = points.rows(space, uids[1], numbers)
    assert read is not None
    assert read.dtype == np.float32
    np.testing.assert_array_equal(read, matrix[7 + numbers])
    assert points.rows(space, uids[0], np.array([6, 7])) is None
    scope = stored.scope_of(points, space, uids, [7, 12])
    np.testing.assert_array_equal(scope.rows(np.arange(19)), matrix)


def test_tokens_are_counted_as_in_the_texts(points: QdrantPoints, space: Space) -> None:
    uids, _, bags = two_documents(points, space)
    scope = stored.scope_of(points, space, uids, [7, 12])
    tokens, positions = np.array([8, 0, 4, 50]), np.arange(19)
    expected = [[bags[position].count(token) for position in positions] for token in tokens.tolist()]
    np.testing.assert_array_equal(scope.term_counts(tokens, positions), expected)
    np.testing.assert_array_equal(scope.lengths(positions), [len(bag) for bag in bags])
    of_tokens, chunks, length = scope.frequencies(tokens)
    np.testing.assert_array_equal(of_tokens, (np.array(expected) > 0).sum(axis=1))
    assert (chunks, length) == (19, sum(map(len, bags)))
    assert scope.masked(np.arange(10)).frequencies(tokens).chunks == 19


def test_storing_again_replaces(points: QdrantPoints, space: Space) -> None:
    uid = next(UIDS)
    document, matrix = PointDocument(uid, "shelf", 4), random_vectors(4, DIMENSION, seed=1)
    rows = [ChunkAddress(uid, number) for number in range(4)]
    bags = [[1, 1], [2], [1], [3]]
    # A writer that lost its work stored more than is counted; the next one begins again with fewer rows.
    points.upsert(space, [document], rows[:3], np.zeros((3, DIMENSION), dtype=np.float32), [[7]] * 3)
    points.upsert(space, [document], rows[:2], matrix[:2], bags[:2])
    points.upsert(space, [document], rows[2:], matrix[2:], bags[2:])
    scope = stored.scope_of(points, space, [uid], [4])
    np.testing.assert_array_equal(scope.rows(np.arange(4)), matrix)
    np.testing.assert_array_equal(scope.frequencies(np.array([1, 7])).of_tokens, [2, 0])
    # It writes late what it had begun: the same, in a stretch of another length.
    points.upsert(space, [document], rows[:3], matrix[:3], bags[:3])
    again = QdrantPoints(Connection("", prefix=points._connection.prefix), points.calls.client)
    frequencies = stored.scope_of(again, space, [uid], [4]).frequencies(np.array([1, 2, 3]))
    np.testing.assert_array_equal(frequencies.of_tokens, [2, 1, 1])
    assert frequencies.length == 5


def test_deleted_documents_are_gone_from_every_space(points: QdrantPoints, space: Space) -> None:
    uids, matrix, _ = two_documents(points, space)
    other = Space(next(NUMBERS), "another tower", DIMENSION)
    points.open(other)
    assert set(points.spaces()) >= {space.number, other.number}
    stored.store(points, other, matrix, [], uids, [7, 12])
    points.delete([uids[0]])
    for where in (space, other):
        assert points.rows(where, uids[0], np.array([0])) is None
        assert points.rows(where, uids[1], np.array([0])) is not None
    points.delete([])
    points.drop(other.number)
    points.drop(other.number)
    assert other.number not in points.spaces()


def test_a_scope_of_removed_chunks_says_so(points: QdrantPoints, space: Space) -> None:
    uids, _, _ = two_documents(points, space)
    scope = stored.scope_of(points, space, uids, [7, 12])
    points.delete([uids[0]])
    with pytest.raises(StorageUnavailable, match="ask again"):
        scope.rows(np.arange(19))


def test_a_search_sees_nothing_but_its_documents(points: QdrantPoints, space: Space) -> None:
    query = random_vectors(1, DIMENSION, seed=5)[0]
    before, mine, between, later = ([next(UIDS)] for _ in range(4))
    for uids, collection in ((before, "shelf"), (mine, "shelf"), (between, "another"), (later, "shelf")):
        matrix = query[None] if uids is not mine else -query[None]
        stored.store(points, space, matrix, [[1]], uids, [1], collection=collection)
    for hidden in (before, None):
        scope = points.scope(space, stored.membership(mine, [1], hidden))
        assert [position for position, _ in scope.nearest(query, 5)] == [0]
        (estimate,) = scope.estimate(States(query[None]), [[]], QFunction(1.0, 0.0, Positions()))
        assert estimate.positions is not None
        assert estimate.positions.tolist() == [0]
        assert scope.frequencies(np.array([1])).of_tokens.tolist() == [1]


@pytest.mark.parametrize("masked", [[], [0, 5, 6, 7, 18]])
def test_the_nearest_are_in_order(points: QdrantPoints, space: Space, masked: list[int]) -> None:
    uids, matrix, _ = two_documents(points, space)
    query = random_vectors(1, DIMENSION, seed=9)[0]
    scope = stored.scope_of(points, space, uids, [7, 12]).masked(np.array(masked, dtype=np.int64))
    products = matrix.astype(np.float64) @ query
    products[masked] = -np.inf
    found = scope.nearest(query, 6)
    np.testing.assert_allclose([q for _, q in found], np.sort(products)[::-1][:6], atol=1e-5)
    np.testing.assert_allclose([products[position] for position, _ in found], [q for _, q in found], atol=1e-5)
    assert scope.masked(np.arange(19)).nearest(query, 3) == []


def test_steps_with_positions_are_the_same_everywhere(points: QdrantPoints, space: Space) -> None:
    uids, matrix, _ = two_documents(points, space, [40, 9, 30])
    function = QFunction(1.5, -0.25, Positions(levels=4))
    states = States(random_vectors(3, DIMENSION, seed=4))
    selections = [[], [3, 41], [0, 39, 60]]
    scope = stored.scope_of(points, space, uids, [40, 9, 30])
    calls = points.calls.counts["search"]
    estimates = scope.estimate(states, selections, function, 3)
    assert points.calls.counts["search"] == calls + 1, "all states are asked about by one call"
    for state, selected, estimate in zip(states, selections, estimates, strict=True):
        assert estimate.exact
        expected = reference.q(state, matrix, [40, 9, 30], selected, function)
        for position, q in best(estimate, 3, state, scope, selected, function):
            assert q == pytest.approx(expected[position], abs=1e-9)
            assert (expected > q + 1e-9).sum() < 3


# -- a process that dies ----------------------------------------------------------------------------------------------


def test_what_was_acknowledged_survives_a_kill(tmp_path: Path) -> None:
    space, query = Space(1, "tower", DIMENSION), random_vectors(1, DIMENSION, seed=3)[0]
    with vector_process(tmp_path) as process:
        points = QdrantPoints(Connection(process.url))
        points.open(space)
        uids, matrix, _ = two_documents(points, space)
        scope = stored.scope_of(points, space, uids, [7, 12])
        nearest = scope.nearest(query, 19)
        process.kill()
        for call in (
            lambda: scope.nearest(query, 19),
            lambda: points.delete(uids),
            lambda: stored.store(points, space, matrix, [], uids, [7, 12]),
        ):
            with pytest.raises(StorageUnavailable, match="Qdrant"):
                call()
        process.start()
        assert scope.nearest(query, 19) == nearest
        read = points.rows(space, uids[1], np.arange(12))
        np.testing.assert_array_equal(read, matrix[7:])

        points.drop(space.number)
        assert points.rows(space, uids[1], np.arange(12)) is None
        stored.store(points, space, matrix, [], uids, [7, 12])  # late work for it
        assert points.spaces() == []
        with pytest.raises(StorageUnavailable, match="ask again"):
            scope.nearest(query, 19)
        points.close()


@pytest.mark.parametrize(("status", "tries"), [(503, 2), (429, 2), (401, 1), (400, 1)])
def test_what_may_pass_is_tried_again(status: int, tries: int) -> None:
    answers = iter([UnexpectedResponse(status, "no", b"not now", httpx.Headers()), None])
    made = []

    def call(client: QdrantClient, seconds: int) -> str:  # noqa: ARG001
        made.append(seconds)
        if (error := next(answers)) is not None:
            raise error
        return "an answer"

    calls = Calls(QdrantClient(":memory:"))
    if tries == 2:
        assert calls.make("read", call) == "an answer"
    else:
        with pytest.raises(StorageUnavailable, match=f"status {status}: not now"):
            calls.make("read", call)
    assert len(made) == tries
    assert calls.counts == {"read": 1}
    calls.client.close()


# -- what is stored of a bag ------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=300)
@given(st.lists(st.integers(0, 5), max_size=300), st.integers(0, 400))
def test_a_bag_comes_back_from_its_weights(tokens: list[int], repeated: int) -> None:
    bag = layout.bag_of([*tokens, *[7] * repeated])
    read = layout.read_bag(layout.sparse_vector(bag), bag.length)
    np.testing.assert_array_equal(read.tokens, bag.tokens)
    np.testing.assert_array_equal(read.counts, bag.counts)


@settings(deadline=None, max_examples=300)
@given(
    st.floats(0.1, 3), st.floats(0, 1), st.floats(1, 500), st.integers(1, 255), st.integers(1, 600), st.integers(0, 600)
)
def test_the_ratio_of_weights_is_bounded(
    k1: float, b: float, mean_length: float, count: int, length: int, further: int
) -> None:
    saturation = Saturation(k1=k1, b=b, mean_length=mean_length)
    weight, kept = (float(one.weight(np.array(count), np.array(length))) for one in (saturation, layout.STORED))
    bands = layout.bands(saturation, length + further)
    assert [band.shortest for band in bands] == [1, *(band.longest + 1 for band in bands[:-1])]
    assert bands[-1].longest == length + further
    (ratio,) = (band.ratio for band in bands if band.shortest <= length <= band.longest)
    assert weight <= kept * ratio * (1 + 1e-12)
