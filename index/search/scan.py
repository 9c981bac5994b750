"""One read of what is stored, for all states of a step: the product of each candidate with the state as it sees it.

A rotated state changes from one level to the next, hundreds of times within a document. So a step rotates each state
once per level, into a table, and multiplies each chunk with the row of the table that its position asks for
(:mod:`index.search.kernels`): one pass over codes (:mod:`index.search.codes`), whatever documents they are of. Where embeddings are
on a GPU, half precision is read instead (:mod:`index.search.device_scan`).

Runs of rows are read one after the other, each for all states while it is in the cache, and shared out to torch's
number of threads.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from functools import lru_cache, partial
from typing import NamedTuple

import numpy as np
import torch

from index.arrays import Float32Array, Float64Array, Int16Array, IntArray
from index.search.device_scan import scan_halves
from index.search.kernels import largest_query, multiply, rotate_and_round
from index.search.positions import TABLE_LEVELS, Positions, level_indices, rotated, turns, unvisited_level_indices
from index.search.scope import Scope

ROW_BLOCK = 4096
"""Rows scored at once where each needs a rotation of its own."""

SHARED_ROWS = 4096
"""Rows, counted once a state, from which a step is worth more than one thread."""

TABLE_ROWS = 1 << 17
"""Most rotated states held at once: 100 MB for 384 dimensions."""

Visited = Mapping[int, Sequence[int]]
"""The chunks that a state has selected: by document, counted within the document."""


def scan(
    states: Float32Array,
    scope: Scope,
    selections: Sequence[Sequence[int]],
    positions: Positions,
    *,
    factor: float,
    summand: float,
) -> tuple[Float32Array, list[float]]:
    """``factor · <s, R(ρ) a> + summand`` of every candidate, and how far each state is from what it was rounded to.

    ``states`` has shape ``[states, d]``, the result ``[states, scope.size]``; a selection's positions are strictly
    increasing. What stands at selected positions means nothing.
    """
    values = np.empty((len(states), scope.size), dtype=np.float32)
    visited = [_by_document(scope, selected) for selected in selections]
    scan_halves(states, scope, visited, positions, values, factor=factor, summand=summand)
    if not scope.runs:
        return values, [0.0] * len(states)
    threads = torch.get_num_threads() if values.size >= SHARED_ROWS else 1
    if positions.mode == "absolute" or positions.levels > TABLE_LEVELS:
        for state, taken, out in zip(states, visited, values, strict=True):
            _scan_row_by_row(state, scope, taken, positions, out, factor=factor, summand=summand)
        return values, [0.0] * len(states)
    intervals = [_intervals(taken) if positions.mode == "relative" else 1 for taken in visited]
    errors: list[float] = []
    for low, high in _fitting(intervals, positions):
        inside = slice(low, high)
        tables = _rotate(states[inside], intervals[inside], positions, threads)
        _multiply(tables, scope, selections[inside], positions, values[inside], factor, summand, threads)
        errors += tables.errors
    return values, errors


def _multiply(
    tables: _Tables,
    scope: Scope,
    selections: Sequence[Sequence[int]],
    positions: Positions,
    values: Float32Array,
    factor: float,
    summand: float,
    threads: int,
) -> None:
    relative = positions.mode == "relative"
    asked = selections if relative else [()] * len(selections)  # what is selected changes no other position
    selected = np.array([position for each in asked for position in each], dtype=np.int64)
    ends = np.cumsum([len(each) for each in asked], dtype=np.int64)
    levels = positions.levels if relative else 1
    read = [
        partial(
            multiply,
            codes.numbers,
            starts,
            first_rows,
            counts,
            scope.offsets,
            selected,
            ends,
            levels,
            tables.numbers,
            tables.scales,
            tables.starts,
            factor * codes.scale,
            summand,
            values,
        )
        for codes, starts, first_rows, counts in scope.runs
    ]
    _share_out(read, threads)


def _by_document(scope: Scope, selected: Sequence[int]) -> dict[int, list[int]]:
    visited: dict[int, list[int]] = {}
    for position in selected:
        document = scope.document_of(position)
        visited.setdefault(document, []).append(position - int(scope.offsets[document]))
    return visited


def _intervals(visited: Visited) -> int:
    """Most intervals that a document is cut into."""
    return 1 + max(map(len, visited.values()), default=0)


# -- rotated states ---------------------------------------------------------------------------------------------------


class _Tables(NamedTuple):
    """Each state as each level sees it, ``numbers * scales``."""

    numbers: Int16Array
    """Shape ``[rows, d]``."""
    scales: Float64Array
    """Shape ``[rows]``."""
    starts: IntArray
    """The first row of each state's levels."""
    errors: list[float]
    """Of each state, the largest Euclidean distance of a rotated one from what stands for it."""


