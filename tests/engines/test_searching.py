"""What Qdrant's own engine finds is what float64 over all chunks finds, and it is asked once as a rule."""

from __future__ import annotations

import itertools
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from index.arrays import Float32Array, Float64Array, IntArray
from index.episodes.episode import ChunkTokens, Episode, Limits
from index.search.function import QFunction
from index.search.matrix_scope import MatrixScope
from index.search.positions import Positions
from index.search.scanning.matrices import Matrices, Part
from index.search.scope import Candidate, Scope
from index.search.scoring import best, exact_q
from index.search.signals.lexical import PRIOR_CHUNKS, Lexical, Saturation
from index.search.states import State, TermWeights
from index.storage.qdrant.connection import Connection, Kind
from index.storage.qdrant.points import QdrantPoints
from index.storage.vectors import Space
from tests.engines import stored
from tests.engines.edge import EdgeClient
from tests.index import reference, strategies
from tests.index.stepping import take_step
from tests.index.strategies import Case, side_by_side

UIDS = itertools.count(1)

Bags = list[list[int]]


class Searched(NamedTuple):
    """What a step has found, and Q of all chunks."""

    exact: bool
    calls: Counter[Kind]
    chosen: Candidate
    q: Float64Array


@pytest.fixture(scope="module")
def points() -> Iterator[QdrantPoints]:
    """A space for each dimension; documents of all examples stay in it, each with a uid of its own."""
    with tempfile.TemporaryDirectory() as directory:
        client = EdgeClient(Path(directory))
        opened = QdrantPoints(Connection("", prefix="test"), client)  # type: ignore[arg-type]
        for dimension in range(2, 17, 2):
            opened.open(Space(dimension, "tower", dimension))
        yield opened
        client.close()


def calls_of_a_step(points: QdrantPoints, scope: Scope) -> Counter[Kind]:
    """The calls so far, once what is read of a scope for all of its steps is there."""
    scope.frequencies(np.array([0]))
    return points.calls.counts.copy()


@settings(deadline=None, max_examples=100)
@given(strategies.cases(signals=True), st.integers(1, 8), st.data())
def test_the_best_is_the_references(points: QdrantPoints, case: Case, count: int, data: st.DataObject) -> None:
    space = Space(len(case.state), "tower", len(case.state))
    counts = np.diff(case.scope.offsets).tolist()
    uids = [next(UIDS) for _ in counts]
    collection = str(uids[0])
    stored.store(points, space, stored.matrix_of(case.scope), case.bags, uids, counts, collection=collection)
    hidden = data.draw(st.sampled_from([(), None]))
    scope = points.scope(space, stored.membership(uids, counts, hidden, collection=collection))
    excluded = data.draw(st.one_of(st.just([]), strategies.selections(case.scope.size)))
    if excluded:
        scope = scope.masked(np.array(excluded))
    expected = reference.q_of(case.whole, case.scope, case.selected, case.function, case.bags)
    expected[excluded] = -np.inf

    before = calls_of_a_step(points, scope)
    (estimate,) = scope.estimate(side_by_side([case.whole]), [case.selected], case.function, count)
    assert (points.calls.counts - before).total() <= 3
    assert estimate.exact
    chosen = best(estimate, count, case.whole, scope, case.selected, case.function)
    ranking = reference.ranking(expected)[:count]
    tolerance = 1e-9 * max(case.scale, 1)
    assert len(chosen) == len(ranking)
    np.testing.assert_allclose([q for _, q in chosen], expected[ranking], rtol=0, atol=tolerance)
    for candidate, position in zip(chosen, ranking, strict=True):
        assert candidate.position == position or abs(expected[candidate.position] - expected[position]) <= tolerance


CHUNKS = 3000


