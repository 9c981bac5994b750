"""Chunk embeddings in one byte a number: a search reads them first, a quarter of the bytes of the embeddings.

A code is an embedding divided by one scale and rounded to whole numbers from -127 to 127. A query, which is a rotated
state, is rounded to whole numbers of two bytes. Products of whole numbers are exact, and their distance from those of
the vectors is bounded by the two rounding errors (Cauchy and Schwarz). :mod:`index.search.scoring` decides by the
embeddings whatever lies within that bound.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from index.arrays import Float32Array, Int8Array

LARGEST = 127
"""Largest magnitude of a number of a code."""

ROW_BLOCK = 4096
"""Rows encoded at once: some megabytes of working memory."""


class Codes(NamedTuple):
    """Vectors ``numbers * scale``, and the bound of their rounding error."""

    numbers: Int8Array
    """Shape ``[rows, d]``, read-only."""
    scale: float
    error: float
    """Largest Euclidean distance of a row of ``numbers * scale`` from its vector."""


def encode(vectors: Float32Array) -> Codes:
    """Codes of vectors, shape ``[rows, d]``, with one scale for all of them."""
    scale = max(float(vectors.max(initial=0.0)), -float(vectors.min(initial=0.0))) / LARGEST or 1.0
    numbers = np.empty(vectors.shape, dtype=np.int8)
    farthest = 0.0
    for low in range(0, len(vectors), ROW_BLOCK):
        block = vectors[low : low + ROW_BLOCK]
        whole = np.rint(block / np.float32(scale)).clip(-LARGEST, LARGEST)
        numbers[low : low + ROW_BLOCK] = whole
        difference = whole.astype(np.float64) * scale - block  # float64: it must not round what it measures
        farthest = max(farthest, float(np.einsum("nd,nd->n", difference, difference).max()))
    numbers.flags.writeable = False
    return Codes(numbers, scale, farthest**0.5)
