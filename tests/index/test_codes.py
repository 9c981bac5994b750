"""Codes, and the rotated states that meet them, are as far from what they stand for as they say."""

from __future__ import annotations

from unittest.mock import patch

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from index.search.positions import Positions, interval_table, rotate_back
from index.search.scanning import codes
from index.search.scanning.codes import LARGEST, encode
from index.search.scanning.kernels import largest_query, rotate_and_round
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


@given(st.integers(1, 5000))
def test_the_largest_product_of_a_query_and_a_code_fits(dimension: int) -> None:
    assert dimension * LARGEST * largest_query(dimension) < 2**31
