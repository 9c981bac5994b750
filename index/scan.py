"""One read of what is stored, for all states of a step: the product of each candidate with the state as it sees it.

A rotated state changes from one run of chunks to the next, hundreds of times within a document, so a step is a
handful of plain matrix-vector products over slices. What the slices are of:

* **8-bit codes** on a CPU (:mod:`index.codes`): those of a long document run by run, those of short ones level by
  level, for the codes of a segment lie in that order. The products are exact; how far codes are from what they stand
  for is bounded.
* **The embeddings themselves** where few rows of a segment are asked for: documents that had something selected, and
  narrow filters. They are scored row by row against a table of rotated states.
* **Half precision** on a GPU (:mod:`index.device_scan`).

Parts are read one after the other, each for all states while it is in the cache, and shared out to torch's number of
threads: the products release the interpreter lock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cached_property, lru_cache, partial
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch

from index.codes import LONG_DOCUMENT, Codes, Int32Array, Queries, SortedCodes, encode_each, multiply
from index.device_scan import scan_halves
from index.positions import IntArray, Positions, level_indices, rotated, runs, unvisited_level_indices
from index.scope import Float32Array, Part, Scope

ROW_BLOCK = 4096
"""Rows scored at once row by row: the block and its table of rotated states stay in the cache."""

SMALL_PART = 256
"""Rows below which neighbouring parts are scored together, as copies: a filter may leave single rows."""

SPARSE = 4
"""Where less than a quarter of a segment is asked for, its codes are not read."""

SHARED_ROWS = 16_384
"""Rows, counted once a state, from which a step is worth more than one thread."""


class RotatedState:
    """A state as some level indices see it: in whole numbers, and in single precision where that is asked for."""

    def __init__(self, state: Float32Array, level_index: IntArray, positions: Positions) -> None:
        self._state, self._positions = state, positions
        self.levels = level_index
        """Strictly increasing."""
        self.codes = encode_each(rotated(state, level_index, positions))

    @cached_property
    def vectors(self) -> Float32Array:
        """Shape ``[levels, d]``."""
        return rotated(self._state, self.levels, self._positions).astype(np.float32)

    def rows(self, level_index: IntArray) -> IntArray:
        """Where each of these level indices is in the tables, same shape."""
        return np.searchsorted(self.levels, level_index)


class _Step(NamedTuple):
    """What is asked, and where the answers go."""

    states: Float32Array
    scope: Scope
    visited: list[dict[int, list[int]]]
    """Of each state: by document the chunks selected, counted within the document."""
    positions: Positions
    values: Float32Array
    views: list[list[RotatedState]]
    """Of each state, those whose codes are read."""
    unvisited: list[RotatedState]
    """Of each state, what long documents with nothing selected need."""


def scan(
    states: Float32Array, scope: Scope, selections: Sequence[Sequence[int]], positions: Positions
) -> tuple[Float32Array, list[float]]:
    """``<s, R(ρ) a>`` of every candidate, shape ``[states, scope.size]``, and how far each state is from its codes.

    ``states`` has shape ``[states, d]``; a selection's positions are strictly increasing; what stands at
    selected positions means nothing.
    """
    values = np.zeros((len(states), scope.size), dtype=np.float32)
    visited = [_by_document(scope, selected) for selected in selections]
    scan_halves(states, scope, visited, positions, values)
    step = _Step(states, scope, visited, positions, values, [[] for _ in states], [])
    work: list[Task] = []
    for first, last in _stretches(scope.offsets):
        long = last - first == 1 and scope.offsets[last] - scope.offsets[first] >= LONG_DOCUMENT
        work += _long_document(step, first) if long and positions.mode != "absolute" else _short_ones(step, first, last)
    _share_out(work, values.size)
    # Over what the documents' chunks got as if nothing was selected.
    _share_out(list(_visited_again(step)), values.size)
    return values, [max((view.codes.error for view in views), default=0.0) for views in step.views]


Task = Callable[[], None]


def _share_out(work: Sequence[Task], rows: int) -> None:
    threads = torch.get_num_threads() if rows >= SHARED_ROWS else 1
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


def _by_document(scope: Scope, selected: Sequence[int]) -> dict[int, list[int]]:
    visited: dict[int, list[int]] = {}
    for position in selected:
        document = scope.document_of(position)
        visited.setdefault(document, []).append(position - int(scope.offsets[document]))
    return visited


def _stretches(offsets: IntArray) -> Iterator[tuple[int, int]]:
    """Document ranges ``[first, last)`` scored alike: one long document, or neighbouring short ones."""
    counts = np.diff(offsets)
    long = np.flatnonzero(counts >= LONG_DOCUMENT)
    return pairwise(sorted({0, len(counts), *long.tolist(), *(long + 1).tolist()}))


# -- long documents ---------------------------------------------------------------------------------------------------


class _Seen(NamedTuple):
    """How a state sees a document: which of its rotations each run of chunks needs."""

    view: RotatedState
    starts: IntArray
    """Of each run, on the candidate axis."""
    rows: IntArray
    """Of the view's tables, same shape."""


