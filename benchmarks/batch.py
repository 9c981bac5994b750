"""Sixteen questions in one batch, against one after the other and against sixteen clients.

    python -m benchmarks.batch [--chunks 40000 400000] [--out FILE]

A real server on loopback, one long document, four steps a question. In each round the three ways follow each other,
each with questions of its own, for what was asked before is embedded already; the ratios are medians over the rounds.
Result: ``benchmarks/results/batch.json``.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.crowd import NUMBERS, STEPS, crowd, question
from benchmarks.serving import Service, running_service
from benchmarks.stores import write_store
from index.encoders.loading import load_encoder
from service.settings import DEFAULT_CHECKPOINT
from trainer.evaluation.machine import describe_machine

RESULT = Path(__file__).parent / "results" / "batch.json"
QUESTIONS = 16
ROUNDS = 7


def batched(service: Service) -> float:
    """Seconds of one batch of fresh questions."""
    questions = [question(next(NUMBERS)) for _ in range(QUESTIONS)]
    body = {"questions": questions, "max_steps": STEPS, "stop": {"rule": "budget"}}
    began = time.perf_counter()
    answer = service.client.post("/retrieve/batch", json=body).raise_for_status()
    seconds = time.perf_counter() - began
    assert all(len(item["result"]["chunks"]) == STEPS for item in answer.json()["items"])
    return seconds


def measure(service: Service) -> dict[str, Any]:
    asyncio.run(crowd(service.address, 1, 2))  # builds the scope
    rounds = []
    for _ in range(ROUNDS):
        alone = asyncio.run(crowd(service.address, 1, QUESTIONS)).seconds
        together = batched(service)
        clients = asyncio.run(crowd(service.address, QUESTIONS, QUESTIONS)).seconds
        rounds.append((together, alone, clients))

    def median(values: list[float]) -> float:
        return round(statistics.median(values), 3)

    return {
        "batch_seconds": median([together for together, _, _ in rounds]),
        "one_by_one_seconds": median([alone for _, alone, _ in rounds]),
        "sixteen_clients_seconds": median([clients for _, _, clients in rounds]),
        "times_one_by_one": median([alone / together for together, alone, _ in rounds]),
        "times_sixteen_clients": median([clients / together for together, _, clients in rounds]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Sixteen questions in one batch, against other ways to ask them.")
    parser.add_argument("--chunks", type=int, nargs="+", default=[40_000, 400_000])
    parser.add_argument("--out", type=Path, default=RESULT)
    arguments = parser.parse_args()
    encoder = load_encoder(DEFAULT_CHECKPOINT)
    sizes: dict[str, Any] = {}
    for chunks in arguments.chunks:
        with tempfile.TemporaryDirectory() as folder:
            write_store(Path(folder), encoder, chunks)
            with running_service(folder) as service:
                sizes[str(chunks)] = measure(service)
    result = {
        "machine": describe_machine(),
        "questions": QUESTIONS,
        "steps": STEPS,
        "rounds": ROUNDS,
        "chunks": sizes,
    }
    arguments.out.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
