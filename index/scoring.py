"""Exact Q-values of every chunk a request may select, and the best of them.

``Q(s, i) = w · <E_s(s), R(ρ(i)) E_a(c_i)> + b``. Because ``<s, R(ρ)a> = <R(-ρ)s, a>`` it is the
*state* that is rotated, once per level, and the chunk matrix is only read: no rotated copy of it
ever exists.

Which part scores what, and why:

* **This module scores Q.** A rotated query changes from one run of chunks to the next (18 times and
  more within one document), so a step is a handful of plain matrix-vector products over memory-mapped
  slices: of 8-bit codes on a CPU (:mod:`index.codes`), whose products are exact and whose distance from
  the true ones is bounded; with torch on a GPU. Long documents are scored run by run; many short
  documents, whose runs are a few chunks long, row by row against a table of rotated states.
* **FAISS keeps the vectors** (:mod:`index.vectors`): its files on disk, memory-mapped without a copy, are
  the matrices read here. It also answers the one question that is a nearest-neighbour search
  with one fixed query: the one-step dense top-k that a trace shows beside the episode. Its flat
  search with id ranges would be exact for Q too, but was measured slower than the slices
  (``benchmarks/scan.py``).
* **float64 decides.** Codes and sums in single precision round differently than the true values order.
  All chunks within the error bound of the best are scored again in float64 from their embeddings, so the
  argmax is the argmax of exact arithmetic; ties go to the first chunk in document order.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from index.codes import Codes, Int8Array, encode_each, products
from index.positions import IntArray, Positions, Run, level_indices, rotate, runs, unvisited_level_indices

Float32Array = NDArray[np.float32]
Matrix = Float32Array | torch.Tensor
"""Chunk embeddings, shape ``[rows, d]`` float32: a memory-mapped array, or a tensor on a GPU."""

LONG_DOCUMENT = 2048
"""Chunks from which a document is scored run by run; below, runs are too short to pay for a call each."""

ROW_BLOCK = 4096
"""Rows scored at once row by row: the block and its table of rotated states stay in the cache."""

SMALL_PART = 256
"""Rows below which neighbouring parts are copied together before they are scored."""

DEVICE_ROW_BLOCK = 131_072
"""The same on a GPU: large enough to fill it, small enough to need little memory beside the matrix."""


@dataclass(frozen=True, slots=True)
class QFunction:
    """The scalars around the inner product, and the positions; part of a checkpoint."""

    w: float
    b: float
    positions: Positions


class Part(NamedTuple):
    """Candidates ``start <= position < start + len(matrix)``, backed by rows of one matrix."""

    start: int
    matrix: Matrix
    codes: Codes | None = None
    """Of the same rows, where there are any: read instead of the matrix until few candidates are left."""

    def cut(self, start: int, stop: int) -> Part:
        """The candidates ``start <= position < stop`` of it."""
        low, high = max(start - self.start, 0), min(stop - self.start, len(self.matrix))
        codes = None if self.codes is None else self.codes.cut(low, high)
        return Part(self.start + low, self.matrix[low:high], codes)


class Candidate(NamedTuple):
    """One chunk that could be selected: its position on the candidate axis and its Q-value."""

    position: int
    q: float


@dataclass(frozen=True)
class Scope:
    """The chunks one request may select from: the candidate axis.

    The documents' chunks are laid end to end. ``offsets`` has shape ``[documents + 1]``; document
    ``d`` has the positions ``offsets[d] <= position < offsets[d + 1]``. ``parts`` cover the axis in
    order. ``norm_bound`` bounds the Euclidean norm of every chunk embedding.
    """

    offsets: IntArray
    parts: tuple[Part, ...]
    norm_bound: float = 1.0

    @property
    def size(self) -> int:
        """Number of candidates."""
        return int(self.offsets[-1])

    @cached_property
    def stretches(self) -> tuple[tuple[int, int], ...]:
        """Document ranges ``[first, last)`` scored alike: one long document, or neighbouring short ones."""
        counts = np.diff(self.offsets)
        long = np.flatnonzero(counts >= LONG_DOCUMENT)
        edges = sorted({0, len(counts), *long.tolist(), *(long + 1).tolist()})
        return tuple(pairwise(edges))

    @cached_property
    def code_error(self) -> float | None:
        """Largest Euclidean distance of an embedding from its code; none where no part has codes."""
        return max((part.codes.error for part in self.parts if part.codes is not None), default=None)

    def document_of(self, position: int) -> int:
        """The document that the candidate at ``position`` belongs to."""
        return int(np.searchsorted(self.offsets, position, side="right")) - 1

    def pieces(self, start: int, stop: int) -> Iterable[Part]:
        """The parts that cover ``start <= position < stop``, cut to it."""
        first = int(np.searchsorted(self._part_starts, start, side="right")) - 1
        for part in self.parts[max(first, 0) :]:
            if part.start >= stop:
                return
            if start < part.start + len(part.matrix):
                yield part.cut(start, stop)

    def rows(self, positions: IntArray) -> Float32Array:
        """The embeddings at ``positions``, shape ``[len(positions), d]`` float32, on the CPU."""
        part_of = np.searchsorted(self._part_starts, positions, side="right") - 1
        rows = np.empty((len(positions), self.parts[0].matrix.shape[1]), dtype=np.float32)
        for number in np.unique(part_of).tolist():
            part, inside = self.parts[number], part_of == number
            rows[inside] = _rows(part.matrix, positions[inside] - part.start)
        return rows

    @cached_property
    def _part_starts(self) -> IntArray:
        return np.array([part.start for part in self.parts], dtype=np.int64)


class Estimate(NamedTuple):
    """Q-values that are each within ``error`` of the exact ones; ``-inf`` where already selected."""

    values: Float32Array
    """Shape ``[scope.size]``."""
    error: float


def estimate(state: Float32Array, scope: Scope, selected: Sequence[int], function: QFunction) -> Estimate:
    """``Q(s, i)`` of every candidate, as near as a single read of the codes (or else of the embeddings) tells.

    ``state`` is the state embedding, shape ``[d]``; ``selected`` are positions on the candidate
    axis, strictly increasing. See :func:`best` for the exact order.
    """
    values = np.zeros(scope.size, dtype=np.float32)
    queries = _Queries(state, function.positions)
    if function.positions.mode == "none":
        query = queries.of(np.zeros(1, dtype=np.int64))[0]
        for part in _joined(scope.parts):
            _multiply(part, query, values)
    else:
        _score_rotated(queries, scope, selected, function.positions, values)
    values *= np.float32(function.w)
    values += np.float32(function.b)
    values[list(selected)] = -np.inf
    return Estimate(values, _error(state, scope, queries.error, function))


def best(
    found: Estimate,
    count: int,
    state: Float32Array,
    scope: Scope,
    selected: Sequence[int],
    function: QFunction,
) -> list[Candidate]:
    """The ``count`` best candidates by exact Q, best first; fewer if fewer are left.

    ``found`` is the result of :func:`estimate` for the same arguments. Everything that it
    cannot tell from the ``count``-th best is scored again in float64 before it is ordered.
    """
    count = min(count, scope.size - len(selected))
    if count <= 0:
        return []
    values = found.values
    cut = values.max() if count == 1 else np.partition(values, -count)[-count]
    contenders = np.flatnonzero(values >= cut - 2 * found.error)
    # In blocks: a document of repeated lines makes hundreds of thousands of contenders.
    exact = np.concatenate(
        [
            exact_q(state, scope, selected, function, contenders[low : low + ROW_BLOCK])
            for low in range(0, len(contenders), ROW_BLOCK)
        ]
    )
    order = np.lexsort((contenders, -exact))[:count]
    return [Candidate(int(contenders[i]), float(exact[i])) for i in order]


def exact_q(
    state: Float32Array,
    scope: Scope,
    selected: Sequence[int],
    function: QFunction,
    positions: IntArray,
) -> NDArray[np.float64]:
    """``Q(s, i)`` in float64 at the given positions of the candidate axis, same shape."""
    level = np.empty(len(positions), dtype=np.int64)
    documents = np.searchsorted(scope.offsets, positions, side="right") - 1
    for document in np.unique(documents):
        start, stop = int(scope.offsets[document]), int(scope.offsets[document + 1])
        taken = [p - start for p in selected if start <= p < stop]
        inside = documents == document
        level[inside] = level_indices(positions[inside] - start, stop - start, taken, function.positions)
    distinct, inverse = np.unique(level, return_inverse=True)
    table = _rotated(state, distinct, function.positions)
    products: NDArray[np.float64] = np.einsum("nd,nd->n", scope.rows(positions).astype(np.float64), table[inverse])
    return function.w * products + function.b


class _Query(NamedTuple):
    """A state as one level sees it, and the same in whole numbers."""

    vector: Float32Array
    """Shape ``[d]``."""
    code: Int8Array
    """Shape ``[1, d]``."""
    scale: float


class _Queries:
    """A state's queries by level; knows the largest error of a code made so far."""

    def __init__(self, state: Float32Array, positions: Positions) -> None:
        self._state, self._positions = state, positions
        self.error = 0.0

    def of(self, level_index: IntArray) -> list[_Query]:
        """The queries of these level indices."""
        table = _rotated(self._state, level_index, self._positions)
        codes = encode_each(table)
        self.error = max(self.error, codes.error)
        vectors = table.astype(np.float32)
        return [
            _Query(vector, numbers[None], scale)
            for vector, numbers, scale in zip(vectors, codes.numbers, codes.scales.tolist(), strict=True)
        ]

    def table(self, level_index: IntArray) -> Float32Array:
        """The vectors of these level indices, shape ``[len(level_index), d]``."""
        return _rotated(self._state, level_index, self._positions).astype(np.float32)


