"""Exact Q: what `estimate`, `best` and `exact_q` say is what the formulas say."""

from __future__ import annotations

import math
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from index.search import scoring
from index.search.function import QFunction
from index.search.matrix_scope import MatrixScope
from index.search.positions import TABLE_LEVELS, Positions
from index.search.scanning import device_scan, matrices, scan, threads
from index.search.scanning.matrices import Matrices, Part
from index.search.scope import Estimate
from index.search.scoring import best, exact_q
from index.search.states import State
from tests.index import reference, strategies
from tests.index.strategies import Case, Float32, side_by_side

ANY_BLOCK = st.sampled_from([1, 3, scan.ROTATED_ROWS])
# With more levels than this there is no table of rotated states.
ANY_TABLE = st.sampled_from([0, TABLE_LEVELS])


def estimate_one(state: Float32 | State, scope: MatrixScope, selected: list[int], function: QFunction) -> Estimate:
    whole = state if isinstance(state, State) else State(state)
    (found,) = scope.estimate(side_by_side([whole]), [selected], function)
    return found


def check_against_reference(case: Case, count: int) -> None:
    state, scope, selected, function, scale = case.whole, case.scope, case.selected, case.function, case.scale
    expected = reference.q_of(state, scope, selected, function, case.bags)
    estimated = estimate_one(state, scope, selected, function)
    assert estimated.values.dtype == np.float32
    assert np.flatnonzero(estimated.values == -np.inf).tolist() == selected
    free = expected > -np.inf
    assert np.abs(estimated.values[free] - expected[free]).max(initial=0) <= estimated.error
    assert estimated.error < 0.05 * max(scale, 1)

    found = best(estimated, count, state, scope, selected, function)
    wanted = reference.ranking(expected)[:count]
    assert len(found) == len(wanted)
    order = [(-candidate.q, candidate.position) for candidate in found]
    assert order == sorted(order), "ties go to the first in document order"
    for candidate, position in zip(found, wanted, strict=True):
        # The sums of two float64 paths may differ in their last bits: what these cannot tell apart may change places.
        within_rounding = abs(expected[candidate.position] - expected[position]) <= 1e-14 * max(scale, 1)
        assert candidate.position == position or within_rounding
    np.testing.assert_allclose([candidate.q for candidate in found], expected[wanted], rtol=0, atol=1e-12 * scale)


@settings(deadline=None, max_examples=1000)
@given(strategies.cases(signals=True), st.integers(1, 80), ANY_BLOCK, ANY_BLOCK, ANY_TABLE)
def test_q_and_the_best_are_the_references(case: Case, count: int, block: int, task: int, table_levels: int) -> None:
    with (
        patch.object(matrices, "CACHED_ROWS", block),
        patch.object(matrices, "TASK_ROWS", task),
        patch.object(scan, "ROTATED_ROWS", block),
        patch.object(scan, "TABLE_LEVELS", table_levels),
        patch.object(scoring, "BLOCK_ROWS", block),
        patch.object(device_scan, "SCORED_ROWS", block),
    ):
        check_against_reference(case, count)


@settings(deadline=None, max_examples=200)
@given(
    strategies.cases(signals=True),
    st.integers(2, 5),
    st.sampled_from([1, threads.SHARED_ROWS]),
    ANY_TABLE,
    st.sampled_from([1, 100, scan.TABLE_ROWS]),
    st.data(),
)
def test_states_scored_together_are_those_scored_alone(
    case: Case, count: int, shared_rows: int, table_levels: int, table_rows: int, data: st.DataObject
) -> None:
    vectors = strategies.random_vectors(count, len(case.state), seed=7, length=None)
    states = [case.whole._replace(embedding=vector) for vector in vectors]
    selections = [data.draw(strategies.selections(case.scope.size)) for _ in states]
    with (
        patch.object(threads, "SHARED_ROWS", shared_rows),
        patch.object(scan, "TABLE_LEVELS", table_levels),
        patch.object(scan, "TABLE_ROWS", table_rows),
        patch.object(matrices, "TASK_ROWS", 2),
    ):
        together = case.scope.estimate(side_by_side(states), selections, case.function)
        for state, selected, found in zip(states, selections, together, strict=True):
            alone = estimate_one(state, case.scope, selected, case.function)
            assert found.error == alone.error
            np.testing.assert_array_equal(found.values, alone.values)


