"""One read of all candidates for all states of a step: the product of each candidate with a query of each state.

A state's query changes from one level to the next, hundreds of times within a document
(:mod:`index.search.turning`). So a step makes each state's queries once a level, into a table, and multiplies each
chunk with the row of the table that its position selects (:mod:`index.search.scanning.kernels`): one pass over codes
(:mod:`index.search.scanning.codes`), whatever documents they belong to. Where embeddings are on a GPU, half precision
is read instead (:mod:`index.search.scanning.device_scan`).

Runs of rows are read one after the other, each for all states while it is in the cache, on as many threads as torch
uses.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np

from index.arrays import Float32Array
from index.search.positions import TABLE_LEVELS, all_level_indices, interval_table
from index.search.scanning.device_scan import scan_halves
from index.search.scanning.kernels import Selections, Tables, largest_query, map_and_round, multiply, rotate_and_round
from index.search.scanning.matrices import Matrices
from index.search.scanning.threads import run_tasks, thread_count
from index.search.states import State, States
from index.search.turning import Turning

ROTATED_ROWS = 4096
"""Rows scored at once where each needs a rotation of its own."""

TABLE_ROWS = 1 << 17
"""Most rotated states held at once: 100 MB for 384 dimensions."""


def scan(
    states: States,
    matrices: Matrices,
    selections: Sequence[Sequence[int]],
    turning: Turning,
    values: Float32Array,
    *,
    factor: float,
    summand: float,
) -> list[float]:
    """Add ``factor · <q, a> + summand`` of every candidate to ``values``, shape ``[states, matrices.size]``.

    ``q`` is the state's query at the candidate's level (:mod:`index.search.turning`). Returns the Euclidean rounding
    error of each state's queries. The positions of a selection are strictly increasing, and the values added at them
    are meaningless.
    """
    scan_halves(states, matrices, selections, turning, values, factor=factor, summand=summand)
    if not matrices.runs:
        return [0.0] * len(states)
    positions = turning.positions
    threads = thread_count(values)
    if positions.mode == "absolute" or positions.levels > TABLE_LEVELS:
        for state, selected, out in zip(states, selections, values, strict=True):
            _scan_row_by_row(state, matrices, selected, turning, out, factor=factor, summand=summand)
        return [0.0] * len(states)
    relative = positions.mode == "relative"
    levels = positions.levels if relative else 1
    # Without relative positions, selections split no document into intervals.
    splits = selections if relative else [()] * len(selections)
    intervals = [_most_intervals(matrices, selected) for selected in splits]
    errors: list[float] = []
    for low, high in _state_ranges(intervals, levels):
        inside = slice(low, high)
        tables, table_errors = _tabulate(states.between(low, high), intervals[inside], turning, levels, threads)
        errors += table_errors
        together = _flattened(splits[inside])
        tasks = [
            partial(multiply, runs, matrices.offsets, together, tables, levels, factor, summand, values[inside])
            for runs in matrices.runs
        ]
        run_tasks(tasks, threads)
    return errors


def _most_intervals(matrices: Matrices, selected: Sequence[int]) -> int:
    """The number of intervals of the document that ``selected`` positions split into most."""
    documents = Counter(map(matrices.document_of, selected))
    return 1 + max(documents.values(), default=0)


def _flattened(selections: Sequence[Sequence[int]]) -> Selections:
    positions = np.array([position for selected in selections for position in selected], dtype=np.int64)
    return Selections(positions, np.cumsum([len(selected) for selected in selections], dtype=np.int64))


# -- the queries of states --------------------------------------------------------------------------------------------


def _state_ranges(intervals: Sequence[int], levels: int) -> Iterator[tuple[int, int]]:
    """Ranges of states whose tables have at most :data:`TABLE_ROWS` rows; one state at least."""
    low = rows = 0
    for number, count in enumerate(intervals):
        if number > low and rows + count * levels > TABLE_ROWS:
            yield low, number
            low, rows = number, 0
        rows += count * levels
    yield low, len(intervals)


def _tabulate(
    states: States, intervals: Sequence[int], turning: Turning, levels: int, threads: int
) -> tuple[Tables, list[float]]:
    """The states' queries at all ``levels`` of each of their first ``intervals``, and each state's rounding error."""
    starts = np.cumsum([0, *intervals], dtype=np.int64) * levels
    dimension = states.embeddings.shape[1]
    largest = largest_query(dimension)
    numbers = np.empty((int(starts[-1]), dimension), dtype=np.int16)
    scales = np.empty(len(numbers))
    errors = [[0.0] * count for count in intervals]

    def fill(number: int, interval: int) -> None:
        state = states[number]
        wide = state.embedding.astype(np.float64)
        low = int(starts[number]) + interval * levels
        inside = slice(low, low + levels)
        if turning.order_map is None:
            cosine, sine = interval_table(turning.positions, dimension, interval)
            error = rotate_and_round(wide, cosine, sine, largest, numbers[inside], scales[inside])
        else:
            asks = turning.turned_order(state, np.arange(interval * levels, (interval + 1) * levels))
            error = map_and_round(wide, asks, turning.order_map, largest, numbers[inside], scales[inside])
        errors[number][interval] = error

    tasks = [partial(fill, number, interval) for number, count in enumerate(intervals) for interval in range(count)]
    run_tasks(tasks, threads)
    return Tables(numbers, scales, starts[:-1]), [max(of_state) for of_state in errors]


# -- where there are too many levels for a table ----------------------------------------------------------------------


def _scan_row_by_row(
    state: State,
    matrices: Matrices,
    selected: Sequence[int],
    turning: Turning,
    values: Float32Array,
    *,
    factor: float,
    summand: float,
) -> None:
    """Scan the embeddings themselves for one state: each block of rows with the rotations that it needs."""
    level = all_level_indices(matrices.offsets, selected, turning.positions)
    for part in matrices.parts:
        if part.half is not None:
            continue
        for low in range(0, len(part.matrix), ROTATED_ROWS):
            rows = part.matrix[low : low + ROTATED_ROWS]
            inside = slice(part.start + low, part.start + low + len(rows))
            distinct, table_rows = np.unique(level[inside], return_inverse=True)
            table = turning.queries(state, distinct).astype(np.float32)
            products = np.einsum("nd,nd->n", rows, table[table_rows])
            values[inside] += np.float32(factor) * products + np.float32(summand)
