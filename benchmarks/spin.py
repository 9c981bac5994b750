"""State encoding and scan in turn, as an episode runs them, with and without long spinning of OpenMP threads.

    python -m benchmarks.spin

Each setting needs a process of its own; they run in turn, three times. Result: ``benchmarks/results/spin.json``.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROUNDS = 3
STEPS = 12
CHUNKS = 400_000
SETTINGS = {"library default": None, "GOMP_SPINCOUNT=1000": "1000"}
RESULT = Path(__file__).parent / "results" / "spin.json"


def measure() -> dict[str, float]:
    """Median milliseconds of both parts in this process."""
    import numpy as np

    from benchmarks.scan import ways
    from index.encoders.loading import load_encoder
    from service.settings import DEFAULT_CHECKPOINT

    encoder = load_encoder(DEFAULT_CHECKPOINT)
    question = encoder.question_tokens("Where did the person who signed the lease move the office to?")
    state = encoder.compose_state(question, [question * 4] * 3)
    scan = ways(np.array([0, CHUNKS]), np.random.default_rng(0))["service"]
    times: dict[str, list[float]] = {"encode_ms": [], "scan_ms": []}
    for _ in range(STEPS):
        began = time.perf_counter()
        encoder.embed_states([state])
        encoded = time.perf_counter()
        scan()
        times["encode_ms"].append(1000 * (encoded - began))
        times["scan_ms"].append(1000 * (time.perf_counter() - encoded))
    return {name: round(statistics.median(values), 2) for name, values in times.items()}


def main() -> None:
    from trainer.evaluation.machine import describe_machine

    found: dict[str, list[dict[str, float]]] = {name: [] for name in SETTINGS}
    for _ in range(ROUNDS):
        for name, value in SETTINGS.items():
            # An empty value is what the library takes for no setting.
            environment = os.environ | {"GOMP_SPINCOUNT": value or ""}
            output = subprocess.run(
                [sys.executable, "-m", "benchmarks.spin", "measure"], env=environment, check=True, capture_output=True
            ).stdout
            found[name].append(json.loads(output))
    result = {"machine": describe_machine(), "chunks": CHUNKS, "steps": STEPS, "settings": found}
    RESULT.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    if sys.argv[1:] == ["measure"]:
        print(json.dumps(measure()))
    else:
        main()
