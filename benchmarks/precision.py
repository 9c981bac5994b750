"""How fast the default checkpoint's towers are in bfloat16 and in float32, and which of them this machine takes.

    python -m benchmarks.precision

In turn, round by round in one process: the forward pass of one state and of sixteen, and the embedding of chunks, as in
``benchmarks.towers``. Ratios are taken within a round. Result: ``benchmarks/results/precision.json``.
"""

from __future__ import annotations

import json
import statistics
from pathlib import Path

import torch

from benchmarks.indexing import seconds
from benchmarks.stores import numbered_sentences
from benchmarks.towers import CHUNKS, ROUNDS, ways
from index.encoders.loading import compute_dtype, load_encoder
from service.settings import DEFAULT_CHECKPOINT
from trainer.evaluation.machine import describe_machine

RESULT = Path(__file__).parent / "results" / "precision.json"


def main() -> None:
    texts = [line.rstrip("\n") for line in numbered_sentences(CHUNKS)]
    encoders = {dtype: load_encoder(DEFAULT_CHECKPOINT, dtype=dtype) for dtype in (torch.bfloat16, torch.float32)}
    timed = {dtype: ways(encoder, texts) for dtype, encoder in encoders.items()}
    ratios: dict[str, list[float]] = {way: [] for way in timed[torch.float32]}
    for number in range(ROUNDS + 1):
        for way, found in ratios.items():
            taken = {dtype: seconds(of[way]) for dtype, of in timed.items()}
            if number:  # the first round warms up
                found.append(taken[torch.bfloat16] / taken[torch.float32])
    result = {
        "machine": describe_machine(),
        "threads": torch.get_num_threads(),
        "rounds": ROUNDS,
        "bfloat16_times_float32": {way: round(statistics.median(found), 3) for way, found in ratios.items()},
        "taken": str(compute_dtype(encoders[torch.float32].device)),
    }
    RESULT.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