def opposed(counts: IntArray, lengths: IntArray, scale: float) -> tuple[Float32Array, Bags, QFunction, State]:
    """Chunks whose inner product is the smaller the more tokens add; one has a little more."""
    saturation = Saturation(mean_length=float(lengths.mean()))
    function = QFunction(
        1.0, 0.0, Positions(mode="none"), further=(Lexical(1.0, np.ones(2, dtype=np.float32), saturation),)
    )
    products = 3.0 - scale * saturation.weight(counts, lengths)
    products[CHUNKS // 2 + 120] += 0.05
    matrix = np.stack((products, np.zeros(CHUNKS)), axis=1).astype(np.float32)
    rarity = PRIOR_CHUNKS / (PRIOR_CHUNKS + CHUNKS)  # every chunk has the token: only the checkpoint calls it rare
    terms = TermWeights(np.array([1]), np.array([1 / rarity], dtype=np.float32))
    bags = [
        [1] * count + [0] * (length - count) for count, length in zip(counts.tolist(), lengths.tolist(), strict=True)
    ]
    return matrix, bags, function, State(np.eye(2, dtype=np.float32)[0], terms)


def searched(points: QdrantPoints, matrix: Float32Array, bags: Bags, function: QFunction, state: State) -> Searched:
    uids = [next(UIDS)]
    space = Space(2, "tower", 2)
    stored.store(points, space, matrix, bags, uids, [CHUNKS])
    scope = stored.scope_of(points, space, uids, [CHUNKS])
    before = calls_of_a_step(points, scope)
    (estimate,) = scope.estimate(side_by_side([state]), [[]], function)
    calls = points.calls.counts - before
    (chosen,) = best(estimate, 1, state, scope, [], function)
    return Searched(estimate.exact, calls, chosen, exact_q(state, scope, [], function, np.arange(CHUNKS)))


@pytest.mark.parametrize("scale", [0.0, 0.2])
def test_longer_lists_make_the_best_certain(points: QdrantPoints, scale: float) -> None:
    lengths = np.arange(CHUNKS) % 500 + 1
    found = searched(points, *opposed(np.ones(CHUNKS, dtype=np.int64), lengths, scale))
    assert found.exact
    assert found.calls.total() <= 3
    assert (found.calls["search"] > 1) == (scale > 0)
    assert found.chosen == (int(found.q.argmax()), found.q.max())


def test_a_state_is_scored_whatever_is_read_for_another_one(points: QdrantPoints) -> None:
    """The lists of the second suffice at once, those of the first do not; what the second reads, the first has."""
    lengths = np.arange(CHUNKS) % 500 + 1
    matrix, bags, function, state = opposed(np.ones(CHUNKS, dtype=np.int64), lengths, 0.2)
    nothing = TermWeights(np.empty(0, dtype=np.int64), np.empty(0, dtype=np.float32))
    matrix[1200:1300, 1] = np.linspace(1, 2, 100)
    states = [state, State(np.eye(2, dtype=np.float32)[1], nothing)]
    uids = [next(UIDS)]
    stored.store(points, Space(2, "tower", 2), matrix, bags, uids, [CHUNKS])
    scope = stored.scope_of(points, Space(2, "tower", 2), uids, [CHUNKS])
    before = calls_of_a_step(points, scope)
    selections = [list(range(1200, 1300)), []]
    estimates = scope.estimate(side_by_side(states), selections, function)
    assert (points.calls.counts - before).total() <= 3
    for each, selected, estimate in zip(states, selections, estimates, strict=True):
        (chosen,) = best(estimate, 1, each, scope, selected, function)
        q = exact_q(each, scope, selected, function, np.arange(CHUNKS))
        q[selected] = -np.inf
        assert chosen.q == pytest.approx(q[chosen.position], abs=1e-9)
        assert not estimate.exact or chosen.q == q.max()


def test_the_first_lists_grow_with_the_scope(points: QdrantPoints) -> None:
    """With lists of 64, of 400,000 chunks no step was certain after one search (``benchmarks.engines``)."""
    sizes = (20, 30_000, 400_000)
    scopes = [points.scope(Space(2, "tower", 2), stored.membership([1], [size], None)) for size in sizes]
    assert [scope.read_size for scope in scopes] == [20, 128, 1562]


def test_what_three_calls_leave_open_is_said(points: QdrantPoints) -> None:
    lengths = np.full(CHUNKS, 260)
    found = searched(points, *opposed(np.arange(CHUNKS) % 255 + 1, lengths, 1.0))
    assert not found.exact
    assert found.calls.total() == 3
    assert found.chosen.q == pytest.approx(found.q[found.chosen.position], abs=1e-9)
    assert found.chosen.q >= 2.9, "one of those on the lists"


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**32 - 1), st.floats(0.05, 3.0), st.integers(1, 20))
def test_what_is_called_exact_is_exact(points: QdrantPoints, seed: int, weight: float, count: int) -> None:
    generator = np.random.default_rng(seed)
    sizes = [700, 1, 299]
    matrix = strategies.random_vectors(1000, 16, seed)
    bags = [generator.zipf(1.5, generator.integers(1, 40)).clip(max=50).tolist() for _ in matrix]
    rarity = generator.random(51).astype(np.float32)
    function = QFunction(1.0, 0.1, Positions(levels=5), further=(Lexical(weight, rarity, Saturation()),))
    terms = TermWeights(np.array([2, 5, 9, 30]), generator.random(4).astype(np.float32))
    state = State(strategies.random_vectors(1, 16, seed + 1)[0], terms, None, float(generator.choice([0.0, 0.3])))
    selected = sorted(generator.choice(1000, 3, replace=False).tolist())
    excluded = np.setdiff1d(generator.choice(1000, 100, replace=False), [])
    uids = [next(UIDS) for _ in sizes]
    space = Space(16, "tower", 16)
    stored.store(points, space, matrix, bags, uids, sizes)
    scope = stored.scope_of(points, space, uids, sizes).masked(excluded)
    before = calls_of_a_step(points, scope)
    (estimate,) = scope.estimate(side_by_side([state]), [selected], function, count)
    assert (points.calls.counts - before).total() <= 3
    q = exact_q(state, scope, selected, function, np.arange(1000))
    q[[*selected, *excluded]] = -np.inf
    chosen = best(estimate, count, state, scope, selected, function)
    assert len(chosen) == count
    for position, value in chosen:
        assert value == pytest.approx(q[position], abs=1e-9)
    if estimate.exact:
        np.testing.assert_allclose([value for _, value in chosen], np.sort(q)[::-1][:count], atol=1e-9)


