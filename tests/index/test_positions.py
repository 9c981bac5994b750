"""Relative positions: eq. 6 in integers, as runs of equal level, and their rotation."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from index.search.positions import (
    Positions,
    all_level_indices,
    interval_table,
    level_index,
    level_indices,
    rotate,
    rotate_back,
    rotate_pairs,
)
from index.search.scanning.codes import Codes
from index.search.scanning.kernels import Selections, Tables, largest_query, multiply, rotate_and_round
from index.search.scanning.matrices import Runs
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
    rho = positions.rho(level_indices(np.array(index), np.array([0, count]), selected, positions))
    expected = [reference.rho(i, count, selected, positions) for i in index]
    np.testing.assert_allclose(rho, expected, rtol=1e-14)


def test_rho_of_the_papers_example() -> None:
    # Ten chunks, the fourth selected: rho says between which facts a chunk lies and where in the gap.
    rho = PAPER.rho(level_indices(np.arange(10), np.array([0, 10]), [4], PAPER))
    expected = [0, 2.25, 4.5, 6.75, 10, 11.5, 13, 14.5, 16, 17.5]
    np.testing.assert_allclose(rho, expected, atol=9 / 1000)
    assert rho[4] == 10


@given(documents(), strategies.levels)
def test_the_range_of_rho_depends_on_the_number_of_steps_alone(document: tuple[int, list[int]], levels: int) -> None:
    count, selected = document
    positions = PAPER.model_copy(update={"levels": levels})
    rho = positions.rho(level_indices(np.arange(count), np.array([0, count]), selected, positions))
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
    assert level_indices(np.array(index), np.array([0, count]), selected, positions).tolist() == expected


@st.composite
def collections(draw: st.DrawFn) -> tuple[list[int], list[int]]:
    """The numbers of chunks of some documents, and a selection among all of them."""
    counts = draw(st.lists(st.integers(1, 40), min_size=1, max_size=8))
    return counts, draw(strategies.selections(sum(counts)))


@settings(deadline=None)
@given(collections(), strategies.positions)
def test_levels_are_those_of_each_document_alone(collection: tuple[list[int], list[int]], positions: Positions) -> None:
    counts, selected = collection
    offsets = np.cumsum([0, *counts])
    together = all_level_indices(offsets, selected, positions)
    apart: list[int] = []
    for start, count in zip(offsets.tolist(), counts, strict=False):
        own = [position - start for position in selected if start <= position < start + count]
        apart += all_level_indices(np.array([0, count]), own, positions).tolist()
    assert together.tolist() == apart


@settings(deadline=None)
@given(collections(), strategies.levels, st.integers(1, 7))
def test_the_compiled_loop_walks_along_the_levels_of_the_formula(
    collection: tuple[list[int], list[int]], levels: int, length: int
) -> None:
    # Every chunk's code is 1, and the row of each level in the table holds its own number: the product is the level.
    counts, selected = collection
    offsets = np.cumsum([0, *counts])
    total, positions = int(offsets[-1]), Positions(levels=levels)
    starts = np.arange(0, total, length)
    runs = Runs(Codes(np.ones((total, 2), dtype=np.int8), 1.0, 0.0), starts, starts, np.minimum(length, total - starts))
    rows = np.arange((len(selected) + 1) * levels)
    tables = Tables(np.ones((len(rows), 2), dtype=np.int16), rows / 2, np.zeros(1, dtype=np.int64))
    chosen = Selections(np.array(selected, dtype=np.int64), np.array([len(selected)]))
    values = np.full((1, total), 0.5, dtype=np.float32)
    multiply(runs, offsets, chosen, tables, levels, 1.0, 0.0, values)
    assert (values[0] - 0.5).tolist() == all_level_indices(offsets, selected, positions).tolist()


@given(st.integers(1, 20), st.integers(0, 40), strategies.levels, st.integers(0, 2**32 - 1))
def test_the_compiled_loop_rotates_as_the_formula_does(pairs: int, interval: int, levels: int, seed: int) -> None:
    positions = Positions(levels=levels)
    state = np.random.default_rng(seed).standard_normal(2 * pairs).astype(np.float32)
    numbers, scales = np.empty((levels, 2 * pairs), dtype=np.int16), np.empty(levels)
    table = interval_table(positions, 2 * pairs, interval)
    rotate_and_round(state.astype(np.float64), *table, largest_query(2 * pairs), numbers, scales)
    expected = rotate_back(state, interval * levels + np.arange(levels), positions)
    np.testing.assert_allclose(numbers * scales[:, None], expected, atol=scales.max())


def test_one_formula_serves_numpy_and_torch() -> None:
    generator = np.random.default_rng(0)
    even, odd, angle = generator.standard_normal((3, 5))
    turned = rotate_pairs(*map(torch.from_numpy, (even, odd, np.cos(angle), np.sin(angle))))
    for of_torch, of_numpy in zip(turned, rotate_pairs(even, odd, np.cos(angle), np.sin(angle)), strict=True):
        np.testing.assert_array_equal(of_torch.numpy(), of_numpy)
    integers = generator.integers(1, 50, (3, 9))
    interval, along, length = map(torch.from_numpy, integers)
    assert (
        level_index(interval, along, length, 18).tolist()
        == level_index(integers[0], integers[1], integers[2], 18).tolist()
    )


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
