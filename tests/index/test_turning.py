"""What of a state turns with the position: the whole embedding, or what it asks in a space of its own."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from index.search.explanation import explain
from index.search.function import QFunction
from index.search.matrix_scope import MatrixScope
from index.search.positions import Positions, all_level_indices
from index.search.scanning.matrices import Matrices, Part
from index.search.scoring import exact_q
from index.search.states import State
from index.search.turning import Turning
from tests.index import strategies
from tests.index.strategies import Case


@settings(deadline=None, max_examples=200)
@given(strategies.cases(signals=True), st.data())
def test_turned_chunks_have_the_products_of_the_queries(case: Case, data: st.DataObject) -> None:
    turning = case.function.turning
    indices = all_level_indices(
        case.scope.offsets, data.draw(strategies.selections(case.scope.size)), turning.positions
    )
    chunks = case.scope.rows(np.arange(case.scope.size))
    products = np.einsum("nd,nd->n", chunks.astype(np.float64), turning.queries(case.whole, indices))
    turned = turning.turned(chunks, indices).astype(np.float64)
    tolerance = 1e-5 * max(1.0, turning.longest(case.whole)) * case.scope.matrices.norm_bound
    np.testing.assert_allclose(turned @ turning.plain_query(case.whole).astype(np.float64), products, atol=tolerance)


@settings(deadline=None, max_examples=100)
@given(strategies.cases(signals=True))
def test_no_query_is_longer_than_the_bound(case: Case) -> None:
    turning = case.function.turning
    queries = turning.queries(case.whole, np.arange(40))
    assert np.linalg.norm(queries, axis=1).max() <= turning.longest(case.whole) * (1 + 1e-9)


def test_a_state_that_asks_nothing_of_order_is_one_plain_search() -> None:
    generator = np.random.default_rng(0)
    turning = Turning(Positions(levels=32), generator.standard_normal((4, 8)))
    state = State(generator.standard_normal(8).astype(np.float32), order=np.zeros(4, dtype=np.float32))
    assert not turning.turns(state)
    assert (turning.queries(state, np.arange(100)) == state.embedding).all()
    assert turning.turns(state._replace(order=np.ones(4, dtype=np.float32)))


def test_in_the_papers_form_every_state_turns_unless_positions_are_switched_off() -> None:
    state = State(np.ones(4, dtype=np.float32))
    assert Turning(Positions()).turns(state)
    assert not Turning(Positions(mode="none")).turns(state)


def test_a_state_without_what_it_asks_of_order_is_refused() -> None:
    turning = Turning(Positions(), np.ones((2, 4)))
    with pytest.raises(ValueError, match="order"):
        turning.queries(State(np.ones(4, dtype=np.float32)), np.arange(3))


@settings(deadline=None, max_examples=150)
@given(strategies.cases(signals=True), st.data())
def test_the_parts_of_a_q_value_add_up_to_it(case: Case, data: st.DataObject) -> None:
    free = [position for position in range(case.scope.size) if position not in case.selected]
    if not free:
        return
    position = data.draw(st.sampled_from(free))
    parts = explain(case.whole, case.scope, case.selected, case.function, position)
    (q,) = exact_q(case.whole, case.scope, case.selected, case.function, np.array([position]))
    total = parts.constant + parts.meaning + parts.order + parts.surroundings + sum(added for _, added in parts.terms)
    assert total == pytest.approx(q, abs=1e-9 * max(1.0, case.scale))
    if not case.function.turning.turns(case.whole):
        assert parts.spread == pytest.approx(0.0, abs=1e-9 * max(1.0, case.scale))


def test_the_spread_is_that_over_all_positions() -> None:
    matrix = np.eye(2, dtype=np.float32)[[0] * 12]
    scope = MatrixScope(Matrices(np.array([0, 12]), (Part(0, matrix),)))
    function = QFunction(2.0, 0.0, Positions(levels=12))
    state = State(np.array([1.0, 0.0], dtype=np.float32))
    q = exact_q(state, scope, (), function, np.arange(12))
    assert explain(state, scope, (), function, 5).spread == pytest.approx(q.max() - q.min())
