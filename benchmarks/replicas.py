"""Two replicas over PostgreSQL and Qdrant's engine beside one of them: answers a second.

    python -m benchmarks.replicas [--rounds N]

Each replica is pinned to a core of its own; the engines and the clients have what is left of the same cores. In each
round the two are asked by the same number of clients each, in turn with the first one alone. The vectors are in a
process that answers Qdrant's calls from Qdrant's own engine (``tests/engines/server.py``). Needs Debian's
``postgresql``. Result: ``benchmarks/results/replicas.json``.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from benchmarks.conversations import ratio
from benchmarks.crowd import STEPS, crowd
from benchmarks.serving import Service, running_service
from benchmarks.stores import BOOK
from tests.engines.postgres import postgres_server
from tests.engines.processes import vector_process
from trainer.evaluation.machine import describe_machine

RESULT = Path(__file__).parent / "results" / "replicas.json"
CLIENTS = 8
"""Clients that ask a replica at once."""
REQUESTS = 48
"""Questions that a replica is asked in a round."""


@contextmanager
def two_replicas() -> Iterator[list[Service]]:
    """Two processes of the service on the same empty engines, on cores 0 and 1."""
    with ExitStack() as opened:
        folder = Path(opened.enter_context(tempfile.TemporaryDirectory()))
        postgres = opened.enter_context(postgres_server(durable=True))
        vectors = opened.enter_context(vector_process(folder))
        settings = {"QRAG_DATABASE_URL": postgres.new_url(), "QRAG_QDRANT_URL": vectors.url}
        yield [opened.enter_context(running_service(None, settings, core)) for core in (0, 1)]


def answers_a_second(replicas: Sequence[Service]) -> float:
    """Answers a second of some replicas that are asked at once."""

    async def ask() -> float:
        crowds = await asyncio.gather(*(crowd(replica.address, CLIENTS, REQUESTS) for replica in replicas))
        return len(replicas) * REQUESTS / max(each.seconds for each in crowds)

    return asyncio.run(ask())


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9, metavar="N", help="default: 9")
    arguments = parser.parse_args()
    with two_replicas() as replicas:
        upload = {"text": BOOK.read_text(encoding="utf-8")}
        document: dict[str, Any] = replicas[0].client.post("/documents", params={"wait": True}, json=upload).json()
        answers_a_second(replicas)
        rounds = []
        for number in range(arguments.rounds):
            sides = [replicas[:1], replicas]
            rates = {len(side): answers_a_second(side) for side in sides[:: 1 if number % 2 else -1]}
            rounds.append((rates[1], rates[2]))
        where = timings(replicas[0].client)
    one, two = np.array(rounds).T
    result = {
        "machine": describe_machine(),
        "chunks": document["chunks"],
        "steps": STEPS,
        "clients_of_each": CLIENTS,
        "rounds": arguments.rounds,
        "answers_a_second": {"one": round(float(np.median(one)), 2), "two": round(float(np.median(two)), 2)},
        "two_to_one": ratio(two, one),
        "milliseconds_of_a_lone_question": where,
    }
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


def timings(client: httpx.Client) -> dict[str, float]:
    """Where the time of a question goes that nobody else competes with, medians over some questions."""
    answers = [
        client.post(
            "/retrieve",
            json={
                "question": f"Who had owned the press (case {number})?",
                "max_steps": STEPS,
                "stop": {"rule": "budget"},
            },
        ).json()
        for number in range(16)
    ]
    return {
        name: round(float(np.median([answer["timings"][name] for answer in answers])), 1)
        for name in ("encode_ms", "search_ms", "total_ms")
    }


if __name__ == "__main__":
    main()
