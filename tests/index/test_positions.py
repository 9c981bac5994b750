"""Relative positions: eq. 6 in integers, as runs of equal level, and their rotation."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from index.search.positions import Positions, level_indices, rotate, unvisited_level_indices
from tests.index import reference, strategies

PAPER = Positions(mode="relative", delta=10, ell=9, levels=1000)


@st.composite
def documents(draw: st.DrawFn) -> tuple[int, list[int]]:
    """A number of chunks and a selection among them."""
    count = draw(st.one_of(st.integers(1, 12), st.integers(1, 400)))
    return count, draw(strategies.selections(count))


@settings(deadline=None, max_examples=200)
@given(documents(), strategies.positions, st.randoms())
def test_rho_is_equation_6(document: tuple[int, list[int]], positions: Positions, random: Any) -> None:
    count, selected = document
    index = list(range(count))
    random.shuffle(index)
    rho = positions.rho(level_indices(np.array(index), count, selected, positions))
    expected = [reference.rho(i, count, selected, positions) for i in index]
    np.testing.assert_allclose(rho, expected, rtol=1e-14)


def test_rho_of_the_papers_example() -> None:
    # Ten chunks, the fourth selected: rho says between which facts a chunk lies and where in the gap.
    rho = PAPER.rho(level_indices(np.arange(10), 10, [4], PAPER))
    expected = [0, 2.25, 4.5, 6.75, 10, 11.5, 13, 14.5, 16, 17.5]
    np.testing.assert_allclose(rho, expected, atol=9 / 1000)
    assert rho[4] == 10


@given(documents(), strategies.levels)
def test_the_range_of_rho_depends_on_the_number_of_steps_alone(document: tuple[int, list[int]], levels: int) -> None:
    count, selected = document
    positions = PAPER.model_copy(update={"levels": levels})
    rho = positions.rho(level_indices(np.arange(count), count, selected, positions))
    assert rho.min() >= 0
    assert rho.max() < 10 * len(selected) + 9
    assert (np.diff(rho) >= 0).all()


def test_levels_are_exact_in_documents_of_ten_million_chunks() -> None:
    positions = Positions(levels=65536)
    count, selected = 10_000_000, [1, 9_999_998]
    index = [0, 1, 2, 4_999_999, 9_999_997, 9_999_998, 9_999_999]
    gap = 9_999_997
    expected = [
        0,
        *(65536 + 65536 * (i - 1) // gap for i in index[1:5]),
        2 * 65536,
        2 * 65536 + 65536 // 2,
    ]
    assert level_indices(np.array(index), count, selected, positions).tolist() == expected


@settings(deadline=None)
@given(st.lists(st.integers(1, 40), max_size=8), strategies.positions)
def test_unvisited_levels_are_those_of_each_document_alone(counts: list[int], positions: Positions) -> None:
    together = unvisited_level_indices(np.array(counts, dtype=np.int64), positions)
    apart = [level_indices(np.arange(count), count, [], positions) for count in counts]
    assert together.tolist() == [level for levels in apart for level in levels.tolist()]


VECTORS = st.tuples(st.integers(1, 20), st.integers(0, 2**32 - 1)).map(
    lambda drawn: np.random.default_rng(drawn[1]).standard_normal(2 * drawn[0])
)
ANGLES = st.floats(-100, 100)
BASES = st.sampled_from([10000.0, 10.0, 1.5])


@given(VECTORS, ANGLES, BASES)
def test_rotation_turns_each_pair_by_its_frequency(vector: strategies.Float32, rho: float, base: float) -> None:
    expected = reference.rotated(vector.tolist(), rho, base)
    np.testing.assert_allclose(rotate(vector.astype(np.float64), np.array(rho), base), expected, atol=1e-11)


@given(VECTORS, ANGLES, ANGLES, BASES)
def test_rotations_keep_norms_compose_and_invert(
    drawn: strategies.Float32, first: float, second: float, base: float
) -> None:
    vector = drawn.astype(np.float64)

    def turn(by: float, of: Any = vector) -> Any:
        return rotate(of, np.array(by), base)

    assert np.linalg.norm(turn(first)) == pytest.approx(np.linalg.norm(vector), rel=1e-12)
    np.testing.assert_allclose(turn(second, turn(first)), turn(first + second), atol=1e-11)
    np.testing.assert_allclose(turn(-first, turn(first)), vector, atol=1e-12)
    np.testing.assert_array_equal(turn(0.0), vector)


@given(VECTORS, st.integers(0, 2**32 - 1), ANGLES, BASES)
def test_turning_the_state_back_is_turning_the_chunk(
    drawn: strategies.Float32, seed: int, rho: float, base: float
) -> None:
    state = drawn.astype(np.float64)
    chunk = np.random.default_rng(seed).standard_normal(len(state))
    turned_chunk = state @ np.array(reference.rotated(chunk.tolist(), rho, base))
    assert rotate(state, np.array(-rho), base) @ chunk == pytest.approx(turned_chunk, abs=1e-10)


def test_rotation_broadcasts_one_vector_against_many_positions() -> None:
    vector = np.random.default_rng(0).standard_normal(6)
    rho = np.array([[0.0, 1.0, 2.5], [9.0, 10.0, -4.0]])
    table = rotate(vector, rho, 10000.0)
    assert table.shape == (2, 3, 6)
    for at in np.ndindex(2, 3):
        np.testing.assert_allclose(table[at], reference.rotated(vector.tolist(), float(rho[at]), 10000.0), atol=1e-12)


@pytest.mark.parametrize(
    "wrong", [{"mode": "sinusoidal"}, {"levels": 0}, {"levels": 65537}, {"rope_base": 1.0}, {"theta": 1.0}]
)
def test_impossible_positions_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Positions.model_validate(wrong)
