"""Codes, and the rotated states that meet them, are as far from what they stand for as they say."""

from __future__ import annotations

from unittest.mock import patch

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from index.search.positions import Positions, all_level_indices, interval_table, rotate_back
from index.search.scanning import codes
from index.search.scanning.codes import LARGEST, encode
from index.search.scanning.kernels import largest_query, rotate_and_round
from index.search.scanning.matrices import Matrices, Part
from index.search.scanning.scan import scan
from index.search.states import States
from index.search.turning import Turning
from tests.index import strategies


@given(st.integers(1, 40), st.integers(1, 8), st.integers(0, 2**32 - 1), st.booleans(), st.sampled_from([1, 7, 4096]))
def test_no_code_is_farther_from_its_vector_than_it_says(
    count: int, pairs: int, seed: int, unit: bool, block: int
) -> None:
    vectors = strategies.random_vectors(count, 2 * pairs, seed, length=1.0 if unit else None)
    with patch.object(codes, "ROW_BLOCK", block):
        found = encode(vectors)
    distance = np.linalg.norm(found.numbers * np.float64(found.scale) - vectors, axis=1)
    assert distance.max() <= found.error * (1 + 1e-12)
    assert distance.max() >= found.error * (1 - 1e-12)
    assert np.abs(found.numbers).max() == LARGEST


def test_vectors_of_zeros_are_their_codes() -> None:
    found = encode(np.zeros((3, 4), dtype=np.float32))
    assert (found.error, found.numbers.tolist()) == (0.0, [[0] * 4] * 3)
    assert encode(np.zeros((0, 4), dtype=np.float32)).numbers.shape == (0, 4)


@given(st.integers(1, 400), st.integers(0, 2**32 - 1), st.integers(1, 40), st.integers(0, 3))
def test_no_rotated_state_is_farther_from_its_numbers_than_it_says(
    pairs: int, seed: int, levels: int, interval: int
) -> None:
    (state,) = strategies.random_vectors(1, 2 * pairs, seed, length=None)
    positions, largest = Positions(levels=levels), largest_query(2 * pairs)
    numbers, scales = np.empty((levels, 2 * pairs), dtype=np.int16), np.empty(levels)
    error = rotate_and_round(
        state.astype(np.float64), *interval_table(positions, 2 * pairs, interval), largest, numbers, scales
    )
    expected = rotate_back(state, interval * levels + np.arange(levels), positions)
    distance = np.linalg.norm(numbers * scales[:, None] - expected, axis=1)
    peak = float(np.abs(state).max())
    assert distance.max() <= error + 1e-12 * peak
    assert error <= peak * np.sqrt(2 * pairs) * 2 / largest
    assert np.abs(numbers.astype(np.int64)).max() <= largest


@given(st.integers(0, 2**32 - 1), st.booleans())
def test_no_product_of_a_scan_is_farther_off_than_the_error_of_the_states_queries_says(seed: int, mapped: bool) -> None:
    generator = np.random.default_rng(seed)
    # With a largest number of 127 the codes are the vectors: only queries are rounded.
    vectors = generator.integers(-LARGEST, LARGEST, size=(60, 6)).astype(np.float32)
    vectors[0, 0] = LARGEST
    matrices = Matrices(np.array([0, 25, 60]), (Part(0, vectors),))
    states = States(
        strategies.random_vectors(3, 6, seed, length=None), order=strategies.random_vectors(3, 2, seed + 1, length=None)
    )
    turning = Turning(Positions(levels=5), generator.standard_normal((2, 6)) if mapped else None)
    selections = [[], [7], [3, 20, 40]]
    values = np.zeros((3, 60), dtype=np.float32)
    errors = scan(states, matrices, selections, turning, values, factor=1.0, summand=0.0)
    lengths = np.linalg.norm(vectors, axis=1)
    for state, selected, found, error in zip(states, selections, values, errors, strict=True):
        queries = turning.queries(state, all_level_indices(matrices.offsets, selected, turning.positions))
        distance = np.abs(found - np.einsum("nd,nd->n", vectors, queries))
        free = np.delete(np.arange(60), selected)
        assert (distance <= lengths * (error + 1e-6 * turning.longest(state)))[free].all()


@given(st.integers(1, 5000))
def test_the_largest_product_of_a_query_and_a_code_fits(dimension: int) -> None:
    assert dimension * LARGEST * largest_query(dimension) < 2**31
