"""What stands beside a chunk counts with it: the average of a chunk's inner product and its neighbours'.

A passage that says "he" is about whom the one before it names, and what it is about is said by both. With ``D(i)``, the
inner product with its factor and summand, a chunk's value is

    ``Q(s, i) = (D(i) + κ(s) Σ_j D(j)) / (1 + κ(s) n)`` + all other signals of ``i``

over the ``n`` chunks right before and after it in its document, those that are selected left out: their text has been
read. The other signals are the chunk's own: the word that is asked for stands in it or does not. ``κ(s)`` is a state's
own; where it is 0, a chunk stands for itself. Nothing more is stored, and nothing has to be embedded again. An average
is never above the largest of what it is made of: a chunk whose average is the best has one of the best ``D`` itself, or
beside it, so a search by ``D`` finds it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from index.arrays import Float32Array, Float64Array, IntArray
from index.search.scanning.kernels import average_beside
from index.search.signals.protocol import UNIT


def beside(positions: IntArray, offsets: IntArray, selected: Sequence[int]) -> IntArray:
    """The positions before and after each of ``positions`` in its document, shape ``[2, positions]``; -1 for none.

    ``offsets`` say where each document begins. Selected chunks are none.
    """
    document = np.searchsorted(offsets, positions, side="right") - 1
    around = np.stack((positions - 1, positions + 1))
    outside = np.stack((around[0] < offsets[document], around[1] >= offsets[document + 1]))
    around[outside | np.isin(around, np.asarray(selected, dtype=np.int64))] = -1
    return around


def averaged(own: Float64Array, around: Float64Array, counted: Float64Array, share: float) -> Float64Array:
    """The average of values with those around them, shape ``[n]``.

    ``around`` holds the neighbours' values and ``counted`` 1 where there is a neighbour, else 0, both ``[2, n]``.
    """
    total: Float64Array = (own + share * (counted * around).sum(axis=0)) / (1 + share * counted.sum(axis=0))
    return total


def average(values: Float32Array, offsets: IntArray, selected: Sequence[int], share: float) -> float:
    """Average one state's values of all candidates in place, shape ``[candidates]``; returns a bound of the rounding.

    The values of selected chunks are meaningless afterwards.
    """
    positions = np.asarray(selected, dtype=np.int64)
    largest = max(float(values.max(initial=0.0)), -float(values.min(initial=0.0)))
    average_beside(values.copy(), offsets, positions, np.float32(share), values)
    return 8 * UNIT * largest * (1 + 2 * share)