@pytest.mark.parametrize("width", [1, 3])
def test_an_episode_selects_what_it_selects_over_matrices(points: QdrantPoints, width: int) -> None:
    counts, matrix = [25, 35], strategies.random_vectors(60, 8, seed=width)
    uids = [next(UIDS) for _ in counts]
    stored.store(points, Space(8, "tower", 8), matrix, [], uids, counts)
    question = strategies.random_vectors(1, 8, seed=5)[0]
    function = QFunction(1.0, 0.0, Positions(levels=4))
    selections, values = [], []
    for scope in (
        MatrixScope(Matrices(np.array([0, 25, 60]), (Part(0, matrix),), 1.001)),
        stored.scope_of(points, Space(8, "tower", 8), uids, counts),
    ):
        episode = Episode(scope, Limits(4, beam_width=width, candidates=3), lambda at: ChunkTokens([at], cost=1))
        while episode.stopped_by is None:
            states = [question + matrix[list(selected)].sum(axis=0) for selected in episode.selections]
            take_step(episode, np.stack(states).astype(np.float32), function)
        assert episode.exact
        selections.append([step.position for step in episode.steps])
        values.append([step.q for step in episode.steps])
    assert selections[0] == selections[1]
    assert len(selections[0]) == 4
    np.testing.assert_allclose(values[0], values[1], atol=1e-9)
