"""The part of a scan that a GPU does: embeddings in half precision, row by row against a table of rotated states.

One read of the halves for each state: the row of the table that a chunk needs is looked up, multiplied and summed in
one fused kernel, in single precision, and nothing of the matrix' size is written. Levels are computed where they are
used; only states go to the device, and only Q-values come back.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache

import numpy as np
import torch

from index.arrays import Float32Array, IntArray
from index.search.positions import Positions, rotated, unvisited_level_indices
from index.search.scope import Scope

log = logging.getLogger(__name__)

ROW_BLOCK = 1 << 16
"""Rows scored at once where there is no kernel, or where each needs a rotation of its own (absolute positions)."""


def scan_halves(
    states: Float32Array,
    scope: Scope,
    visited: Sequence[Mapping[int, Sequence[int]]],
    positions: Positions,
    values: Float32Array,
    *,
    factor: float,
    summand: float,
) -> None:
    """Write ``factor · <s, R(ρ) a> + summand`` of all candidates that a GPU has into ``values``.

    Shapes are those of :func:`index.search.scan.scan`; ``visited`` are each state's selected chunks by document.
    """
    parts = [part for part in scope.parts if part.half is not None]
    if not parts:
        return
    halves = [part.half.rows for part in parts if part.half is not None]
    device = halves[0].device
    unvisited = _unvisited(scope, positions, device)
    for state, taken, out in zip(states, visited, values, strict=True):
        levels = unvisited.clone() if taken else unvisited
        for document, selected in taken.items():
            start, stop = scope.offsets[document : document + 2].tolist()
            levels[start:stop] = levels_of(stop - start, selected, positions, device)
        score = _scorer(state, 1 + max(map(len, taken.values()), default=0), positions, device)
        found = torch.empty(scope.size, device=device)
        for part, rows in zip(parts, halves, strict=True):
            inside = slice(part.start, part.start + len(rows))
            found[inside] = score(rows, levels[inside])
        host = (
            found.mul_(factor).add_(summand).cpu().numpy()
        )  # all at once: a transfer for each part would wait for each
        for part in parts:
            out[part.start : part.start + len(part.matrix)] = host[part.start : part.start + len(part.matrix)]


Score = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def _scorer(state: Float32Array, intervals: int, positions: Positions, device: torch.device) -> Score:
    """Products of halves, shape ``[rows, d]``, at their levels, shape ``[rows]``, with a state; shape ``[rows]``."""

    def table_of(level_index: IntArray) -> torch.Tensor:
        return torch.from_numpy(rotated(state, level_index, positions).astype(np.float32)).to(device)

    if positions.mode != "absolute":
        table = table_of(np.arange(positions.levels * intervals if positions.mode == "relative" else 1))
        return lambda rows, levels: _fused(device)(rows, table, levels)

    def one_by_one(rows: torch.Tensor, levels: torch.Tensor) -> torch.Tensor:
        found = torch.empty(len(rows), device=device)
        for low in range(0, len(rows), ROW_BLOCK):
            block = slice(low, low + ROW_BLOCK)
            distinct, place = torch.unique(levels[block], return_inverse=True)
            found[block] = _multiply(rows[block], table_of(distinct.cpu().numpy()), place)
        return found

    return one_by_one


Multiply = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


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
    blocks = range(0, len(rows), ROW_BLOCK)
    return torch.cat([_multiply(rows[at : at + ROW_BLOCK], table, levels[at : at + ROW_BLOCK]) for at in blocks])


def _multiply(rows: torch.Tensor, table: torch.Tensor, levels: torch.Tensor) -> torch.Tensor:
    return (rows.float() * table[levels]).sum(dim=1)


def _unvisited(scope: Scope, positions: Positions, device: torch.device) -> torch.Tensor:
    """The level index of each candidate while nothing is selected, shape ``[scope.size]``; worked out once."""
    key = ("device", positions.mode, positions.levels)
    if key not in scope.plans:
        scope.plans[key] = torch.from_numpy(unvisited_level_indices(np.diff(scope.offsets), positions)).to(device)
    found: torch.Tensor = scope.plans[key]
    return found


def levels_of(count: int, selected: Sequence[int], positions: Positions, device: torch.device) -> torch.Tensor:
    """:func:`index.search.positions.level_indices` of a whole document of ``count`` chunks, shape ``[count]``."""
    index = torch.arange(count, device=device)
    if positions.mode == "absolute":
        return index
    if positions.mode == "none":
        return torch.zeros_like(index)
    borders = torch.tensor([0, *selected, count], device=device)
    interval = torch.bucketize(index, borders[1:-1].contiguous(), right=True)
    start, length = borders[interval], borders.diff()[interval]
    return interval * positions.levels + positions.levels * (index - start) // length