def _score_rotated(
    queries: _Queries, scope: Scope, selected: Sequence[int], positions: Positions, out: Float32Array
) -> None:
    visited: dict[int, list[int]] = {}
    for position in selected:
        document = scope.document_of(position)
        visited.setdefault(document, []).append(position - int(scope.offsets[document]))
    for first, last in scope.stretches:
        start, stop = int(scope.offsets[first]), int(scope.offsets[last])
        if last - first == 1 and stop - start >= LONG_DOCUMENT and positions.mode != "absolute":
            _score_runs(queries, scope, start, runs(stop - start, visited.get(first, []), positions), out)
        else:
            levels = unvisited_level_indices(np.diff(scope.offsets[first : last + 1]), positions)
            for document, taken in visited.items():
                if first <= document < last:
                    low, high = int(scope.offsets[document]), int(scope.offsets[document + 1])
                    levels[low - start : high - start] = level_indices(
                        np.arange(high - low), high - low, taken, positions
                    )
            _score_rows(queries, scope, start, levels, out)


def _score_runs(queries: _Queries, scope: Scope, start: int, found: Sequence[Run], out: Float32Array) -> None:
    for run, query in zip(found, queries.of(np.array([run.level_index for run in found])), strict=True):
        for piece in scope.pieces(start + run.start, start + run.stop):
            _multiply(piece, query, out)


