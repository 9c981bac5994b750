"""Relative positions and their rotation (Q-RAG, arXiv 2511.07328, eq. 6).

The selected chunks of a document split it into intervals. A chunk's position ``ρ`` says in which interval it lies and
how far along that interval, so its range depends on the number of steps alone and never on the document's length.

The fraction along the interval is quantised to ``levels`` steps in integer arithmetic. That makes ``ρ`` piecewise
constant: a step needs at most ``levels`` rotations an interval. A chunk's position is kept as an integer *level index*
``j * levels + floor(levels * (i - b_j) / (b_{j+1} - b_j))``, and turned into the real number ``ρ = j * delta + ell *
fraction`` only where sines and cosines are taken.

Both formulas stand here once, :func:`level_index` and :func:`rotate_pairs`, for NumPy and for torch, for training and
for serving. The compiled loops (:mod:`index.search.scanning.kernels`) have them a second time, written for speed;
``tests/index/test_positions.py`` holds the two together.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Literal, TypeVar

import numpy as np
import torch
from pydantic import Field

from index.arrays import Float32Array, Float64Array, IntArray
from qrag.wire.models import FrozenModel

TABLE_LEVELS = 1024
"""Most levels whose sines and cosines are cached: some megabytes an interval."""

KEPT_TABLES = 64
"""Intervals whose sines and cosines are cached; a single call has up to 33, a chain of calls twice as many or more."""

Indices = TypeVar("Indices", IntArray, torch.Tensor)
Coordinates = TypeVar("Coordinates", Float64Array, torch.Tensor)


class Positions(FrozenModel):
    """How a chunk's position enters the Q-function; part of a checkpoint.

    ``relative`` is eq. 6 of the paper, ``absolute`` takes ``ρ = i`` and ``none`` takes ``ρ = 0``.
    The defaults of ``delta`` and ``ell`` are the paper's.
    """

    mode: Literal["relative", "absolute", "none"] = "relative"
    delta: float = Field(10.0, description="distance in ρ between the starts of two intervals")
    ell: float = Field(9.0, description="extent in ρ of one interval")
    levels: int = Field(18, ge=1, le=65536, description="quantisation steps within one interval")
    rope_base: float = Field(10000.0, gt=1, description="RoPE frequency base")
    dimension: int | None = Field(
        None,
        gt=0,
        multiple_of=2,
        description="size of a space of their own in which positions turn; none: the whole embedding turns",
    )

    def rho(self, indices: IntArray) -> Float64Array:
        """The real-valued position of each level index, same shape as the input."""
        if self.mode == "relative":
            interval, fraction = np.divmod(indices, self.levels)
            return interval * self.delta + self.ell * fraction / self.levels
        return indices.astype(np.float64)


# -- levels -----------------------------------------------------------------------------------------------------------


def level_index(interval: Indices, along: Indices, length: Indices, levels: int) -> Indices:
    """Eq. 6, quantised: the level index of the chunk ``along`` chunks behind the beginning of its interval.

    ``interval`` is the number ``j`` of the interval in its document, ``length`` how many chunks the interval has; the
    three have one shape, which is the result's.
    """
    return interval * levels + levels * along // length


def level_indices(chunks: IntArray, offsets: IntArray, selected: Sequence[int], positions: Positions) -> IntArray:
    """The level index of each of the ``chunks``, same shape.

    Documents are laid end to end on one axis: ``offsets``, shape ``[documents + 1]``, holds where each begins.
    ``chunks`` and ``selected`` are positions on that axis; ``selected`` are strictly increasing.
    """
    if positions.mode == "none":
        return np.zeros_like(chunks)
    document = np.searchsorted(offsets, chunks, side="right") - 1
    start, end = offsets[document], offsets[document + 1]
    if positions.mode == "absolute":
        return chunks - start
    borders = np.asarray(selected, dtype=np.int64)
    following = np.searchsorted(borders, chunks, side="right")
    interval = following - np.searchsorted(borders, start, side="left")
    begin = np.where(interval > 0, np.append(borders, 0)[following - 1], start)
    close = np.minimum(np.append(borders, offsets[-1])[following], end)
    return level_index(interval, chunks - begin, close - begin, positions.levels)


def all_level_indices(offsets: IntArray, selected: Sequence[int], positions: Positions) -> IntArray:
    """:func:`level_indices` of every chunk on the axis, shape ``[offsets[-1]]``."""
    return level_indices(np.arange(offsets[-1], dtype=np.int64), offsets, selected, positions)


# -- rotation ---------------------------------------------------------------------------------------------------------


def rotate_pairs(
    even: Coordinates, odd: Coordinates, cosine: Coordinates, sine: Coordinates
) -> tuple[Coordinates, Coordinates]:
    """RoPE of coordinate pairs ``(even, odd)``; the four shapes broadcast. With ``-sine`` it is the rotation back."""
    return even * cosine - odd * sine, even * sine + odd * cosine


def cosine_and_sine(rho: Float64Array, dimension: int, rope_base: float) -> tuple[Float64Array, Float64Array]:
    """Cosine and sine of ``ρ * rope_base ** (-2p / d)``, the angle of coordinate pair ``p``; both ``[..., d / 2]``.

    ``rho`` has shape ``[...]``.
    """
    angle = rho[..., None] * rope_base ** (-np.arange(0, dimension, 2, dtype=np.float64) / dimension)
    return np.cos(angle), np.sin(angle)


@lru_cache(maxsize=KEPT_TABLES)
def interval_table(positions: Positions, dimension: int, interval: int) -> tuple[Float64Array, Float64Array]:
    """Cosines and sines of all levels of an interval, both ``[levels, dimension / 2]``; mode ``none`` has one level.

    They are cached, because computing them takes longer than using them.
    """
    if positions.mode == "none":
        return cosine_and_sine(np.zeros(1), dimension, positions.rope_base)
    level = interval * positions.levels + np.arange(positions.levels)
    return cosine_and_sine(positions.rho(level), dimension, positions.rope_base)


def rotate(vectors: Float64Array, rho: Float64Array, rope_base: float) -> Float64Array:
    """``R(ρ) v``: coordinate pair ``(2p, 2p+1)`` is rotated by ``rho * rope_base ** (-2p / d)``.

    ``vectors`` has shape ``[..., d]`` with even ``d``, ``rho`` broadcasts against ``[...]``. In float64, because it
    runs once a level, never once a chunk.
    """
    cosine, sine = cosine_and_sine(np.asarray(rho, dtype=np.float64), vectors.shape[-1], rope_base)
    return _interleaved(*rotate_pairs(vectors[..., 0::2], vectors[..., 1::2], cosine, sine))


def rotate_back(state: Float32Array, indices: IntArray, positions: Positions) -> Float64Array:
    """``R(-ρ) s`` at every level index, shape ``[len(indices), d]``; ``state`` has shape ``[d]``.

    Its inner product with a chunk is the state's with the chunk rotated to ``ρ``.
    """
    wide = state.astype(np.float64)
    if positions.mode == "none":
        return np.broadcast_to(wide, (len(indices), len(wide)))
    if positions.mode == "absolute" or positions.levels > TABLE_LEVELS:
        return rotate(wide, -positions.rho(indices), positions.rope_base)
    rotated = np.empty((len(indices), len(wide)))
    interval_of, level = np.divmod(indices, positions.levels)
    for interval in np.unique(interval_of).tolist():
        inside = interval_of == interval
        cosine, sine = (table[level[inside]] for table in interval_table(positions, len(wide), interval))
        rotated[inside] = _interleaved(*rotate_pairs(wide[0::2], wide[1::2], cosine, -sine))
    return rotated


def _interleaved(even: Float64Array, odd: Float64Array) -> Float64Array:
    """Coordinates ``even[0], odd[0], even[1], odd[1], ...``."""
    return np.stack((even, odd), axis=-1).reshape(*even.shape[:-1], 2 * even.shape[-1])
