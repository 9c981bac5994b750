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

import numpy as np
import torch
from numpy.typing import NDArray

from index.arrays import Float32Array, IntArray
from index.search.function import QFunction
from index.search.matrix_scope import MatrixScope
from index.search.positions import Positions, all_level_indices
from index.search.scanning.codes import encode
from index.search.scanning.matrices import Matrices, Part
from index.search.scope import Scope
from index.search.scoring import best
from index.search.states import State, States
from index.storage.protocols import APPEND_ROWS
from trainer.evaluation.machine import describe_machine

RESULT = Path(__file__).parent / "results" / "scan.json"
DIMENSION = 384
SELECTED = 3
ROUNDS = 9
_POOL = ThreadPoolExecutor(torch.get_num_threads())
FUNCTION = QFunction(1.0, 0.0, Positions(mode="relative", levels=128))
TOGETHER = 16
"""States of as many users, scored together and one by one."""

SIZES = {"one_document": {40_000: 1, 400_000: 1}, "many_documents": {40_000: 8_000, 1_000_000: 200_000}}
"""The number of chunks, and of the documents that they belong to."""


def random_rows(count: int, generator: np.random.Generator) -> Float32Array:
    matrix = generator.standard_normal((count, DIMENSION), dtype=np.float32)
    matrix /= np.linalg.norm(matrix, axis=1, keepdims=True)
    return matrix


def near(rows: Float32Array, generator: np.random.Generator) -> Float32Array:
    return rows + 0.1 * generator.standard_normal(rows.shape, dtype=np.float32)


def search(scope: Scope, states: Float32Array, selected: list[int]) -> list[int]:
    selections = [selected] * len(states)
    found = scope.estimate(States(states), selections, FUNCTION)
    return [
        best(one, 1, State(state), scope, selected, FUNCTION)[0].position
        for one, state in zip(found, states, strict=True)
    ]


def one_by_one(scope: Scope, states: Float32Array, selected: list[int]) -> list[int]:
    return [position for state in states for position in search(scope, state[None], selected)]


def ways(offsets: IntArray, generator: np.random.Generator) -> dict[str, Callable[[], object]]:
    """Each way finds the best chunk with three selected; the last one only reads the codes."""
    chunks = int(offsets[-1])
    matrix = random_rows(chunks, generator)
    states = near(matrix[generator.integers(chunks, size=TOGETHER)], generator)
    state = states[0]
    selected = sorted(generator.choice(chunks, SELECTED, replace=False).tolist())
    # As stored: segments, each with its codes.
    cuts = range(0, chunks, APPEND_ROWS)
    parts = [Part(start, rows := matrix[start : start + APPEND_ROWS], encode(rows)) for start in cuts]
    scope = MatrixScope(Matrices(offsets, tuple(parts)))
    codes = [part.codes.numbers.view(np.int64) for part in parts if part.codes]
    tensor = torch.from_numpy(matrix)
    frequency = torch.from_numpy(FUNCTION.positions.rope_base ** (-np.arange(0, DIMENSION, 2) / DIMENSION)).float()

    def rerotating() -> int:
        """The public code's way, with one network: rotate and copy every chunk, then one product."""
        angle = (
            torch.from_numpy(FUNCTION.positions.rho(all_level_indices(offsets, selected, FUNCTION.positions))).float()[
                :, None
            ]
            * frequency
        )
        cosine, sine = angle.cos(), angle.sin()
        even, odd = tensor[:, 0::2], tensor[:, 1::2]
        rotated = torch.stack((even * cosine - odd * sine, even * sine + odd * cosine), dim=-1).flatten(1)
        values = rotated @ torch.from_numpy(state)
        values[selected] = -torch.inf
        return int(values.argmax())

    assert search(scope, state[None], selected) == [rerotating()]
    assert search(scope, states, selected) == one_by_one(scope, states, selected)
    return {
        "service": lambda: search(scope, state[None], selected),
        "rerotate_every_chunk": rerotating,
        "sixteen_states_together": lambda: search(scope, states, selected),
        "sixteen_states_one_by_one": lambda: one_by_one(scope, states, selected),
        "read_codes": lambda: read(codes),
    }


def random_documents(chunks: int, documents: int, generator: np.random.Generator) -> IntArray:
    """Offsets of so many documents, of one chunk or more."""
    borders = np.sort(generator.choice(np.arange(1, chunks), documents - 1, replace=False))
    return np.concatenate([[0], borders, [chunks]])


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
    found: dict[str, dict[int, object]] = {}
    for name, sizes in SIZES.items():
        found[name] = {}
        for chunks, documents in sizes.items():
            generator = np.random.default_rng(chunks)
            offsets = random_documents(chunks, documents, generator)
            found[name][chunks] = {"documents": documents, **measured(ways(offsets, generator))}
    result = {
        "machine": describe_machine(),
        "threads": torch.get_num_threads(),
        "dimension": DIMENSION,
        "levels": FUNCTION.positions.levels,
        "rounds": ROUNDS,
        **found,
    }
    RESULT.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
