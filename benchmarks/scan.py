"""One step over one long document: the service's exact scan against other ways of computing the same argmax.

    python -m benchmarks.scan

The ways are run in turn, round by round in one process, and each ratio is taken within a round. Result:
``benchmarks/results/scan.json``.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import faiss
import numpy as np
import torch

from index.codes import encode
from index.positions import Positions, level_indices, rotate, runs
from index.scope import Part, Scope
from index.scoring import QFunction, best, estimate
from index.vectors import SEGMENT_ROWS
from trainer.machine import describe_machine

RESULT = Path(__file__).parent / "results" / "scan.json"
DIMENSION = 384
SELECTED = 3
ROUNDS = 9
FUNCTION = QFunction(1.0, 0.0, Positions(mode="relative", levels=18))


def ways_to_score(chunks: int, generator: np.random.Generator) -> dict[str, Callable[[], object]]:
    """Each way finds the best of ``chunks`` chunks with three selected; the last ones only read."""
    matrix = generator.standard_normal((chunks, DIMENSION), dtype=np.float32)
    matrix /= np.linalg.norm(matrix, axis=1, keepdims=True)
    state = matrix[generator.integers(chunks)] + 0.1 * generator.standard_normal(DIMENSION, dtype=np.float32)
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

    def search(scope: Scope) -> int:
        (found,) = estimate(state[None], scope, [selected], FUNCTION)
        return best(found, 1, state, scope, selected, FUNCTION)[0].position

    def faiss_ranges() -> int:
        found = runs(chunks, selected, positions)
        levels = np.array([run.level_index for run in found])
        queries = rotate(state.astype(np.float64), -positions.rho(levels), positions.rope_base).astype(np.float32)
        tops = []
        for run, query in zip(found, queries, strict=True):
            only = faiss.SearchParameters(sel=faiss.IDSelectorRange(run.start, run.stop))  # type: ignore[call-arg]
            values, rows = index.search(query[None], 1, params=only)
            tops.append((float(values[0, 0]), int(rows[0, 0])))
        return max(tops)[1]

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
    assert search(scope) == search(plain) == faiss_ranges() == rerotating()
    return {
        "service": lambda: search(scope),
        "without_codes": lambda: search(plain),
        "faiss_ranges": faiss_ranges,
        "rerotate_every_chunk": rerotating,
        "read_matrix": lambda: float(tensor.sum()),
        "read_codes": lambda: [part.sum() for part in codes],
    }


def main() -> None:
    torch.set_grad_enabled(False)
    sizes: dict[str, object] = {}
    for chunks in (40_000, 400_000):
        ways = ways_to_score(chunks, np.random.default_rng(chunks))
        times: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(ROUNDS):
            for name, way in ways.items():
                began = time.perf_counter()
                way()
                times[name].append(time.perf_counter() - began)
        sizes[str(chunks)] = {
            name: {
                "median_ms": round(1000 * statistics.median(seconds), 2),
                "times_the_service": round(
                    statistics.median(s / own for s, own in zip(seconds, times["service"], strict=True)), 2
                ),
            }
            for name, seconds in times.items()
        }
    result = {"machine": describe_machine(), "dimension": DIMENSION, "rounds": ROUNDS, "chunks": sizes}
    RESULT.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
