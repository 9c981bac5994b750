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
from itertools import pairwise
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]


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

    def rho(self, level_index: IntArray) -> FloatArray:
        """The real-valued position of each level index, same shape as the input."""
        if self.mode == "relative":
            interval, fraction = np.divmod(level_index, self.levels)
            return interval * self.delta + self.ell * fraction / self.levels
        return level_index.astype(np.float64)


class Run(NamedTuple):
    """Chunks ``start <= i < stop`` of one document that share a level index."""

    start: int
    stop: int
    level_index: int


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


def runs(count: int, selected: Sequence[int], positions: Positions) -> list[Run]:
    """The document's chunks that are *not* selected, as maximal runs of one level index.

    At most ``levels * (len(selected) + 1)`` runs in mode ``relative``, ``len(selected) + 1`` in
    mode ``none`` and ``count`` in mode ``absolute``. Agrees with :func:`level_indices`.
    """
    if positions.mode == "absolute":
        taken = set(selected)
        return [Run(i, i + 1, i) for i in range(count) if i not in taken]
    borders = [0, *selected, count]
    found: list[Run] = []
    for interval in range(len(borders) - 1):
        start, stop = borders[interval], borders[interval + 1]
        free = start if interval == 0 else start + 1  # from the second on, it starts at a selected chunk
        if positions.mode == "none":
            edges = [free, stop]
            first_level = 0
        else:
            levels, length = positions.levels, stop - start
            # level v begins at the smallest i with levels * (i - start) >= v * length
            begins = start - (-length * np.arange(levels + 1, dtype=np.int64) // levels)
            edges = np.maximum(begins, free).tolist()
            first_level = interval * levels
        found.extend(
            Run(edge, next_edge, first_level + level)
            for level, (edge, next_edge) in enumerate(pairwise(edges))
            if edge < next_edge
        )
    return found


def rotate(vectors: FloatArray, rho: FloatArray, rope_base: float) -> FloatArray:
    """RoPE: rotate coordinate pair ``(2p, 2p+1)`` by ``rho * rope_base ** (-2p / d)``.

    ``vectors`` has shape ``[..., d]`` with even ``d``, ``rho`` broadcasts against ``[...]``.
    Float64 throughout: this runs once per level, never per chunk.
    """
    dimension = vectors.shape[-1]
    frequency = rope_base ** (-np.arange(0, dimension, 2, dtype=np.float64) / dimension)
    angle = np.asarray(rho, dtype=np.float64)[..., None] * frequency
    cosine, sine = np.cos(angle), np.sin(angle)
    even, odd = vectors[..., 0::2], vectors[..., 1::2]
    rotated = np.empty(np.broadcast_shapes(vectors.shape[:-1], np.shape(rho)) + (dimension,))
    rotated[..., 0::2] = even * cosine - odd * sine
    rotated[..., 1::2] = even * sine + odd * cosine
    return rotated


def rotated(state: NDArray[np.float32], level_index: IntArray, positions: Positions) -> FloatArray:
    """``R(-ρ) s`` for every level index, shape ``[len(level_index), d]``; ``state`` has shape ``[d]``."""
    wide = state.astype(np.float64)
    if positions.mode == "none":
        return np.broadcast_to(wide, (len(level_index), len(wide)))
    return rotate(wide, -positions.rho(level_index), positions.rope_base)
