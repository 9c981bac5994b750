"""Chunk embeddings in one byte a number: what a search reads first, a quarter of the embeddings themselves.

A code is an embedding divided by one scale and rounded to whole numbers from -127 to 127. Products of codes are sums of
whole numbers, and so exact; how far they are from the products of the embeddings is bounded by the two rounding errors
(Cauchy and Schwarz). :mod:`index.scoring` decides by the embeddings whatever lies within that bound.

The codes of a segment are laid out for reading: rows of long documents where they are in the matrix, rows of short ones
by how far along their document they stand. So the chunks that one rotated query is for lie side by side, those of
thousands of short documents too, whatever number of levels the fraction is rounded to.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numkong
import numpy as np
from numpy.typing import NDArray

Float32Array = NDArray[np.float32]
Float64Array = NDArray[np.float64]
Int8Array = NDArray[np.int8]
Int32Array = NDArray[np.int32]

LARGEST = 127

LONG_DOCUMENT = 2048
"""Chunks from which a document is scored run by run; below, runs are too short to pay for a call each."""


class Codes(NamedTuple):
    """Vectors ``numbers * scale``, and how far they are from those they stand for."""

    numbers: Int8Array
    """Shape ``[rows, d]``."""
    scale: float
    error: float
    """Largest Euclidean distance of a row of ``numbers * scale`` from its vector."""

    def cut(self, start: int, stop: int) -> Codes:
        """The rows ``start <= row < stop``."""
        return self._replace(numbers=self.numbers[start:stop])


class SortedCodes(NamedTuple):
    """The codes of a segment as they are laid out."""

    codes: Codes
    rows: Int32Array
    """Which row of the matrix each of them is, shape ``[rows]``."""


class Stretch(NamedTuple):
    """Rows ``first_row..`` of a segment that are the chunks ``first_chunk..`` of a document of ``chunks`` chunks."""

    first_row: int
    rows: int
    first_chunk: int
    chunks: int


def layout(rows: int, stretches: Iterable[Stretch]) -> Int32Array:
    """Which row each place of a segment's codes is for, shape ``[rows]``.

    Rows of no stretch, of deleted documents for example, stay where they are, as those of long documents do.
    """
    fraction = np.full(rows, -1.0)
    for stretch in stretches:
        if stretch.chunks < LONG_DOCUMENT:
            numbers = stretch.first_chunk + np.arange(stretch.rows)
            fraction[stretch.first_row : stretch.first_row + stretch.rows] = numbers / stretch.chunks
    found = np.arange(rows, dtype=np.int32)
    places = np.flatnonzero(fraction >= 0)
    found[places] = places[np.argsort(fraction[places], kind="stable")]
    return found


def encode(vectors: Float32Array) -> Codes:
    """Codes of vectors, shape ``[rows, d]``, with one scale for all of them."""
    scale = float(np.abs(vectors).max(initial=0.0)) / LARGEST or 1.0
    numbers = np.rint(vectors / np.float32(scale)).clip(-LARGEST, LARGEST).astype(np.int8)
    difference = numbers * scale - vectors  # float64: it must not round what it measures
    return Codes(numbers, scale, float(np.sqrt(np.einsum("nd,nd->n", difference, difference).max(initial=0.0))))


class Queries(NamedTuple):
    """Vectors ``numbers[i] * scales[i]``, and how far the farthest is from the one it stands for."""

    numbers: Int8Array
    """Shape ``[queries, d]``."""
    scales: Float64Array
    """Shape ``[queries]``."""
    error: float


def encode_each(vectors: Float64Array) -> Queries:
    """Codes of a few vectors, shape ``[queries, d]``, each with a scale of its own."""
    scales = np.abs(vectors).max(axis=1, initial=0.0) / LARGEST
    scales[scales == 0] = 1.0
    whole = np.rint(vectors / scales[:, None])
    error = float(np.linalg.norm(vectors - whole * scales[:, None], axis=1).max(initial=0.0))
    return Queries(whole.astype(np.int8), scales, error)


def multiply(codes: Int8Array, query: Int8Array, out: Float64Array) -> None:
    """Write the whole-number products of every row with a query into ``out``, shape ``[1, rows]``.

    ``codes`` has shape ``[rows, d]`` and ``query`` ``[1, d]``.
    """
    numkong.cdist(query, codes, "dot", out=out)