def _score_rows(queries: _Queries, scope: Scope, start: int, levels: IntArray, out: Float32Array) -> None:
    for piece in _joined(scope.pieces(start, start + len(levels))):
        block = ROW_BLOCK if isinstance(piece.matrix, np.ndarray) else DEVICE_ROW_BLOCK
        for low in range(0, len(piece.matrix), block):
            rows = piece.matrix[low : low + block]
            at = piece.start - start + low
            distinct, row_level = np.unique(levels[at : at + len(rows)], return_inverse=True)
            out[start + at : start + at + len(rows)] = _row_products(rows, queries.table(distinct), row_level)


def _joined(parts: Iterable[Part]) -> Iterator[Part]:
    """The parts, small neighbours copied together: a filter may leave single rows, too few to pay for a call."""
    small: list[Part] = []
    for part in parts:
        fits = len(part.matrix) < SMALL_PART and len(small) < SMALL_PART
        if small and not (fits and type(part.matrix) is type(small[0].matrix)):
            yield _join(small)
            small = []
        if len(part.matrix) < SMALL_PART:
            small.append(part)
        else:
            yield part
    if small:
        yield _join(small)


def _join(parts: Sequence[Part]) -> Part:
    arrays = [part.matrix for part in parts if isinstance(part.matrix, np.ndarray)]
    tensors = [part.matrix for part in parts if isinstance(part.matrix, torch.Tensor)]
    return Part(parts[0].start, np.concatenate(arrays) if arrays else torch.cat(tensors))


