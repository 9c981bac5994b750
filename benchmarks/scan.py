"""One step over one long document, or over many short ones: the exact scan against other ways to the same argmax.

    python -m benchmarks.scan

The ways are run in turn, round by round in one process, and each ratio is taken within a round. Result:
``benchmarks/results/scan.json``.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import faiss
import numpy as np
import torch
from numpy.typing import NDArray

from index.codes import SortedCodes, Stretch, encode, layout
from index.positions import Positions, level_indices, rotate, runs
from index.scope import Float32Array, Part, Scope
from index.scoring import QFunction, best, estimate
from index.vectors import SEGMENT_ROWS
from trainer.machine import describe_machine

RESULT = Path(__file__).parent / "results" / "scan.json"
DIMENSION = 384
SELECTED = 3
ROUNDS = 9
_POOL = ThreadPoolExecutor(torch.get_num_threads())
FUNCTION = QFunction(1.0, 0.0, Positions(mode="relative", levels=128))
TOGETHER = 16
"""States of as many users, scored together and one by one."""

SHORT = {40_000: 8_000, 1_000_000: 200_000}
"""Chunks, and the documents that they are of."""


def random_rows(count: int, generator: np.random.Generator) -> Float32Array:
    matrix = generator.standard_normal((count, DIMENSION), dtype=np.float32)
    matrix /= np.linalg.norm(matrix, axis=1, keepdims=True)
    return matrix


def near(rows: Float32Array, generator: np.random.Generator) -> Float32Array:
    return rows + 0.1 * generator.standard_normal(rows.shape, dtype=np.float32)


def search(scope: Scope, states: Float32Array, selected: list[int]) -> list[int]:
    selections = [selected] * len(states)
    found = estimate(states, scope, selections, FUNCTION)
    return [
        best(one, 1, state, scope, selected, FUNCTION)[0].position for one, state in zip(found, states, strict=True)
    ]


def one_by_one(scope: Scope, states: Float32Array, selected: list[int]) -> list[int]:
    return [position for state in states for position in search(scope, state[None], selected)]


def ways_for_long(chunks: int, generator: np.random.Generator) -> dict[str, Callable[[], object]]:
    """Each way finds the best of ``chunks`` chunks of a document with three selected; the last ones only read."""
    matrix = random_rows(chunks, generator)
    states = near(matrix[generator.integers(chunks, size=TOGETHER)], generator)
    state = states[0]
    selected = sorted(generator.choice(chunks, SELECTED, replace=False).tolist())
    offsets = np.array([0, chunks])
    plain = Scope(offsets, (Part(0, matrix),))
    # As stored: segments, each with its codes.
    cuts = range(0, chunks, SEGMENT_ROWS)
    coded = [Part(start, rows := matrix[start : start + SEGMENT_ROWS], encode(rows)) for start in cuts]
    scope = Scope(offsets, tuple(coded))
    codes = [part.codes.numbers.view(np.int64) for part in coded if part.codes]
    positions = FUNCTION.positions
    tensor, index = torch.from_numpy(matrix), faiss.IndexFlatIP(DIMENSION)
    index.add(matrix)

    def faiss_ranges() -> int:
        found = runs(chunks, selected, positions)
        queries = rotate(state.astype(np.float64), -positions.rho(found.level_index), positions.rope_base)
        stops = np.append(found.starts[1:], chunks).tolist()
        tops = []
        for start, stop, query in zip(found.starts.tolist(), stops, queries.astype(np.float32), strict=True):
            only = faiss.SearchParameters(sel=faiss.IDSelectorRange(start, stop))  # type: ignore[call-arg]
            values, rows = index.search(query[None], 2, params=only)
            tops += [pair for pair in zip(values[0].tolist(), rows[0].tolist(), strict=True) if pair[1] not in selected]
        return int(max(tops)[1])

    def rerotating() -> int:
        """The public code's way, with one network: rotate and copy every chunk, then one product."""
        levels = level_indices(np.arange(chunks), chunks, selected, positions)
        angle = torch.from_numpy(positions.rho(levels)).float()[:, None] * frequency
        cosine, sine = angle.cos(), angle.sin()
        even, odd = tensor[:, 0::2], tensor[:, 1::2]
        rotated = torch.stack((even * cosine - odd * sine, even * sine + odd * cosine), dim=-1).flatten(1)
        values = rotated @ torch.from_numpy(state)
        values[selected] = -torch.inf
        return int(values.argmax())

    frequency = torch.from_numpy(positions.rope_base ** (-np.arange(0, DIMENSION, 2) / DIMENSION)).float()
    assert search(scope, state[None], selected) == [faiss_ranges()] == [rerotating()]
    assert search(scope, states, selected) == one_by_one(plain, states, selected)
    return {
        "service": lambda: search(scope, state[None], selected),
        "without_codes": lambda: search(plain, state[None], selected),
        "faiss_ranges": faiss_ranges,
        "rerotate_every_chunk": rerotating,
        "sixteen_states_together": lambda: search(scope, states, selected),
        "sixteen_states_one_by_one": lambda: one_by_one(scope, states, selected),
        "read_matrix": lambda: float(tensor.sum()),
        "read_codes": lambda: read(codes),
    }