LONG_AND_SHORT = st.sampled_from([[2048], [2085], [3, 2049, 5], [2048, 2047, 2048, 1]])


@settings(deadline=None, max_examples=12)
@given(strategies.cases(LONG_AND_SHORT, signals=True), st.integers(1, 5))
def test_long_documents_among_short_ones_are_the_references(case: Case, count: int) -> None:
    check_against_reference(case, count)


@settings(deadline=None)
@given(strategies.cases(signals=True), st.data())
def test_exact_q_at_any_positions_in_any_order(case: Case, data: st.DataObject) -> None:
    state, scope, selected, function, scale = case.whole, case.scope, case.selected, case.function, case.scale
    free = [p for p in range(scope.size) if p not in selected]
    asked = data.draw(st.lists(st.sampled_from(free), max_size=12)) if free else []
    expected = reference.q_of(state, scope, selected, function, case.bags)[asked]
    found = exact_q(state, scope, selected, function, np.array(asked, dtype=np.int64))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12 * max(scale, 1))


@settings(deadline=None, max_examples=300)
@given(strategies.cases(), st.sampled_from([1.0, 1e3]), st.integers(1, 4))
def test_what_single_precision_cannot_tell_apart_is_still_in_order(case: Case, offset: float, count: int) -> None:
    # The differences drown in b: in float32 most values are equal.
    function = QFunction(1e-5, offset, case.function.positions)
    estimated = estimate_one(case.state, case.scope, case.selected, function)
    products = reference.q_of(case.state, case.scope, case.selected, QFunction(1.0, 0.0, function.positions))
    found = best(estimated, count, State(case.state), case.scope, case.selected, function)
    assert [candidate.position for candidate in found] == reference.ranking(1e-5 * products + offset)[:count]


def test_values_on_either_side_of_a_rounding_border_are_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan, "TABLE_LEVELS", 0)  # sums in single precision
    # Nearly equal products lie at the middle of two neighbouring floats of b: rounding tears them far apart.
    function = QFunction(1.0, 1000.0, Positions(mode="none"))
    middle = 17 * 2.0**-15
    torn = 0
    for seed in range(100):
        generator = np.random.default_rng(seed)
        vectors = strategies.random_vectors(1, 16, seed).repeat(64, axis=0)
        for row, coordinate in zip(vectors, generator.integers(16, size=64), strict=True):
            row[coordinate] = np.nextafter(row[coordinate], np.float32(99))
        direction = strategies.random_vectors(1, 16, seed + 1000)[0].astype(np.float64)
        state = (direction * middle / (vectors[0].astype(np.float64) @ direction)).astype(np.float32)
        scope = MatrixScope(Matrices(np.array([0, 64]), (Part(0, vectors),), norm_bound=1.0001))
        estimated = estimate_one(state, scope, [], function)
        wanted = reference.ranking(reference.q_of(state, scope, [], function))[0]
        torn += bool(estimated.values[wanted] < estimated.values.max())
        assert [candidate.position for candidate in best(estimated, 1, State(state), scope, [], function)] == [wanted]
    assert torn > 0


@pytest.mark.parametrize("kind", strategies.KINDS)
def test_equal_chunks_are_taken_in_document_order(kind: strategies.Kind) -> None:
    vectors = strategies.random_vectors(1, 8, seed=1).repeat(20, axis=0)
    state = vectors[0].copy()
    vectors[[0, 1, 7]] *= -1
    parts = strategies.split(vectors, [3, 9], kinds=[kind])
    scope = MatrixScope(Matrices(np.array([0, 5, 8, 20]), parts))
    function = QFunction(1.0, 0.0, Positions(mode="none"))
    found = best(estimate_one(state, scope, [2], function), 5, State(state), scope, [2], function)
    assert [candidate.position for candidate in found] == [3, 4, 5, 6, 8]