def _multiply(part: Part, query: _Query, out: Float32Array) -> None:
    """Write the products of a part's rows with a query where the part stands on the candidate axis."""
    place = out[part.start : part.start + len(part.matrix)]
    if part.codes is not None:
        np.multiply(
            products(part.codes.numbers, query.code), part.codes.scale * query.scale, out=place, casting="same_kind"
        )
    elif isinstance(part.matrix, np.ndarray):
        np.matmul(part.matrix, query.vector, out=place)
    else:
        place[:] = (part.matrix @ torch.from_numpy(query.vector).to(part.matrix.device)).cpu().numpy()


def _row_products(matrix: Matrix, table: Float32Array, row_level: IntArray) -> Float32Array:
    """Row ``i`` of ``matrix`` times row ``row_level[i]`` of ``table``, shape ``[rows]``."""
    if isinstance(matrix, np.ndarray):
        products: Float32Array = np.einsum("nd,nd->n", matrix, table[row_level])
        return products
    queries = torch.from_numpy(table).to(matrix.device)[torch.from_numpy(row_level).to(matrix.device)]
    scores: Float32Array = (matrix * queries).sum(dim=1).cpu().numpy()
    return scores


def _rotated(state: Float32Array, level_index: IntArray, positions: Positions) -> NDArray[np.float64]:
    """``R(-ρ) s`` for every level index, shape ``[len(level_index), d]`` float64."""
    wide = state.astype(np.float64)
    if positions.mode == "none":
        return np.broadcast_to(wide, (len(level_index), len(wide)))
    return rotate(wide, -positions.rho(level_index), positions.rope_base)


def _rows(matrix: Matrix, numbers: IntArray) -> Float32Array:
    if isinstance(matrix, np.ndarray):
        return matrix[numbers]
    rows: Float32Array = matrix[torch.from_numpy(numbers).to(matrix.device)].cpu().numpy()
    return rows


def _error(state: Float32Array, scope: Scope, query_error: float, function: QFunction) -> float:
    """How far an estimated Q can be from the true one.

    The usual bound for a sum of ``d`` rounded products is ``d · u · |s| · |a|``; the few additional
    roundings are those of the rotated state, of ``w`` and of ``b``. Codes ``ŝ`` and ``â`` add
    ``|<s, a> - <ŝ, â>| <= |s| |a - â| + |s - ŝ| |â|``.
    """
    unit = 2.0**-24
    length = float(np.linalg.norm(state.astype(np.float64)))
    rounding = unit * ((len(state) + 8) * abs(function.w) * length * scope.norm_bound + 2 * abs(function.b))
    if scope.code_error is None:
        return rounding
    return rounding + abs(function.w) * (
        length * scope.code_error + query_error * (scope.norm_bound + scope.code_error)
    )