def _fitting(intervals: Sequence[int], positions: Positions) -> Iterator[tuple[int, int]]:
    """Ranges of states whose tables have room at once; one state at least."""
    low = rows = 0
    for at, count in enumerate(intervals):
        if at > low and rows + count * positions.levels > TABLE_ROWS:
            yield low, at
            low, rows = at, 0
        rows += count * positions.levels
    yield low, len(intervals)


def _rotate(states: Float32Array, intervals: Sequence[int], positions: Positions, threads: int) -> _Tables:
    """The states at all levels of their first so many intervals."""
    levels = positions.levels if positions.mode == "relative" else 1
    starts = np.cumsum([0, *intervals], dtype=np.int64) * levels
    dimension = states.shape[1]
    numbers = np.empty((int(starts[-1]), dimension), dtype=np.int16)
    scales = np.empty(len(numbers))
    errors = [0.0] * len(states)

    def fill(at: int) -> None:
        wide = states[at].astype(np.float64)
        for interval in range(intervals[at]):
            low = int(starts[at]) + interval * levels
            inside = slice(low, low + levels)
            cosine, sine = turns(positions, dimension, interval)
            error = rotate_and_round(wide, cosine, sine, largest_query(dimension), numbers[inside], scales[inside])
            errors[at] = max(errors[at], error)

    _share_out([partial(fill, at) for at in range(len(states))], threads)
    return _Tables(numbers, scales, starts[:-1], errors)


# -- where there are too many levels for a table ----------------------------------------------------------------------


def _scan_row_by_row(
    state: Float32Array,
    scope: Scope,
    visited: Visited,
    positions: Positions,
    values: Float32Array,
    *,
    factor: float,
    summand: float,
) -> None:
    """What :func:`scan` says, from the embeddings: each block of rows with the rotations that it needs."""
    level = unvisited_level_indices(np.diff(scope.offsets), positions)
    if positions.mode == "relative":
        for document, taken in visited.items():
            start, stop = scope.offsets[document : document + 2].tolist()
            level[start:stop] = level_indices(np.arange(stop - start), stop - start, taken, positions)
    for part in scope.parts:
        if part.half is not None:
            continue
        for low in range(0, len(part.matrix), ROW_BLOCK):
            rows = part.matrix[low : low + ROW_BLOCK]
            inside = slice(part.start + low, part.start + low + len(rows))
            distinct, row_level = np.unique(level[inside], return_inverse=True)
            table = rotated(state, distinct, positions).astype(np.float32)
            products = np.einsum("nd,nd->n", rows, table[row_level])
            values[inside] = np.float32(factor) * products + np.float32(summand)


# -- threads ----------------------------------------------------------------------------------------------------------


def _share_out(work: Sequence[Callable[[], object]], threads: int) -> None:
    """Do all of it, by so many threads; raises what one of them raises."""
    queue = deque(work)

    def take() -> None:
        while queue:
            try:
                task = queue.popleft()
            except IndexError:  # another thread took the last one
                return
            task()

    others = [_pool().submit(take) for _ in range(min(threads, len(work)) - 1)]
    try:
        take()
    finally:  # after a failure the others must not go on
        queue.clear()
        wait(others)
    for other in others:
        other.result()


@lru_cache(maxsize=1)
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(thread_name_prefix="scan")
