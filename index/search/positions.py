"""Relative positions and their rotation (Q-RAG, arXiv 2511.07328, eq. 6).

The selected chunks of a document split it into intervals. A chunk's position ``ρ`` says in which
interval it lies and how far along that interval, so its range depends on the number of steps
alone and never on the length of the document.

The fraction along the interval is quantised to ``levels`` steps in integer arithmetic. That makes
``ρ`` piecewise constant: an episode step needs at most ``levels`` rotations per interval. Training
and serving call the same functions here, so what is trained is what is served.

A chunk's position is kept as an integer *level index* ``j * levels + floor(levels * (i - b_j) /
(b_{j+1} - b_j))`` and turned into the real number ``ρ = j * delta + ell * fraction`` only where
sines and cosines are taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from index.arrays import Float32Array, Float64Array, IntArray

TABLE_LEVELS = 1024
"""Most levels whose sines and cosines are kept: some megabytes an interval."""


class Positions(BaseModel):
    """How a chunk's position enters the Q-function; part of a checkpoint.

    ``relative`` is eq. 6 of the paper, ``absolute`` takes ``ρ = i`` and ``none`` takes ``ρ = 0``.
    The defaults of ``delta`` and ``ell`` are the paper's.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    mode: Literal["relative", "absolute", "none"] = "relative"
    delta: float = Field(10.0, description="distance in ρ between the starts of two intervals")
    ell: float = Field(9.0, description="extent in ρ of one interval")
    levels: int = Field(18, ge=1, le=65536, description="quantisation steps within one interval")
    rope_base: float = Field(10000.0, gt=1, description="RoPE frequency base")

    def rho(self, level_index: IntArray) -> Float64Array:
        """The real-valued position of each level index, same shape as the input."""
        if self.mode == "relative":
            interval, fraction = np.divmod(level_index, self.levels)
            return interval * self.delta + self.ell * fraction / self.levels
        return level_index.astype(np.float64)


def level_indices(index: IntArray, count: int, selected: Sequence[int], positions: Positions) -> IntArray:
    """The level index of each chunk ``index`` of a document of ``count`` chunks, same shape.

    ``selected`` are the document's chunks already selected, strictly increasing.
    """
    if positions.mode == "absolute":
        return index
    if positions.mode == "none":
        return np.zeros_like(index)
    borders = np.array([0, *selected, count], dtype=np.int64)
    interval = np.searchsorted(borders[1:-1], index, side="right")
    start, length = borders[interval], np.diff(borders)[interval]
    return interval * positions.levels + positions.levels * (index - start) // length


def unvisited_level_indices(counts: IntArray, positions: Positions) -> IntArray:
    """:func:`level_indices` of many documents with nothing selected, concatenated.

    ``counts`` holds the number of chunks of each document, shape ``[documents]``; the result has
    shape ``[counts.sum()]``.
    """
    total = int(counts.sum())
    if positions.mode == "none":
        return np.zeros(total, dtype=np.int64)
    first = np.repeat(np.cumsum(counts) - counts, counts)
    index = np.arange(total, dtype=np.int64) - first
    if positions.mode == "absolute":
        return index
    return positions.levels * index // np.repeat(counts, counts)


def rotate(vectors: Float64Array, rho: Float64Array, rope_base: float) -> Float64Array:
    """RoPE: rotate coordinate pair ``(2p, 2p+1)`` by ``rho * rope_base ** (-2p / d)``.

    ``vectors`` has shape ``[..., d]`` with even ``d``, ``rho`` broadcasts against ``[...]``.
    Float64 throughout: this runs once per level, never per chunk.
    """
    dimension = vectors.shape[-1]
    cosine, sine = _cosine_and_sine(np.asarray(rho, dtype=np.float64), dimension, rope_base)
    even, odd = vectors[..., 0::2], vectors[..., 1::2]
    rotated = np.empty(np.broadcast_shapes(vectors.shape[:-1], np.shape(rho)) + (dimension,))
    rotated[..., 0::2] = even * cosine - odd * sine
    rotated[..., 1::2] = even * sine + odd * cosine
    return rotated


def rotated(state: Float32Array, level_index: IntArray, positions: Positions) -> Float64Array:
    """``R(-ρ) s`` for every level index, shape ``[len(level_index), d]``; ``state`` has shape ``[d]``."""
    wide = state.astype(np.float64)
    if positions.mode == "none":
        return np.broadcast_to(wide, (len(level_index), len(wide)))
    if positions.mode == "absolute" or positions.levels > TABLE_LEVELS:
        return rotate(wide, -positions.rho(level_index), positions.rope_base)
    found = np.empty((len(level_index), len(wide)))
    interval, level = np.divmod(level_index, positions.levels)
    for each in np.unique(interval).tolist():
        inside = interval == each
        cosine, sine = (table[level[inside]] for table in turns(positions, len(wide), each))
        found[inside, 0::2] = wide[0::2] * cosine + wide[1::2] * sine
        found[inside, 1::2] = wide[1::2] * cosine - wide[0::2] * sine
    return found


@lru_cache(maxsize=64)  # an episode may have 33 intervals
def turns(positions: Positions, dimension: int, interval: int) -> tuple[Float64Array, Float64Array]:
    """Cosines and sines of all levels of an interval, shape ``[levels, dimension / 2]``: slower to find than to use.

    In mode ``none`` there is one level.
    """
    if positions.mode == "none":
        return _cosine_and_sine(np.zeros(1), dimension, positions.rope_base)
    return _cosine_and_sine(
        positions.rho(interval * positions.levels + np.arange(positions.levels)), dimension, positions.rope_base
    )


def _cosine_and_sine(rho: Float64Array, dimension: int, rope_base: float) -> tuple[Float64Array, Float64Array]:
    angle = rho[..., None] * rope_base ** (-np.arange(0, dimension, 2, dtype=np.float64) / dimension)
    return np.cos(angle), np.sin(angle)