def _long_document(step: _Step, document: int) -> list[Task]:
    start, stop = step.scope.offsets[document : document + 2].tolist()
    pieces = _mapped(step.scope.pieces(start, stop))
    if not pieces:
        return []
    if not step.unvisited:  # the same for all documents: there may be hundreds
        levels = np.arange(step.positions.levels if step.positions.mode == "relative" else 1)
        step.unvisited.extend(RotatedState(state, levels, step.positions) for state in step.states)
    coded = any(piece.codes is not None for piece in pieces)
    seen = []
    for number, visited in enumerate(step.visited):
        taken = visited.get(document, [])
        found = runs(stop - start, taken, step.positions)
        view = step.unvisited[number]
        if taken:
            view = RotatedState(step.states[number], np.unique(found.level_index), step.positions)
        if coded:
            step.views[number].append(view)
        seen.append(_Seen(view, start + found.starts, view.rows(found.level_index)))
    return [partial(_multiply_runs, piece, seen, step.values) for piece in pieces]


def _mapped(pieces: Iterable[Part]) -> list[Part]:
    """Those that no GPU scores."""
    return [piece for piece in pieces if piece.half is None]


def _multiply_runs(piece: Part, seen: Sequence[_Seen], values: Float32Array) -> None:
    end = piece.start + len(piece.matrix)
    for (view, starts, rows), out in zip(seen, values, strict=True):
        first, last = int(starts.searchsorted(piece.start, "right")) - 1, int(starts.searchsorted(end, "left"))
        borders = np.append(np.maximum(starts[first:last], piece.start), end) - piece.start
        if piece.codes is None:
            for (low, high), row in zip(pairwise(borders.tolist()), rows[first:last].tolist(), strict=True):
                np.matmul(piece.matrix[low:high], view.vectors[row], out=out[piece.start + low : piece.start + high])
        else:
            _multiply_codes(piece.codes, view.codes, borders, rows[first:last], out[piece.start : end])


def _multiply_codes(codes: Codes, queries: Queries, borders: IntArray, rows: IntArray, out: Float32Array) -> None:
    """Products of codes with the query of this row of each run; run ``i`` is ``borders[i] <= place < borders[i + 1]``.

    ``out`` has the shape of all of them, ``[borders[-1]]``; the first run begins at 0.
    """
    whole = np.empty((1, len(out)))
    numbers, vectors = codes.numbers, queries.numbers
    low = 0
    for high, row in zip(borders[1:].tolist(), rows.tolist(), strict=True):
        multiply(numbers[low:high], vectors[row : row + 1], whole[:, low:high])
        low = high
    np.multiply(whole[0], np.repeat(codes.scale * queries.scales[rows], np.diff(borders)), out=out, casting="same_kind")


# -- short documents --------------------------------------------------------------------------------------------------


class _Block(NamedTuple):
    """What is asked for of one segment, and the runs of its codes that see a state alike."""

    codes: Codes
    """From the first place that is asked for to the last."""
    borders: IntArray
    """Where each run begins, and where the last one ends, counted from the first place."""
    rows: IntArray
    """Which of the plan's levels each run is at."""
    places: Int32Array
    """Of the chunks that are asked for; between them lie others."""
    targets: slice | Int32Array
    """Where on the candidate axis they stand, same shape: mostly side by side."""


class _Plan(NamedTuple):
    """How neighbouring short documents with nothing selected are scored; the same for all states."""

    levels: IntArray
    """All that the blocks need, strictly increasing."""
    blocks: list[_Block]
    loose: list[Part]
    """What is scored row by row."""


def _short_ones(step: _Step, first: int, last: int) -> list[Task]:
    plan = _plan(step.scope, first, last, step.positions)
    views = [RotatedState(state, plan.levels, step.positions) for state in step.states]
    if plan.blocks:
        for known, view in zip(step.views, views, strict=True):
            known.append(view)
    work: list[Task] = [partial(_multiply_block, block, views, step.values) for block in plan.blocks]
    if plan.loose:
        levels = unvisited_level_indices(np.diff(step.scope.offsets[first : last + 1]), step.positions)
        start = int(step.scope.offsets[first])
        work += [
            partial(_multiply_rows, step, state, group, levels, start)
            for group in _grouped(plan.loose)
            for state in range(len(step.states))
        ]
    return work


def _plan(scope: Scope, first: int, last: int, positions: Positions) -> _Plan:
    key = (first, positions.mode, positions.levels)
    if key not in scope.plans:
        scope.plans[key] = _make_plan(scope, first, last, positions)
    plan: _Plan = scope.plans[key]
    return plan


