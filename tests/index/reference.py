"""DESIGN.md's formulas as written: one chunk and one coordinate pair after the other, in float64.

Nothing here is fast and nothing is shared with ``index``: the chunk's embedding is rotated, not the state's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from index.search.function import QFunction
from index.search.matrix_scope import MatrixScope
from index.search.positions import Positions

Array = NDArray[np.floating]


def rho(i: int, count: int, selected: Sequence[int], positions: Positions) -> float:
    """Position of chunk ``i`` of a document of ``count`` chunks (eq. 6, quantised)."""
    if positions.mode == "none":
        return 0.0
    if positions.mode == "absolute":
        return float(i)
    borders = [0, *selected, count]
    (j,) = (j for j in range(len(borders) - 1) if borders[j] <= i < borders[j + 1])
    level = positions.levels * (i - borders[j]) // (borders[j + 1] - borders[j])
    return j * positions.delta + positions.ell * level / positions.levels


def rotated(vector: Sequence[float], angle: float, rope_base: float) -> list[float]:
    """``R(angle) vector``: RoPE over the coordinate pairs."""
    result = []
    for pair in range(len(vector) // 2):
        theta = angle * rope_base ** (-2 * pair / len(vector))
        x, y = vector[2 * pair], vector[2 * pair + 1]
        result += [x * math.cos(theta) - y * math.sin(theta), x * math.sin(theta) + y * math.cos(theta)]
    return result


def q(
    state: Array, chunks: Array, counts: Sequence[int], selected: Sequence[int], function: QFunction
) -> NDArray[np.float64]:
    """``w * <s, R(rho) a> + b`` of every chunk of the documents laid end to end; ``-inf`` where selected."""
    wide = [float(x) for x in state]
    values = []
    first = 0
    for count in counts:
        inside = [p - first for p in selected if first <= p < first + count]
        for i in range(count):
            if i in inside:
                values.append(-math.inf)
                continue
            angle = rho(i, count, inside, function.positions)
            chunk = rotated([float(x) for x in chunks[first + i]], angle, function.positions.rope_base)
            values.append(function.w * sum(s * a for s, a in zip(wide, chunk, strict=True)) + function.b)
        first += count
    return np.array(values, dtype=np.float64)


def q_of(state: Array, scope: MatrixScope, selected: Sequence[int], function: QFunction) -> NDArray[np.float64]:
    """:func:`q` over a scope."""
    chunks = np.concatenate([np.asarray(part.matrix) for part in scope.matrices.parts])
    return q(state, chunks, np.diff(scope.offsets).tolist(), selected, function)


def ranking(values: NDArray[np.float64]) -> list[int]:
    """Positions that are not selected by falling value, equal ones in document order."""
    return [int(p) for p in np.argsort(-values, kind="stable") if values[p] > -math.inf]
