"""Exact Q-values of every chunk a request may select, and the best of them.

``Q(s, i) = w · <E_s(s), R(ρ(i)) E_a(c_i)> + b``. Because ``<s, R(ρ)a> = <R(-ρ)s, a>`` it is the
*state* that is rotated, once per level, and the chunk matrix is only read: no rotated copy of it
ever exists.

Which part scores what, and why:

* :mod:`index.search.scan` reads all that is stored once, for all states of a step, and says what Q is about: each value is
  within a known bound of the true one.
* **float64 decides.** Codes and sums in single precision round differently than the true values order.
  All chunks within the error bound of the best are scored again in float64 from their embeddings, so the
  argmax is the argmax of exact arithmetic; ties go to the first chunk in document order.
* **FAISS keeps the vectors** (:mod:`index.storage.local.segments`): its files on disk, memory-mapped without a copy, are
  the matrices read here. It also answers the one question that is a nearest-neighbour search
  with one fixed query: the one-step dense top-k that a trace shows beside the episode.
* :mod:`index.search.preselection` says which candidates are scored where a scope is too large to be read for each step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from index.arrays import Float32Array, Float64Array, IntArray
from index.search.positions import Positions, level_indices, rotated
from index.search.scan import ROW_BLOCK, scan
from index.search.scope import Preselected, Scope


@dataclass(frozen=True, slots=True)
class QFunction:
    """The scalars around the inner product, and the positions; part of a checkpoint."""

    w: float
    b: float
    positions: Positions
    temperature: float = 0.05
    """Of the policy ``softmax(Q / temperature)``, by which a beam compares what it selected."""


class Candidate(NamedTuple):
    """One chunk that could be selected: its position on the candidate axis and its Q-value."""

    position: int
    q: float


class Estimate(NamedTuple):
    """Q-values that are each within ``error`` of the exact ones; ``-inf`` where already selected."""

    values: Float32Array
    """Shape ``[scope.size]``, or that of ``positions``."""
    error: float
    positions: IntArray | None = None
    """Which candidates the values are of, where it is not all of them."""


def estimate(
    states: Float32Array, scope: Scope, selections: Sequence[Sequence[int]], function: QFunction
) -> list[Estimate]:
    """``Q(s, i)`` of every candidate in each state, as near as one read of what is stored tells.

    ``states`` are state embeddings, shape ``[states, d]``; of each, ``selections`` has the positions on the candidate
    axis that are selected, strictly increasing. See :func:`best` for the exact order.
    """
    if scope.preselected is not None:
        return _estimate_preselected(states, scope, scope.preselected, selections, function)
    values, errors = scan(states, scope, selections, function.positions, factor=function.w, summand=function.b)
    for row, selected in zip(values, selections, strict=True):
        row[list(selected)] = -np.inf
    return [
        Estimate(row, _error(state, scope, error, function))
        for row, state, error in zip(values, states, errors, strict=True)
    ]


def best(
    found: Estimate,
    count: int,
    state: Float32Array,
    scope: Scope,
    selected: Sequence[int],
    function: QFunction,
) -> list[Candidate]:
    """The ``count`` best candidates by exact Q, best first; fewer if fewer are left.

    ``found`` is what :func:`estimate` says of this state. Everything that it
    cannot tell from the ``count``-th best is scored again in float64 before it is ordered.
    """
    values = found.values
    left = scope.size - len(selected) if found.positions is None else np.count_nonzero(values > -np.inf)
    count = min(count, int(left))
    if count <= 0:
        return []
    cut = values.max() if count == 1 else np.partition(values, -count)[-count]
    contenders = np.flatnonzero(values >= cut - 2 * found.error)
    if found.positions is not None:
        contenders = found.positions[contenders]
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
) -> Float64Array:
    """``Q(s, i)`` in float64 at the given positions of the candidate axis, same shape."""
    level = np.empty(len(positions), dtype=np.int64)
    documents = np.searchsorted(scope.offsets, positions, side="right") - 1
    for document in np.unique(documents):
        start, stop = int(scope.offsets[document]), int(scope.offsets[document + 1])
        taken = [p - start for p in selected if start <= p < stop]
        inside = documents == document
        level[inside] = level_indices(positions[inside] - start, stop - start, taken, function.positions)
    distinct, inverse = np.unique(level, return_inverse=True)
    table = rotated(state, distinct, function.positions)
    products: Float64Array = np.einsum("nd,nd->n", scope.rows(positions).astype(np.float64), table[inverse])
    return function.w * products + function.b


def _estimate_preselected(
    states: Float32Array,
    scope: Scope,
    preselected: Preselected,
    selections: Sequence[Sequence[int]],
    function: QFunction,
) -> list[Estimate]:
    """:func:`estimate` of the candidates that are likely the best, and of all that are read for each step."""
    exact, exact_positions = preselected.exact, preselected.exact_positions

    def place(positions: Sequence[int] | IntArray) -> list[int]:
        """Where each position stands in what is read exactly; -1 where it does not."""
        at = np.searchsorted(exact_positions, positions)
        there = np.append(exact_positions, -1)[at] == positions
        return np.where(there, at, -1).tolist()  # type: ignore[no-any-return]

    inside = [[at for at in place(selected) if at >= 0] for selected in selections]
    read = estimate(states, exact, inside, function)
    visited = []
    for selected in selections:
        documents = sorted(set(map(scope.document_of, selected)))
        apart = zip(documents, place(scope.offsets[documents]), strict=True)
        visited.append([document for document, at in apart if at < 0])
    besides = max(int(np.diff(scope.offsets)[documents].sum()) for documents in visited)
    likely = preselected.nearest(states if function.w >= 0 else -states, besides)
    found = []
    for state, selected, own, documents, near in zip(states, selections, read, visited, likely, strict=True):
        near = near[~np.isin(np.searchsorted(scope.offsets, near, side="right") - 1, [-1, *documents])]
        again = [np.arange(*scope.offsets[document : document + 2]) for document in documents]
        chosen = np.setdiff1d(np.concatenate([near, *again]), selected).astype(np.int64)
        values = exact_q(state, scope, selected, function, chosen).astype(np.float32)
        error = max(own.error, _error(state, exact, 0.0, function))
        found.append(Estimate(np.concatenate([own.values, values]), error, np.concatenate([exact_positions, chosen])))
    return found


def _error(state: Float32Array, scope: Scope, query_error: float, function: QFunction) -> float:
    """How far an estimated Q can be from the true one.

    The usual bound for a sum of ``d`` rounded products is ``d · u · |s| · |a|``; the few additional
    roundings are those of the rotated state, of ``w`` and of ``b``. Codes ``ŝ`` and ``â`` add
    ``|<s, a> - <ŝ, â>| <= |s| |a - â| + |s - ŝ| |â|``.
    """
    unit = 2.0**-24
    length = float(np.linalg.norm(state.astype(np.float64)))
    rounding = unit * ((len(state) + 8) * abs(function.w) * length * scope.norm_bound + 2 * abs(function.b))
    return rounding + abs(function.w) * (
        length * scope.read_error + query_error * (scope.norm_bound + scope.read_error)
    )
