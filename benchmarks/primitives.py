"""What it costs to keep few of oneDNN's primitives, and what it saves.

    python -m benchmarks.primitives [--requests 700]

oneDNN keeps what it has compiled for each length of input, 1,024 of them by default; the service keeps 16. Two services
with the same book, one with each number, answer the same questions in turn, one at a time. Result:
``benchmarks/results/primitives.json``.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import statistics
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from unittest.mock import patch

import httpx
from tqdm import tqdm

from benchmarks.soak import ROOT, Service
from trainer.evaluation.machine import describe_machine

RESULT = Path(__file__).parent / "results" / "primitives.json"
BOOK = ROOT / "examples" / "franklin-autobiography.txt"
CAPACITIES = (16, 1024)
VARIABLE = "ONEDNN_PRIMITIVE_CACHE_CAPACITY"


async def measure(requests: int, home: Path) -> dict[str, object]:
    services = {capacity: Service(home / f"data-{capacity}", home / f"log-{capacity}") for capacity in CAPACITIES}
    seconds: dict[int, list[float]] = {capacity: [] for capacity in CAPACITIES}
    memory: dict[int, list[int]] = {capacity: [] for capacity in CAPACITIES}
    words = BOOK.read_text().split()
    chance = random.Random(0)
    with ExitStack() as running:
        for capacity, service in services.items():
            with patch.dict(os.environ, {VARIABLE: str(capacity)}):
                await service.start(low_disk=False)
            running.callback(service.kill)
            body = BOOK.read_bytes()
            httpx.post(
                f"{service.address}/documents",
                params={"wait": True},
                content=body,
                timeout=600,
                headers={"Content-Type": "text/plain"},
            ).raise_for_status()
            memory[capacity].append(service.memory())
        for _ in tqdm(range(requests), unit="request"):
            at = chance.randrange(len(words) - 40)
            question = " ".join(words[at : at + chance.randint(5, 40)]) + "?"
            for capacity in chance.sample(CAPACITIES, len(CAPACITIES)):
                began = time.perf_counter()
                httpx.post(f"{services[capacity].address}/retrieve", json={"question": question}).raise_for_status()
                seconds[capacity].append(time.perf_counter() - began)
        for capacity, service in services.items():
            memory[capacity].append(service.memory())
    medians = {capacity: statistics.median(found) for capacity, found in seconds.items()}
    return {
        "machine": describe_machine(),
        "requests": requests,
        "median_ms": {capacity: round(1000 * median, 1) for capacity, median in medians.items()},
        "ratio_of_medians": round(medians[16] / medians[1024], 3),
        "memory_mb_before_and_after": {
            capacity: [round(held / 1e6) for held in found] for capacity, found in memory.items()
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Few of oneDNN's primitives against many: time and memory.")
    parser.add_argument("--requests", type=int, default=700)
    with tempfile.TemporaryDirectory() as home:
        result = asyncio.run(measure(parser.parse_args().requests, Path(home)))
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