def ways_for_short(chunks: int, documents: int, generator: np.random.Generator) -> dict[str, Callable[[], object]]:
    """The same for many documents, each of some chunks."""
    matrix = random_rows(chunks, generator)
    offsets = np.sort(generator.choice(np.arange(1, chunks), documents - 1, replace=False))
    offsets = np.concatenate([[0], offsets, [chunks]])
    counts = np.diff(offsets)
    states = near(matrix[generator.integers(chunks, size=TOGETHER)], generator)
    selected = sorted(generator.choice(chunks, SELECTED, replace=False).tolist())
    number, count = np.arange(chunks) - np.repeat(offsets[:-1], counts), np.repeat(counts, counts)
    parts = []
    for start in range(0, chunks, SEGMENT_ROWS):
        rows = matrix[start : start + SEGMENT_ROWS]
        inside = slice(start, start + len(rows))
        pieces = zip(range(len(rows)), number[inside].tolist(), count[inside].tolist(), strict=True)
        order = layout(len(rows), [Stretch(row, 1, at, of) for row, at, of in pieces])
        parts.append(Part(start, rows, sorted_codes=SortedCodes(encode(rows[order]), order)))
    scope, plain = Scope(offsets, tuple(parts)), Scope(offsets, (Part(0, matrix),))
    codes = [part.sorted_codes.codes.numbers.view(np.int64) for part in parts if part.sorted_codes]
    assert search(scope, states[:2], selected) == one_by_one(plain, states[:2], selected)
    return {
        "service": lambda: search(scope, states[:1], selected),
        "row_by_row": lambda: search(plain, states[:1], selected),
        "sixteen_states_together": lambda: search(scope, states, selected),
        "sixteen_states_one_by_one": lambda: one_by_one(scope, states, selected),
        "read_codes": lambda: read(codes),
    }


def read(codes: Sequence[NDArray[np.int64]]) -> None:
    """Every byte once, by as many threads as a search has."""
    list(_POOL.map(np.sum, codes))


def measured(ways: Mapping[str, Callable[[], object]]) -> dict[str, object]:
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, way in ways.items():
            began = time.perf_counter()
            way()
            times[name].append(time.perf_counter() - began)
    return {
        name: {
            "median_ms": round(1000 * statistics.median(seconds), 2),
            "times_the_service": round(
                statistics.median(s / own for s, own in zip(seconds, times["service"], strict=True)), 2
            ),
        }
        for name, seconds in times.items()
    }


def main() -> None:
    torch.set_grad_enabled(False)
    long = {chunks: measured(ways_for_long(chunks, np.random.default_rng(chunks))) for chunks in (40_000, 400_000)}
    short = {
        chunks: {"documents": documents, **measured(ways_for_short(chunks, documents, np.random.default_rng(chunks)))}
        for chunks, documents in SHORT.items()
    }
    result = {
        "machine": describe_machine(),
        "threads": torch.get_num_threads(),
        "dimension": DIMENSION,
        "levels": FUNCTION.positions.levels,
        "rounds": ROUNDS,
        "one_document": long,
        "many_documents": short,
    }
    RESULT.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
