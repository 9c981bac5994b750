"""What a call costs that goes on from another, and a question that is asked again, beside fresh ones.

    python -m benchmarks.conversations [--rounds N]

A service of its own holds a book. In each round, in turn: a question is asked for two chunks and gone on with for one;
another question of the same length, never asked before, is asked for one chunk with the same two given; the first is
asked again. The ratios are those within a round, medians with bootstrap intervals over the rounds. Forward passes are
counted by the service's metrics. Result: ``benchmarks/results/conversations.json``.
"""

from __future__ import annotations

import argparse
import json
import re
import time
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from benchmarks.serving import ROOT, running_service
from index.arrays import Float64Array
from trainer.evaluation.machine import describe_machine

RESULT = Path(__file__).parent / "results" / "conversations.json"
BOOK = ROOT / "examples" / "franklin-autobiography.txt"
QUESTION = "Which friend did the printer lend money to before they sailed to London? (case {:04d})"
HELD = 2
"""Chunks that are held before the call that is timed."""
WARM_UP = 2
"""Rounds that are not counted."""
RESAMPLES = 10_000


class Asking:
    """Requests to a service, timed, with the forward passes that each took."""

    def __init__(self, client: httpx.Client) -> None:
        self._client = client
        self.seconds: dict[str, list[float]] = defaultdict(list)
        self.passes: dict[str, list[int]] = defaultdict(list)

    def ask(self, kind: str, body: Mapping[str, object]) -> dict[str, Any]:
        """The answer to a request of that kind."""
        before = self._states()
        began = time.perf_counter()
        answer = self._client.post("/retrieve", json={"stop": {"rule": "budget"}, **body})
        self.seconds[kind].append(time.perf_counter() - began)
        self.passes[kind].append(self._states() - before)
        answer.raise_for_status()
        result: dict[str, Any] = answer.json()
        return result

    def _states(self) -> int:
        found = re.search(r"^qrag_batch_states_sum (\S+)", self._client.get("/metrics").text, re.MULTILINE)
        return int(float(found[1])) if found else 0


def converse(asking: Asking, number: int) -> None:
    """One round."""
    question = QUESTION.format(2 * number)
    begun = asking.ask("first call", {"question": question, "max_steps": HELD})
    given = [{"document_id": chunk["document_id"], "index": chunk["index"]} for chunk in begun["chunks"]]
    fresh = {"question": QUESTION.format(2 * number + 1), "given": given, "max_steps": 1}
    sides = [("continuation", {"continuation": begun["continuation"], "max_steps": 1}), ("fresh", fresh)]
    for kind, body in sides[:: 1 if number % 2 else -1]:
        asking.ask(kind, body)
    asking.ask("first call again", {"question": question, "max_steps": HELD})


def ratio(left: Float64Array, right: Float64Array) -> list[float]:
    """The median of the ratios within a round, and its 95% interval."""
    ratios = left / right
    drawn = np.random.default_rng(0).integers(len(ratios), size=(RESAMPLES, len(ratios)))
    low, high = np.percentile(np.median(ratios[drawn], axis=1), (2.5, 97.5)).tolist()
    return [round(value, 3) for value in (float(np.median(ratios)), low, high)]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=60, metavar="N", help="default: 60")
    arguments = parser.parse_args()
    with running_service() as service:
        body = {"text": BOOK.read_text(encoding="utf-8")}
        service.client.post("/documents", params={"wait": True}, json=body).raise_for_status()
        asking = Asking(service.client)
        for number in range(WARM_UP + arguments.rounds):
            converse(asking, number)
        model = service.client.get("/model").json()["name"]
    seconds = {kind: np.array(values[WARM_UP:]) for kind, values in asking.seconds.items()}
    result = {
        "machine": describe_machine(),
        "checkpoint": model,
        "rounds": arguments.rounds,
        "milliseconds": {kind: round(1000 * float(np.median(values)), 1) for kind, values in seconds.items()},
        "states_embedded": {kind: float(np.mean(values[WARM_UP:])) for kind, values in asking.passes.items()},
        "continuation_to_fresh": ratio(seconds["continuation"], seconds["fresh"]),
        "again_to_first": ratio(seconds["first call again"], seconds["first call"]),
    }
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
