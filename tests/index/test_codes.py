"""Codes lie as a search reads them, and are as far from the embeddings as they say."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from index.codes import LONG_DOCUMENT, Stretch, encode, encode_each, layout
from index.positions import Positions, level_indices
from tests.index import strategies

documents = st.lists(st.sampled_from([1, 2, 3, 5, 17, 100, LONG_DOCUMENT - 1, LONG_DOCUMENT]), max_size=12)


@given(documents, st.data())
def test_chunks_at_one_level_lie_side_by_side(counts: list[int], data: st.DataObject) -> None:
    # Pieces of the documents, with rows of no document between them.
    stretches: list[Stretch] = []
    rows = 0
    for count in counts:
        first = data.draw(st.integers(0, count - 1))
        stretch = Stretch(rows + data.draw(st.integers(0, 2)), data.draw(st.integers(1, count - first)), first, count)
        stretches.append(stretch)
        rows = stretch.first_row + stretch.rows
    found = layout(rows, stretches)
    assert sorted(found.tolist()) == list(range(rows))
    place = np.empty(rows, dtype=np.int64)
    place[found] = np.arange(rows)
    for levels in (1, 18, 128, 1000):
        at: dict[int, int] = {}
        for stretch in stretches:
            own = np.arange(stretch.first_row, stretch.first_row + stretch.rows)
            if stretch.chunks >= LONG_DOCUMENT:
                np.testing.assert_array_equal(place[own], own)
                continue
            numbers = stretch.first_chunk + np.arange(stretch.rows)
            level = level_indices(numbers, stretch.chunks, [], Positions(levels=levels))
            at |= zip(place[own].tolist(), level.tolist(), strict=True)
        in_order = [level for _, level in sorted(at.items())]
        assert all(one <= other for one, other in itertools.pairwise(in_order))


@given(st.integers(1, 40), st.integers(1, 8), st.integers(0, 2**32 - 1), st.booleans())
def test_no_code_is_farther_from_its_vector_than_it_says(count: int, pairs: int, seed: int, unit: bool) -> None:
    vectors = strategies.random_vectors(count, 2 * pairs, seed, length=1.0 if unit else None)
    codes = encode(vectors)
    distance = np.linalg.norm(codes.numbers * np.float64(codes.scale) - vectors, axis=1)
    assert distance.max() <= codes.error * (1 + 1e-12)
    queries = encode_each(vectors.astype(np.float64))
    distance = np.linalg.norm(queries.numbers * queries.scales[:, None] - vectors, axis=1)
    assert distance.max() <= queries.error * (1 + 1e-12)
