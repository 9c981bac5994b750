"""The inner loops of a search, compiled by Numba for the processor at hand.

All run without the interpreter lock. They are compiled when they are called for the first time, and kept in Numba's
cache on the disk from then on.

Two repeat the formulas of :mod:`index.search.positions`: :func:`rotate_and_round` rotates pair by pair
while it rounds, and :func:`multiply` walks along the candidate axis with an integer counter instead of a division for
each chunk.
"""

from __future__ import annotations

from contextlib import suppress
from typing import NamedTuple

import numpy as np

from index.arrays import Float32Array, Float64Array, Int16Array, IntArray
from index.search.scanning.bags import Postings, count_rows, count_terms, index_bags
from index.search.scanning.codes import LARGEST, Codes
from index.search.scanning.compiling import compiled
from index.search.scanning.matrices import Runs


def largest_query(dimension: int) -> int:
    """The largest magnitude of a query's numbers with which a product of query and code fits four bytes."""
    return int(min(np.iinfo(np.int16).max, np.iinfo(np.int32).max // (LARGEST * dimension)))


@compiled(fastmath=True)
def rotate_and_round(
    state: Float64Array,
    cosine: Float64Array,
    sine: Float64Array,
    largest: int,
    numbers: Int16Array,
    scales: Float64Array,
) -> float:
    """Write ``R(-ρ) s`` at each level into ``numbers * scales``; returns the largest Euclidean rounding error.

    ``state`` has shape ``[d]``, ``cosine`` and ``sine`` ``[levels, d / 2]``, ``numbers`` ``[levels, d]`` and ``scales``
    ``[levels]``; no number exceeds ``largest`` in magnitude.
    """
    rotated = np.empty(len(state))
    farthest = 0.0
    for level in range(len(scales)):
        peak = 0.0
        for pair in range(len(state) // 2):
            even, odd = state[2 * pair], state[2 * pair + 1]
            c, s = cosine[level, pair], sine[level, pair]
            rotated[2 * pair] = even * c + odd * s
            rotated[2 * pair + 1] = odd * c - even * s
        for i in range(len(state)):
            peak = max(peak, abs(rotated[i]))
        scale = peak / largest if peak > 0.0 else 1.0
        square = 0.0
        for i in range(len(state)):
            whole = np.rint(rotated[i] / scale)
            numbers[level, i] = np.int16(whole)
            square += (rotated[i] - whole * scale) ** 2
        scales[level] = scale
        farthest = max(farthest, square)
    return np.sqrt(farthest)  # type: ignore[no-any-return]


@compiled(fastmath=True)
def map_and_round(
    state: Float64Array,
    asks: Float64Array,
    order_map: Float64Array,
    largest: int,
    numbers: Int16Array,
    scales: Float64Array,
) -> float:
    """Write ``s + Pᵀ v`` for each row ``v`` of ``asks`` into ``numbers * scales``; returns the largest rounding error.

    ``asks`` has shape ``[levels, k]`` and ``order_map``, ``P``, ``[k, d]``; the others are those of
    :func:`rotate_and_round`.
    """
    query = np.empty(len(state))
    farthest = 0.0
    for level in range(len(scales)):
        query[:] = state
        for row in range(len(order_map)):
            ask = asks[level, row]
            for i in range(len(query)):
                query[i] += ask * order_map[row, i]
        peak = 0.0
        for i in range(len(query)):
            peak = max(peak, abs(query[i]))
        scale = peak / largest if peak > 0.0 else 1.0
        square = 0.0
        for i in range(len(query)):
            whole = np.rint(query[i] / scale)
            numbers[level, i] = np.int16(whole)
            square += (query[i] - whole * scale) ** 2
        scales[level] = scale
        farthest = max(farthest, square)
    return np.sqrt(farthest)  # type: ignore[no-any-return]


class Selections(NamedTuple):
    """The selected positions of several states."""

    positions: IntArray
    """One state after the other, increasing within each state."""
    ends: IntArray
    """Where each state's positions end."""


class Tables(NamedTuple):
    """Several states rotated back from each level, ``numbers * scales``."""

    numbers: Int16Array
    """Shape ``[rows, d]``."""
    scales: Float64Array
    """Shape ``[rows]``."""
    starts: IntArray
    """The first row of each state: from there on ``levels`` rows for each interval of a document."""


@compiled(fastmath=False)
def multiply(
    runs: Runs,
    offsets: IntArray,
    selections: Selections,
    tables: Tables,
    levels: int,
    factor: float,
    summand: float,
    values: Float32Array,
) -> None:
    """Add ``factor · <s, R(ρ) â> + summand`` of the candidates in ``runs`` to ``values``, ``[states, candidates]``.

    ``offsets`` are those of the scope. Each run is scored for all states while it is in the cache.
    """
    codes, starts, first_rows, counts = runs.codes.numbers, runs.starts, runs.first_rows, runs.counts
    selected = selections.positions
    numbers, scales = tables.numbers, tables.scales
    product_scale = factor * runs.codes.scale
    for run in range(len(starts)):
        start, end = starts[run], starts[run] + counts[run]
        shift = first_rows[run] - start
        first_document = np.searchsorted(offsets, start, side="right") - 1
        for state in range(len(values)):
            document = first_document
            border = selections.ends[state - 1] if state else 0
            last_border = selections.ends[state]
            while border < last_border and selected[border] < offsets[document]:
                border += 1
            begin, interval = offsets[document], 0
            first = start
            while first < end:
                # From `first` to the next border behind it: all of these are in one interval of one document.
                if first == offsets[document + 1]:
                    document += 1
                    begin, interval = first, 0
                while border < last_border and selected[border] <= first:
                    begin = selected[border]
                    border += 1
                    interval += 1
                close = offsets[document + 1]
                if border < last_border:
                    close = min(close, selected[border])
                # The level of a chunk is floor(levels * along / length). From one chunk to the next the dividend grows
                # by `levels`: the quotient by levels // length, the remainder by levels % length, and whenever the
                # remainder reaches the divisor the quotient grows by one more.
                length = close - begin
                dividend = levels * (first - begin)
                row = tables.starts[state] + interval * levels + dividend // length
                remainder = dividend % length
                quotient_step, remainder_step = levels // length, levels % length
                for position in range(first, min(close, end)):
                    product = np.int32(0)
                    code, query = codes[position + shift], numbers[row]
                    for i in range(len(code)):
                        product = np.int32(product + np.int32(np.int16(code[i]) * query[i]))
                    values[state, position] += np.float32(product * scales[row] * product_scale + summand)
                    row += quotient_step
                    remainder += remainder_step
                    if remainder >= length:
                        remainder -= length
                        row += 1
                first = min(close, end)


class Terms(NamedTuple):
    """The tokens that several states search, one state after the other."""

    tokens: IntArray
    weights: Float64Array
    """What a chunk gets for a token, were its occurrences not saturated."""
    ends: IntArray
    """Where each state's tokens end."""


@compiled(fastmath=False)
def add_terms(
    postings: Postings, first_row: int, count: int, terms: Terms, flat: float, slope: float, values: Float32Array
) -> None:
    """Add the weights of the terms in ``count`` rows to ``values``, shape ``[states, count]``.

    A row with ``f`` occurrences among ``length`` tokens gets ``weight · f / (f + flat + slope · length)``.
    """
    last_row = first_row + count
    begin = 0
    for state in range(len(terms.ends)):
        for term in range(begin, terms.ends[state]):
            token, weight = terms.tokens[term], terms.weights[term]
            place = np.searchsorted(postings.tokens, token)
            if weight == 0.0 or place == len(postings.tokens) or postings.tokens[place] != token:
                continue
            low, high = postings.borders[place], postings.borders[place + 1]
            if first_row:
                low += np.searchsorted(postings.rows[low:high], first_row)
            for entry in range(low, high):
                row = postings.rows[entry]
                if row >= last_row:
                    break
                occurrences = float(postings.counts[entry])
                share = occurrences / (occurrences + flat + slope * postings.lengths[row])
                values[state, row - first_row] += np.float32(weight * share)
        begin = terms.ends[state]


@compiled(fastmath=True)
def average_beside(
    own: Float32Array, offsets: IntArray, selected: IntArray, share: np.float32, values: Float32Array
) -> None:
    """Write the average of each of one state's values with those beside it in its document.

    ``own`` are the values, shape ``[candidates]``, ``offsets`` those of the scope, ``selected`` increasing positions,
    which do not count and are not written. A value becomes ``(own + share · sum) / (1 + share · number)``.
    """
    one, two = np.float32(1) / (np.float32(1) + share), np.float32(1) / (np.float32(1) + np.float32(2) * share)
    border = 0
    for document in range(len(offsets) - 1):
        start, end = offsets[document], offsets[document + 1]
        while start < end:
            # A run of chunks that have each other beside them: up to the next selected one.
            while border < len(selected) and selected[border] < start:
                border += 1
            stop = min(end, selected[border]) if border < len(selected) else end
            if stop - start == 1:
                values[start] = own[start]
            elif stop > start:
                values[start] = (own[start] + share * own[start + 1]) * one
                for position in range(start + 1, stop - 1):
                    values[position] = (own[position] + share * (own[position - 1] + own[position + 1])) * two
                values[stop - 1] = (own[stop - 1] + share * own[stop - 2]) * one
            start = stop + 1


def compile_loops() -> None:
    """Compile all loops, or load them from the cache, so that the first search does not have to."""
    numbers, scales, values = np.zeros((1, 2), dtype=np.int16), np.zeros(1), np.zeros((1, 1), dtype=np.float32)
    table, start, count = np.zeros((1, 1)), np.zeros(1, dtype=np.int64), np.ones(1, dtype=np.int64)
    codes = np.zeros((1, 2), dtype=np.int8)
    codes.flags.writeable = False
    runs = Runs(Codes(codes, 1.0, 0.0), start, start, count)
    nothing = Selections(start[:0], start)
    with suppress(OSError):  # on a full disk the compiled loop is not cached, but it is usable
        rotate_and_round(np.zeros(2), table, table, 1, numbers, scales)
    with suppress(OSError):
        multiply(runs, np.array([0, 1]), nothing, Tables(numbers, scales, start), 1, 1.0, 0.0, values)
    with suppress(OSError):
        map_and_round(np.zeros(2), table, np.zeros((1, 2)), 1, numbers, scales)
    with suppress(OSError):
        average_beside(values[0], np.array([0, 1]), start[:0], np.float32(0), values[0])
    with suppress(OSError):
        count_rows(index_bags([[0]]), 0, 1, start, np.zeros(1, dtype=np.int64))
    with suppress(OSError):
        count_terms(index_bags([[0]]), start, start, np.zeros((1, 1), dtype=np.int64))
    with suppress(OSError):
        add_terms(index_bags([[0]]), 0, 1, Terms(start, np.zeros(1), count), 1.0, 0.0, values)