def test_repeated_lines_beyond_one_block_are_taken_in_document_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scoring, "BLOCK_ROWS", 7)
    vectors = strategies.random_vectors(1, 10, seed=1).repeat(100, axis=0)
    scope = MatrixScope(Matrices(np.array([0, 100]), (Part(0, vectors),)))
    function = QFunction(1.0, 0.0, Positions(mode="none"))
    found = best(estimate_one(vectors[0], scope, [], function), 50, State(vectors[0]), scope, [], function)
    assert [candidate.position for candidate in found] == list(range(50))


def test_nothing_is_left_when_all_is_selected() -> None:
    vectors = strategies.random_vectors(3, 4, seed=0)
    scope = MatrixScope(Matrices(np.array([0, 2, 3]), (Part(0, vectors),)))
    function = QFunction(1.0, 0.0, Positions())
    estimated = estimate_one(vectors[0], scope, [0, 1, 2], function)
    assert estimated.values.tolist() == [-math.inf] * 3
    assert best(estimated, 4, State(vectors[0]), scope, [0, 1, 2], function) == []


def test_an_empty_scope_has_no_candidates() -> None:
    scope = MatrixScope(Matrices(np.array([0]), ()))
    state = strategies.random_vectors(1, 4, seed=0)[0]
    for mode in ("relative", "absolute", "none"):
        function = QFunction(1.0, 0.0, Positions.model_validate({"mode": mode}))
        estimated = estimate_one(state, scope, [], function)
        assert estimated.values.shape == (0,)
        assert best(estimated, 1, State(state), scope, [], function) == []


@settings(deadline=None)
@given(strategies.cases(), st.data())
def test_a_scope_finds_documents_and_rows(case: Case, data: st.DataObject) -> None:
    scope = case.scope
    document_of = [d for d, count in enumerate(np.diff(scope.offsets)) for _ in range(count)]
    assert [scope.document_of(p) for p in range(scope.size)] == document_of
    asked = data.draw(st.lists(st.integers(0, scope.size - 1), min_size=1))
    everything = np.concatenate([np.asarray(part.matrix) for part in scope.matrices.parts])
    np.testing.assert_array_equal(scope.rows(np.array(asked)), everything[asked])


@settings(deadline=None)
@given(strategies.cases(), st.integers(1, 30))
def test_nearest_is_plain_top_k(case: Case, count: int) -> None:
    matrix = np.concatenate([np.asarray(part.matrix) for part in case.scope.matrices.parts]).astype(np.float64)
    products = matrix @ case.state.astype(np.float64)
    found = case.scope.nearest(case.state, count)
    assert len(found) == min(count, case.scope.size)
    positions = [candidate.position for candidate in found]
    assert len(set(positions)) == len(positions)
    tolerance = 1e-6 * max(float(np.linalg.norm(case.state)) * case.scope.matrices.norm_bound, 1)
    np.testing.assert_allclose(products[positions], np.sort(products)[::-1][:count], rtol=0, atol=tolerance)
    np.testing.assert_allclose([candidate.q for candidate in found], products[positions], rtol=0, atol=tolerance)


def test_nearest_spans_parts() -> None:
    matrix: Float32 = np.eye(6, dtype=np.float32)
    scope = MatrixScope(Matrices(np.array([0, 6]), (Part(0, matrix[:2]), Part(2, matrix[2:5]), Part(5, matrix[5:]))))
    query = np.array([0.1, 0.5, 0.2, 0.6, 0.3, 0.4], dtype=np.float32)
    assert [candidate.position for candidate in scope.nearest(query, 4)] == [3, 1, 5, 4]
