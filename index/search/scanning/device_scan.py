"""The part of a scan that a GPU does: embeddings in half precision, row by row against a table of rotated states.

One read of the halves for each state: the row of the table that a chunk needs is looked up, multiplied and summed in
one fused kernel, in single precision, and nothing of the matrix' size is written. Levels are computed where they are
used; only states go to the device, and only Q-values come back.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
import torch

from index.arrays import Float32Array, IntArray
from index.search.positions import Positions, all_level_indices, level_index
from index.search.scanning.matrices import Matrices
from index.search.states import State, States
from index.search.turning import Turning

log = logging.getLogger(__name__)

SCORED_ROWS = 1 << 16
"""Rows scored at once where there is no kernel, or where each needs a rotation of its own (absolute positions)."""

Score = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""Maps halves, shape ``[rows, d]``, and their level indices, shape ``[rows]``, to their products with a state."""

Multiply = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
"""Maps halves, a table of rotated states, shape ``[levels, d]``, and the table's row for each half to the products."""


def scan_halves(
    states: States,
    matrices: Matrices,
    selections: Sequence[Sequence[int]],
    turning: Turning,
    values: Float32Array,
    *,
    factor: float,
    summand: float,
) -> None:
    """Add ``factor · <q, a> + summand`` of all candidates on a GPU to ``values``.

    Shapes are those of :func:`index.search.scanning.scan.scan`.
    """
    parts = [part for part in matrices.parts if part.half is not None]
    if not parts:
        return
    halves = [part.half.rows for part in parts if part.half is not None]
    device, positions = halves[0].device, turning.positions
    unvisited = _unvisited(matrices, positions, device)
    for state, selected, out in zip(states, selections, values, strict=True):
        levels = unvisited.clone() if selected else unvisited
        most_selected = 0
        for document in dict.fromkeys(map(matrices.document_of, selected)):
            start, stop = matrices.offsets[document : document + 2].tolist()
            inside_document = [position - start for position in selected if start <= position < stop]
            levels[start:stop] = levels_of(stop - start, inside_document, positions, device)
            most_selected = max(most_selected, len(inside_document))
        score = _scorer(state, 1 + most_selected, turning, device)
        products = torch.empty(matrices.size, device=device)
        for part, rows in zip(parts, halves, strict=True):
            inside = slice(part.start, part.start + len(rows))
            products[inside] = score(rows, levels[inside])
        # One transfer: with one for each part, the host would wait for each.
        host = products.mul_(factor).add_(summand).cpu().numpy()
        for part in parts:
            inside = slice(part.start, part.start + len(part.matrix))
            out[inside] += host[inside]


def _scorer(state: State, intervals: int, turning: Turning, device: torch.device) -> Score:
    positions = turning.positions

    def table_of(level_indices: IntArray) -> torch.Tensor:
        return torch.from_numpy(turning.queries(state, level_indices).astype(np.float32)).to(device)

    if positions.mode != "absolute":
        table = table_of(np.arange(positions.levels * intervals if positions.mode == "relative" else 1))
        return lambda rows, levels: _fused(device)(rows, table, levels)

    def row_by_row(rows: torch.Tensor, levels: torch.Tensor) -> torch.Tensor:
        products = torch.empty(len(rows), device=device)
        for low in range(0, len(rows), SCORED_ROWS):
            block = slice(low, low + SCORED_ROWS)
            distinct, table_rows = torch.unique(levels[block], return_inverse=True)
            products[block] = _multiply(rows[block], table_of(distinct.cpu().numpy()), table_rows)
        return products

    return row_by_row


@lru_cache
def _fused(device: torch.device) -> Multiply:
    """:func:`_multiply` as one kernel on a GPU, if there is a compiler to make it; else block by block."""
    if device.type != "cuda":
        return _multiply_blocks
    compiled: Multiply = torch.compile(_multiply, dynamic=True)
    try:
        compiled(
            torch.zeros(64, 8, dtype=torch.float16, device=device),
            torch.zeros(16, 8, device=device),
            torch.zeros(64, dtype=torch.int64, device=device),
        )
    except Exception as error:
        log.warning("no kernel could be compiled, scores on the GPU take longer: %s", error)
        return _multiply_blocks
    return compiled


def _multiply_blocks(rows: torch.Tensor, table: torch.Tensor, levels: torch.Tensor) -> torch.Tensor:
    blocks = range(0, len(rows), SCORED_ROWS)
    return torch.cat(
        [_multiply(rows[low : low + SCORED_ROWS], table, levels[low : low + SCORED_ROWS]) for low in blocks]
    )


def _multiply(rows: torch.Tensor, table: torch.Tensor, levels: torch.Tensor) -> torch.Tensor:
    return (rows.float() * table[levels]).sum(dim=1)


def _unvisited(matrices: Matrices, positions: Positions, device: torch.device) -> torch.Tensor:
    """The level index of each candidate while nothing is selected, shape ``[matrices.size]``; computed once."""
    key = ("device", positions.mode, positions.levels)
    if key not in matrices.plans:
        matrices.plans[key] = torch.from_numpy(all_level_indices(matrices.offsets, (), positions)).to(device)
    levels: torch.Tensor = matrices.plans[key]
    return levels


def levels_of(count: int, selected: Sequence[int], positions: Positions, device: torch.device) -> torch.Tensor:
    """:func:`index.search.positions.level_indices` of a whole document of ``count`` chunks, shape ``[count]``."""
    chunks = torch.arange(count, device=device)
    if positions.mode == "absolute":
        return chunks
    if positions.mode == "none":
        return torch.zeros_like(chunks)
    borders = torch.tensor([0, *selected, count], device=device)
    interval = torch.bucketize(chunks, borders[1:-1].contiguous(), right=True)
    begin, length = borders[interval], borders.diff()[interval]
    return level_index(interval, chunks - begin, length, positions.levels)
