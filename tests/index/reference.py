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
from index.search.states import State

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


def inner(left: Sequence[float], right: Sequence[float]) -> float:
    return sum(x * y for x, y in zip(left, right, strict=True))


def product(state: State, chunk: Sequence[float], angle: float, function: QFunction) -> float:
    """``<s, R(rho) a>`` or, where positions have a space of their own, ``<s, a> + <u, R(rho) P a>``."""
    embedding, base = [float(x) for x in state.embedding], function.positions.rope_base
    if function.order_map is None:
        return inner(embedding, rotated(chunk, angle, base))
    assert state.order is not None
    in_order = [inner([float(x) for x in row], chunk) for row in function.order_map]
    return inner(embedding, chunk) + inner([float(x) for x in state.order], rotated(in_order, angle, base))


def rarity(token: int, bags: Sequence[Sequence[int]], function: QFunction) -> float:
    """BM25's rarity among the chunks, as a share of the largest, and the checkpoint's as if of 1,000 chunks more."""
    assert function.lexical is not None
    count, prior = len(bags), float(function.lexical.rarity[token])
    if prior == 0:
        return 0.0
    found = sum(token in bag for bag in bags)
    here = math.log(1 + (count - found + 0.5) / (found + 0.5)) / math.log(1 + (count + 0.5) / 0.5)
    return (100 * prior + count * here) / (100 + count)


def lexical(state: State, bags: Sequence[Sequence[int]], function: QFunction) -> list[float]:
    """``v`` times the sum over the state's tokens of weight, rarity and BM25's saturated count, in each chunk."""
    if function.lexical is None:
        return [0.0] * len(bags)
    assert state.terms is not None
    saturation = function.lexical.saturation
    mean_length = (100 * saturation.mean_length + sum(map(len, bags))) / (100 + len(bags))
    rarities = [rarity(token, bags, function) for token in state.terms.tokens.tolist()]
    values = []
    for bag in map(list, bags):
        length = 1 - saturation.b + saturation.b * len(bag) / mean_length
        total = 0.0
        for token, weight, rare in zip(
            state.terms.tokens.tolist(), state.terms.weights.tolist(), rarities, strict=True
        ):
            count = bag.count(token)
            total += weight * rare * count * (saturation.k1 + 1) / (count + saturation.k1 * length)
        values.append(function.lexical.factor * total)
    return values


def q(
    state: State,
    chunks: Array,
    counts: Sequence[int],
    selected: Sequence[int],
    function: QFunction,
    bags: Sequence[Sequence[int]] = (),
) -> NDArray[np.float64]:
    """``w * product + b`` of every chunk of the documents laid end to end, plus the lexical signal.

    The first is averaged with that of what stands beside it and is not selected, where that counts. ``-inf`` where
    selected.
    """
    values: list[float] = []
    first = 0
    for count in counts:
        inside = [p - first for p in selected if first <= p < first + count]
        for i in range(count):
            if i in inside:
                values.append(-math.inf)
                continue
            angle = rho(i, count, inside, function.positions)
            values.append(
                function.w * product(state, [float(x) for x in chunks[first + i]], angle, function) + function.b
            )
        first += count
    own, of_tokens = list(values), lexical(state, bags, function) if bags else [0.0] * len(values)
    for i in range(len(own)):
        start = max(border for border in np.cumsum([0, *counts]).tolist() if border <= i)
        end = min(border for border in np.cumsum(counts).tolist() if border > i)
        beside = [own[j] for j in (i - 1, i + 1) if start <= j < end and j not in selected]
        if i not in selected:
            values[i] = (own[i] + state.surroundings * sum(beside)) / (1 + state.surroundings * len(beside))
            values[i] += of_tokens[i]
    return np.array(values, dtype=np.float64)


def q_of(
    state: Array | State,
    scope: MatrixScope,
    selected: Sequence[int],
    function: QFunction,
    bags: Sequence[Sequence[int]] = (),
) -> NDArray[np.float64]:
    """:func:`q` over a scope."""
    chunks = np.concatenate([np.asarray(part.matrix) for part in scope.matrices.parts])
    whole = state if isinstance(state, State) else State(np.asarray(state))
    return q(whole, chunks, np.diff(scope.offsets).tolist(), selected, function, bags)


def ranking(values: NDArray[np.float64]) -> list[int]:
    """Positions that are not selected by falling value, equal ones in document order."""
    return [int(p) for p in np.argsort(-values, kind="stable") if values[p] > -math.inf]