def _make_plan(scope: Scope, first: int, last: int, positions: Positions) -> _Plan:
    start, stop = int(scope.offsets[first]), int(scope.offsets[last])
    segments: dict[int, list[Part]] = {}
    loose: list[Part] = []
    for piece in _mapped(scope.pieces(start, stop)):
        if piece.sorted_codes is None or positions.mode == "absolute":
            loose.append(piece)
        else:
            segments.setdefault(id(piece.sorted_codes), []).append(piece)
    asked: list[tuple[Codes, Int32Array, Int32Array]] = []
    for members in segments.values():
        sorted_codes = members[0].sorted_codes
        assert sorted_codes is not None
        if SPARSE * sum(len(piece.matrix) for piece in members) < len(sorted_codes.rows):
            loose += members
        else:
            asked.append((sorted_codes.codes, *_places(sorted_codes, members)))
    levels = unvisited_level_indices(np.diff(scope.offsets[first : last + 1]), positions)
    distinct = np.unique(np.concatenate([levels[targets - start] for _, _, targets in asked])) if asked else levels[:0]
    blocks = [
        _block(codes, places, targets, np.searchsorted(distinct, levels[targets - start]))
        for codes, places, targets in asked
    ]
    return _Plan(distinct, blocks, sorted(loose, key=lambda piece: piece.start))


def _places(sorted_codes: SortedCodes, members: Sequence[Part]) -> tuple[Int32Array, Int32Array]:
    """Where the codes of some parts of a segment are, in order, and where each stands on the candidate axis."""
    position = np.full(len(sorted_codes.rows), -1, dtype=np.int32)
    for piece in members:
        rows = len(piece.matrix)
        position[piece.first_row : piece.first_row + rows] = np.arange(piece.start, piece.start + rows)
    targets = position[sorted_codes.rows]
    places = np.flatnonzero(targets >= 0).astype(np.int32)
    return places, targets[places]


def _block(codes: Codes, places: Int32Array, targets: Int32Array, row: IntArray) -> _Block:
    begins = np.flatnonzero(np.diff(row, prepend=-1))
    first, end = int(places[0]), int(places[-1]) + 1
    as_asked = np.argsort(targets)
    where = targets[as_asked]
    side_by_side = where[-1] - where[0] + 1 == len(where)
    return _Block(
        codes.cut(first, end),
        np.append(places[begins], end).astype(np.int64) - first,
        row[begins],
        places[as_asked] - np.int32(first),
        slice(int(where[0]), int(where[-1]) + 1) if side_by_side else where,
    )


def _multiply_block(block: _Block, views: Sequence[RotatedState], values: Float32Array) -> None:
    by_place = np.empty(len(block.codes.numbers), dtype=np.float32)
    for view, out in zip(views, values, strict=True):
        _multiply_codes(block.codes, view.codes, block.borders, block.rows, by_place)
        out[block.targets] = by_place.take(block.places)


# -- row by row -------------------------------------------------------------------------------------------------------


def _visited_again(step: _Step) -> Iterator[Task]:
    """Short documents with something selected."""
    if step.positions.mode != "relative":  # what is selected changes no position
        return
    offsets = step.scope.offsets
    for state, visited in enumerate(step.visited):
        for document, taken in visited.items():
            start, stop = offsets[document : document + 2].tolist()
            if stop - start < LONG_DOCUMENT:
                levels = level_indices(np.arange(stop - start), stop - start, taken, step.positions)
                for group in _grouped(_mapped(step.scope.pieces(start, stop))):
                    yield partial(_multiply_rows, step, state, group, levels, start)


def _multiply_rows(step: _Step, state: int, group: Sequence[Part], levels: IntArray, start: int) -> None:
    """Score neighbouring parts row by row; ``levels[0]`` is that of the candidate at ``start``."""
    matrix = group[0].matrix if len(group) == 1 else np.concatenate([part.matrix for part in group])
    for low in range(0, len(matrix), ROW_BLOCK):
        rows = matrix[low : low + ROW_BLOCK]
        at = group[0].start + low
        distinct, row_level = np.unique(levels[at - start : at - start + len(rows)], return_inverse=True)
        table = rotated(step.states[state], distinct, step.positions).astype(np.float32)
        step.values[state, at : at + len(rows)] = np.einsum("nd,nd->n", rows, table[row_level])


def _grouped(parts: Iterable[Part]) -> Iterator[list[Part]]:
    """The parts, small neighbours together: they are too few rows to pay for a call each."""
    small: list[Part] = []
    for part in parts:
        fits = len(part.matrix) < SMALL_PART and len(small) < SMALL_PART
        if small and not (fits and part.start == small[-1].start + len(small[-1].matrix)):
            yield small
            small = []
        if len(part.matrix) < SMALL_PART:
            small.append(part)
        else:
            yield [part]
    if small:
        yield small
